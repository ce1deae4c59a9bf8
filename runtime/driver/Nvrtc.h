// NVRTC, NVIDIA's run-time compiler of CUDA C++, opened at run time: source text in, cubin out. For Quern's
// own device code (kernels/*.cu). Needs no GPU, no driver and no CUDA header. (It takes no PTX: see Ptxas.h.)
#pragma once
#include "compiler/support/Error.h"
#include "runtime/driver/Ptxas.h"
#include "runtime/driver/Tools.h"
#include <string>
#include <string_view>
#include <vector>

namespace quern::driver {

struct NvrtcLibrary {
  Found file;
  int version = 0; // 13000: CUDA 13.0
};

/// The NVRTC that compile() uses: QUERN_NVRTC, the toolkit, the nvidia-cuda-nvrtc wheel, the loader's path.
/// One whose major version is newer than the driver's (`driverVersion`, 0: any) is left out, because that
/// driver refuses its cubins. Opens it (the search is made again only after a failure).
Expected<NvrtcLibrary> findNvrtc(int driverVersion = 0);

/// Which NVRTC that would be, without opening it where its content is known: "13.0" and the fingerprint of
/// its file (ToolIdentity.h); "none" without one.
std::string nvrtcInUse(int driverVersion);

struct SourceText {
  std::string name, text; // name: as in #include "name"
};

struct CompiledCuda {
  std::string cubin, log;
  PtxasReport report; // registers and spills of each kernel
  double seconds = 0;
  bool fromDisk = false; // read from the cache, not compiled by this process
};

/// What NVRTC is told beside the source: part of a cubin's key.
std::vector<std::string> nvrtcOptions(std::string_view arch);

/// Compiles one source for `arch` ("sm_90a") as C++17, without contraction of a*b+c into fma, so that the
/// code gives the bits that the simulator gives. Errors: system (no NVRTC), internal (it refuses the source;
/// the detail is its log).
Expected<CompiledCuda> compileCuda(const SourceText &source, const std::vector<SourceText> &headers,
                                   std::string_view arch, int driverVersion = 0);

} // namespace quern::driver
