// The CUDA driver of this machine, opened at run time (libcuda.so.1; QUERN_CUDA_LIBRARY names another one).
// Nothing here runs before it is asked for: importing Quern, or using the CPU, never touches CUDA.
#pragma once
#include "compiler/support/Error.h"
#include "runtime/driver/CudaApi.h"
#include <memory>
#include <string>
#include <string_view>

namespace quern::driver {

/// libcuda with all its entry points, after cuInit.
class Driver {
public:
  cuda::Api api;
  std::string path; // where it was opened from
  int version = 0;  // 13000: CUDA 13.0
  int deviceCount = 0;

  /// The process's driver. User errors: no driver on this machine, no device, driver older than CUDA 12.0,
  /// CUDA in use before a fork().
  static Expected<const Driver *> get();
  /// Opens a library anew; for get() and tests. `path` empty: the search.
  static Expected<std::unique_ptr<Driver>> open(const std::string &path);
  /// Only the library, its entry points and version: no cuInit, so no state in this process.
  static Expected<std::unique_ptr<Driver>> openUninitialized(const std::string &path);

  /// A failed call as an Error: "cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY (out of memory)". `call` is the
  /// symbol, `place` the device or kernel. Errors that a running kernel causes say that an earlier launch may
  /// be the origin.
  Error error(std::string_view call, cuda::Result result, std::string place) const;
  /// "CUDA_ERROR_INVALID_VALUE (invalid argument)".
  std::string describe(cuda::Result result) const;
};

/// True in the child of a process that had used CUDA: CUDA cannot be used in it.
bool forkedAfterCuda();
Error forkError();

/// The oldest CUDA whose driver compiles the generated PTX, which is of PTX ISA 8.3 (PTX ISA, release notes).
constexpr int generatedPtxNeeds = 12030;

/// "13.0" of 13000.
std::string versionText(int version);

/// Makes a context current on this thread for its life, and leaves the thread as it was: nothing is called
/// but a query when it is current already.
class ContextScope {
  const cuda::Api *api = nullptr; // set when a context was pushed
  cuda::Result result = cuda::success;
  std::string_view failed;

public:
  ContextScope(const Driver &driver, cuda::Context context);
  ContextScope(const ContextScope &) = delete;
  ContextScope &operator=(const ContextScope &) = delete;
  ~ContextScope();
  explicit operator bool() const { return result == cuda::success; }
  cuda::Result code() const { return result; }
  std::string_view call() const { return failed; } // the symbol that failed
};

/// Lets this thread load and allocate while any thread captures a graph: calls that are unsafe in a capture
/// of this thread would otherwise break it (cuThreadExchangeStreamCaptureMode).
class RelaxedCapture {
  const cuda::Api &api;
  cuda::CaptureMode before = cuda::CaptureMode::Relaxed;
  bool changed = false;

public:
  explicit RelaxedCapture(const Driver &driver);
  RelaxedCapture(const RelaxedCapture &) = delete;
  RelaxedCapture &operator=(const RelaxedCapture &) = delete;
  ~RelaxedCapture();
};

} // namespace quern::driver
