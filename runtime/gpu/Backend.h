// What a launcher needs from a device: memory, tensor maps, launches. Two implementations: the CUDA driver
// (runtime/driver) and the simulator. Everything above this line is the same for both, so it is proven
// without a GPU.
#pragma once
#include "compiler/support/Error.h"
#include "runtime/jit/GpuImage.h"
#include <memory>
#include <string>
#include <vector>

namespace quern::gpu {

using Stream = void *; // CUstream; ignored by the simulator

/// A kernel ready to be launched. Owned by the backend that loaded it.
struct LoadedKernel;
class Timer; // Timer.h

struct LaunchConfig {
  unsigned grid = 1, block = 128, cluster = 1;
  uint64_t smemBytes = 0;
  bool dependent = false; // programmatic dependent launch: may start before the kernel before it ends
};

/// One memory range a kernel may touch; the simulator checks every access against them, a GPU ignores them.
struct Range {
  std::string name;
  const void *data = nullptr;
  uint64_t bytes = 0;
  bool writable = false;
};

class Backend {
public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0; // "NVIDIA H100 80GB HBM3 (sm_90a)", "simulator"
  virtual std::string arch() const = 0; // "sm_90a", "sim"
  virtual int multiprocessors() const = 0;
  /// Whether launch looks at the ranges; otherwise callers need not build them.
  virtual bool checksRanges() const { return false; }

  /// Device memory, at least 256-byte aligned. allocate is ordered on `stream`.
  virtual Expected<void *> allocate(uint64_t bytes, Stream stream) = 0;
  virtual void release(void *memory, Stream stream) = 0;
  virtual Status upload(void *device, const void *host, uint64_t bytes, Stream stream) = 0;
  virtual Status download(void *host, const void *device, uint64_t bytes, Stream stream) = 0;
  virtual Status synchronize(Stream stream) = 0;

  /// Tensor map of a bf16/f16 matrix [rows, columns]: boxes of 64 columns x boxRows rows, 128-byte swizzle,
  /// out-of-range elements read as zero.
  virtual Status encodeTensorMap(void *map128, const void *base, DType dtype, int64_t columns, int64_t rows,
                                 int64_t rowStride, int64_t boxRows) = 0;

  /// Whether anything can be compiled, loaded or uploaded for a call of `kernel` on `stream`: not while a
  /// CUDA graph is being captured from it. The driver is only asked for the status, so the capture goes on.
  virtual Status mayLoad(const std::string &kernel, Stream stream) { return {}; }
  /// A generated kernel. The image outlives the result. `refusal`, if given, is why the driver does not take
  /// the image as it is: none of its forms (the result is an error then) or only the PTX, which the driver
  /// compiles again in each process. Empty: it does, or fails for reasons that are not the image's.
  virtual Expected<LoadedKernel *> load(const jit::GpuImage &image, std::string *refusal = nullptr) = 0;
  /// A kernel of Quern's own device code (kernels/*.cu), by name; compiled by NVRTC once per process
  /// (simulator: clang at build time). One that is not loaded yet is refused as by mayLoad.
  virtual Expected<LoadedKernel *> loadDevice(const std::string &kernel, Stream stream) = 0;
  /// params[i] points at parameter i. Asynchronous on `stream`; never waits for the device.
  virtual Status launch(LoadedKernel *kernel, const LaunchConfig &config, void **params,
                        const std::vector<Range> &ranges, Stream stream) = 0;

  /// For measurements (Timer.h): CUDA events; for the simulator the host's clock. A system error when the
  /// driver lacks what it needs.
  virtual Expected<std::unique_ptr<Timer>> timer() = 0;
};

/// The CUDA device `ordinal` through libcuda.so.1 (dlopen, primary context). A user error when there is none.
Expected<Backend *> cudaBackend(int ordinal);
/// The simulator. `reports` problems as errors of launch: the text is the report.
Expected<Backend *> simBackend();

} // namespace quern::gpu
