// A CUDA driver without a device, for tests: a shared library with libcuda's entry points that keeps
// contexts, modules, memory (host memory) and captures as the CUDA documentation describes them, writes down
// every call, runs no kernel, and fails when it is told to. Opened through QUERN_CUDA_LIBRARY; `fakeCuda()`
// is its control. In a process that has no control, variables say what the machine is like:
// QUERN_FAKE_CUDA_VERSION (12040), QUERN_FAKE_CUDA_DEVICES, QUERN_FAKE_CUDA_REFUSES (see
// refusedKernel), and QUERN_FAKE_CUDA_LOG, a file that every call's
// name is appended to, and "PTX" when the driver compiles some.
#pragma once
#include "runtime/driver/CudaApi.h"
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace quern::test {

namespace cuda = ::quern::driver::cuda;

struct FakeModule {
  int device = 0;
  bool fromPtx = false;
  std::string bytes;
};

struct FakeFunction {
  FakeModule *module = nullptr;
  std::string name;
  int dynamicSmem = 0;
  bool nonPortableCluster = false;
  bool loaded = false; // its code is on the device; lazily: by cuFuncLoad, an attribute, or the first launch
};

struct FakeLaunch {
  FakeFunction *function = nullptr;
  cuda::LaunchConfig config;
  unsigned cluster = 1;
  bool dependent = false;
  void **parameters = nullptr;
};

struct FakePool {
  int device = 0;
  uint64_t releaseThreshold = 0;
};

struct FakeTensorMap {
  cuda::TensorType type{};
  uint32_t rank = 0;
  void *base = nullptr;
  std::vector<uint64_t> dims, byteStrides;
  std::vector<uint32_t> box, elementStrides;
  cuda::TensorInterleave interleave{};
  cuda::TensorSwizzle swizzle{};
  cuda::TensorPromotion promotion{};
};

struct FakeCuda {
  std::recursive_mutex mutex;

  // What the machine is like.
  int version = 13000, devices = 1, major = 9, minor = 0;
  bool pools = true, clusters = true, errorTexts = true;
  int smemPerBlock = 232448, staticSmem = 0;
  uint64_t memory = 1 << 30; // bytes per process; more is out of memory
  cuda::Result initResult = cuda::success;
  cuda::Result cubinResult = cuda::success; // of loading any cubin
  std::string refusedKernel;                // cubins of this kernel are for another GPU
  std::string ptxLog;                       // not empty: PTX is refused with this log

  int loadMs = 0; // how long the load of a module takes

  // Failing: the `failAt`-th call after reset() (from 1; error texts do not count) gives `failWith`.
  int failAt = 0;
  bool failForever = false;
  cuda::Result failWith = cuda::errorOutOfMemory;

  /// False: calls and launches are counted, not written down (for benchmarks).
  bool recording = true;

  /// Not empty: a call that is not named here fails with errorNotSupported, and is written down.
  std::set<std::string, std::less<>> allowed;
  std::vector<std::string> forbidden;

  /// What kernels that run did: from now on every launch, copy and wait gives this code.
  cuda::Result stickyError = cuda::success;

  // What happened.
  uint64_t numCalls = 0; // since reset()
  std::vector<std::string> calls;
  std::vector<FakeLaunch> launches;
  std::vector<FakeTensorMap> tensorMaps;
  std::map<cuda::DevicePointer, size_t> live; // memory
  std::vector<FakePool *> livePools;
  std::map<cuda::Stream, cuda::CaptureStatus> captures; // of streams in a capture of global mode
  std::map<cuda::Stream, int> streamDevices;            // a stream that is not here belongs to every device
  int liveModules = 0, retained[4] = {};
  bool misuse = false; // a pointer freed twice, a pop without a push, a launch without a function, ...

  virtual ~FakeCuda() = default;
  virtual void reset() = 0;
  /// As reset(), but what the driver holds (memory, pools, modules) stays.
  virtual void forget() = 0;
  /// The context that cuCtxGetCurrent gives for a device; contexts of this thread, innermost last.
  virtual cuda::Context contextOf(int device) = 0;
  virtual std::vector<cuda::Context> &contextStack() = 0;
  virtual cuda::CaptureMode captureMode() = 0; // of this thread
  /// Ends a capture as cuStreamEndCapture does: the code that it gives.
  virtual cuda::Result endCapture(cuda::Stream stream) = 0;
  bool captureSurvives() const {
    for (auto &[stream, status] : captures)
      if (status != cuda::CaptureStatus::Active) return false;
    return true;
  }
};

} // namespace quern::test

extern "C" quern::test::FakeCuda *fakeCuda();
