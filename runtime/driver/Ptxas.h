// ptxas, NVIDIA's assembler, as a child process: PTX in, cubin and a parsed log out. (nvJitLink is not used:
// it compiles like `ptxas -c`, where setmaxnreg is ignored.) No CUDA header, driver or GPU is needed.
#pragma once
#include "compiler/support/Error.h"
#include "runtime/driver/Tools.h"
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern::driver {

/// What `ptxas -v` says about one kernel or device function.
struct PtxasKernel {
  std::string name;
  bool isEntry = true;
  int registers = 0, barriers = 0;
  int64_t stackBytes = 0, spillStoreBytes = 0, spillLoadBytes = 0;
  int64_t smemBytes = 0; // static shared memory
};

/// The log of ptxas as data. Codes: C7508 setmaxnreg ignored; C7510, C7513, C7514 wgmma serialised; C7517,
/// C7519 a wait or fence of wgmma injected.
struct PtxasReport {
  std::vector<PtxasKernel> kernels;
  std::vector<std::string> advisories; // lines with a code "(C7...)", as printed
  std::vector<std::string> warnings;   // lines "ptxas warning: ..."
  std::vector<std::string> errors;     // lines "error" and "fatal"

  const PtxasKernel *find(std::string_view kernel) const;
  int64_t spillBytes() const; // stores and loads of all kernels
  bool setmaxnregIgnored() const;
  bool wgmmaSerialized() const;
  bool wgmmaInjected() const; // a fence or a wait that the program should have had
  /// Neither spills nor advisories nor warnings.
  bool clean() const { return spillBytes() == 0 && advisories.empty() && warnings.empty(); }
};

PtxasReport parsePtxasLog(std::string_view log);

struct Assembled {
  std::string cubin; // ELF
  std::string log;   // what ptxas printed
  PtxasReport report;
  Found ptxas;
  double seconds = 0;
};

struct AssembleOptions {
  int maxRegisters = 0; // -maxrregcount; 0: the kernel's own .maxnreg, .reqntid decide
  double timeoutSeconds = 120;
};

/// Assembles one PTX module for `arch` ("sm_90a"). The first ptxas is used; one
/// that is too old for the PTX version or the architecture gives way to the next. Errors: system (no ptxas,
/// it does not start, time limit, killed), internal (it refuses the PTX, exit 0 without a cubin); the detail
/// has its lines with the PTX around each.
Expected<Assembled> assemble(std::string_view ptx, std::string_view arch,
                             const AssembleOptions &options = {});

/// Every ptxas: QUERN_PTXAS (then alone), the toolkit, the PATH, the nvidia-cuda-nvcc and triton wheels.
/// Empty: the driver must compile the PTX.
std::vector<Found> findPtxas();
/// The text of a missing ptxas: where it was looked for, how to get one.
Error missingPtxas();

/// "13.0.88", from `--version` (ptxas, nvdisasm, cuobjdump); asked once per file and process.
Expected<std::string> toolVersion(const std::string &path);

/// SASS of a cubin by cuobjdump or nvdisasm (QUERN_DISASSEMBLER, the toolkit, the PATH, the wheels). A system
/// error when neither is there.
Expected<std::string> disassemble(std::string_view cubin);
std::vector<Found> findDisassemblers();

} // namespace quern::driver
