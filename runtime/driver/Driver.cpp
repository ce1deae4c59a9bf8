// Opens libcuda, finds its entry points, words its errors.
#include "runtime/driver/Driver.h"
#include "runtime/config/Knobs.h"
#include <atomic>
#include <cstdlib>
#include <dlfcn.h>
#include <fmt/format.h>
#include <mutex>
#include <pthread.h>
#include <vector>

namespace quern::driver {
namespace {

constexpr int oldestVersion = 12000; // cuLaunchKernelEx, cuTensorMapEncodeTiled

std::atomic<bool> forked{false};

Error noDriver(const std::string &tried) {
  Error error =
      Error::user("no CUDA driver on this machine (libcuda.so.1 cannot be opened); run with --target cpu or "
                  "sim, or on a machine with an NVIDIA GPU",
                  "cuda");
  error.detail = "tried:\n" + tried;
  return error;
}

Expected<void *> openLibrary(const std::string &wanted, std::string &path) {
  std::vector<std::string> places{wanted};
  if (wanted.empty()) {
    if (auto own = config::value(config::Knob::CudaLibrary))
      places = {*own};
    else
      places = {"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"};
  }
  std::string tried;
  for (const std::string &place : places) {
    if (void *handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      path = place;
      return handle;
    }
    tried += fmt::format("  {}\n", dlerror());
  }
  return noDriver(tried);
}

/// What cuInit may say, in words of what to do.
Error initError(const Driver &driver, cuda::Result result) {
  if (result == cuda::errorNoDevice) return Error::user("the CUDA driver finds no device", "cuda");
  Error error = driver.error("cuInit", result, "cuda");
  if (result == cuda::errorStubLibrary)
    error.detail =
        driver.path + " is the toolkit's stub for linking, not a driver; take it off LD_LIBRARY_PATH";
  if (result == cuda::errorSystemDriverMismatch)
    error.detail =
        "the driver's library and its kernel module have different versions; restart the machine or the "
        "container";
  return error;
}

bool isAsynchronous(cuda::Result result) {
  // Illegal address, launch timeout, misaligned address, trap, ...: reported by whatever is called next.
  return result == 214 || result == 220 || result == 226 || result == 700 || result == 702 ||
         (result >= 710 && result <= 719) || result == 721;
}

} // namespace

bool forkedAfterCuda() { return forked.load(std::memory_order_relaxed); }
Error forkError() {
  return Error::user(
      "CUDA was in use before this process was forked, and cannot be used in the child; start workers "
      "with 'spawn' or 'forkserver'",
      "cuda");
}

std::string versionText(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

std::string Driver::describe(cuda::Result result) const {
  const char *name = nullptr, *text = nullptr;
  if (!api.getErrorName || api.getErrorName(result, &name) != cuda::success || !name)
    return fmt::format("CUDA error {}", result);
  if (!api.getErrorString || api.getErrorString(result, &text) != cuda::success || !text) return name;
  return fmt::format("{} ({})", name, text);
}

Error Driver::error(std::string_view call, cuda::Result result, std::string place) const {
  Error error = Error::system(fmt::format("{} failed: {}", call, describe(result)), std::move(place));
  if (isAsynchronous(result))
    error.detail = "this may stem from an earlier launch; the process cannot use this device any more";
  if (result == cuda::errorInvalidHandle) // what the driver says to a stream of another context
    error.detail = "the stream may be of another device: all tensors and the stream must be on one";
  if (result == cuda::errorUnsupportedPtxVersion)
    error.detail = fmt::format(
        "this driver is for CUDA {}, and the PTX is newer: update the driver, or install ptxas with "
        "pip install 'nvidia-cuda-nvcc==13.0.*'",
        versionText(version));
  if (result == cuda::errorStreamCaptureUnsupported || result == cuda::errorStreamCaptureInvalidated ||
      result == cuda::errorStreamCaptureImplicit)
    error.detail = "a CUDA graph is being captured: run the same call once before the capture";
  return error;
}

Expected<std::unique_ptr<Driver>> Driver::openUninitialized(const std::string &path) {
  auto driver = std::make_unique<Driver>();
  auto handle = openLibrary(path, driver->path);
  if (!handle) return handle.takeError();
  std::string missing;
#define QUERN_LOAD(member, symbol, parameters)                                                               \
  driver->api.member = reinterpret_cast<decltype(driver->api.member)>(dlsym(*handle, #symbol));
#define QUERN_NEED(member, symbol, parameters)                                                               \
  QUERN_LOAD(member, symbol, parameters)                                                                     \
  if (!driver->api.member) missing += " " #symbol;
  QUERN_CUDA_API(QUERN_NEED)
  QUERN_CUDA_API_OPTIONAL(QUERN_LOAD)
  QUERN_CUDA_API_TIMING(QUERN_LOAD)
#undef QUERN_NEED
#undef QUERN_LOAD

  if (driver->api.driverGetVersion && driver->api.driverGetVersion(&driver->version) == cuda::success &&
      driver->version < oldestVersion)
    return Error::user(fmt::format("the driver is for CUDA {}; Quern needs 12.0 (driver 525) or newer",
                                   versionText(driver->version)),
                       "cuda");
  if (!missing.empty())
    return Error::system("not a CUDA driver of 12.0 or newer; it lacks" + missing, driver->path);
  return driver;
}

Expected<std::unique_ptr<Driver>> Driver::open(const std::string &path) {
  auto opened = openUninitialized(path);
  if (!opened) return opened.takeError();
  Driver &driver = **opened;
  if (auto result = driver.api.init(0)) return initError(driver, result);
  if (auto result = driver.api.deviceGetCount(&driver.deviceCount))
    return driver.error("cuDeviceGetCount", result, "cuda");
  if (driver.deviceCount == 0) return initError(driver, cuda::errorNoDevice);

  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { forked.store(true); }); });
  return opened;
}

Expected<const Driver *> Driver::get() {
  static std::mutex mutex;
  static std::unique_ptr<Driver> driver; // a failure is not kept: the next call looks again
  if (forkedAfterCuda()) return forkError();
  std::lock_guard lock(mutex);
  if (!driver) {
    auto opened = open("");
    if (!opened) return opened.takeError();
    driver = std::move(*opened);
  }
  return driver.get();
}

ContextScope::ContextScope(const Driver &driver, cuda::Context context) {
  cuda::Context current = nullptr;
  failed = "cuCtxGetCurrent";
  result = driver.api.ctxGetCurrent(&current);
  if (result != cuda::success || current == context) return;
  failed = "cuCtxPushCurrent";
  result = driver.api.ctxPushCurrent(context);
  if (result == cuda::success) api = &driver.api;
}

ContextScope::~ContextScope() {
  cuda::Context ours = nullptr;
  // A failure to pop means that the driver is shutting down: there is no context left to restore.
  if (api) api->ctxPopCurrent(&ours);
}

RelaxedCapture::RelaxedCapture(const Driver &driver) : api(driver.api) {
  changed = api.threadExchangeStreamCaptureMode(&before) == cuda::success;
}
RelaxedCapture::~RelaxedCapture() {
  if (changed) api.threadExchangeStreamCaptureMode(&before);
}

} // namespace quern::driver
