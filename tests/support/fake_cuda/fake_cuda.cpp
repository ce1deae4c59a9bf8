// The entry points. Each begins with QUERN_CALL, which writes the call down and fails it when its turn has
// come.
#include "fake_cuda.h"
#include "fake_image.h"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>

using namespace quern::driver::cuda;
using namespace quern::test;

namespace {

thread_local std::vector<Context> stack;
thread_local CaptureMode mode = CaptureMode::Global;
int contexts[4]; // their addresses are the handles
// What handles point at is never freed, so that handles stay unique.
auto &modules = *new std::deque<FakeModule>;
auto &functions = *new std::deque<FakeFunction>;
auto &allPools = *new std::deque<FakePool>;

class Fake final : public FakeCuda {
  std::multimap<size_t, DevicePointer> spare; // freed while not recording, by size
  std::FILE *log = nullptr;

public:
  Fake() {
    if (const char *path = std::getenv("QUERN_FAKE_CUDA_LOG")) log = std::fopen(path, "a");
    reset();
  }
  void reset() override {
    std::lock_guard lock(mutex);
    for (auto &[pointer, bytes] : live) std::free(reinterpret_cast<void *>(pointer));
    for (auto &[bytes, pointer] : spare) std::free(reinterpret_cast<void *>(pointer));
    spare.clear(), live.clear(), livePools.clear();
    liveModules = 0;
    std::ranges::fill(retained, 0);
    forget();
  }
  void forget() override {
    std::lock_guard lock(mutex);
    version = 13000, devices = 1, major = 9, minor = 0;
    if (const char *text = std::getenv("QUERN_FAKE_CUDA_VERSION")) version = std::atoi(text);
    if (const char *text = std::getenv("QUERN_FAKE_CUDA_DEVICES")) devices = std::atoi(text);
    pools = clusters = errorTexts = true;
    smemPerBlock = 232448, staticSmem = 0;
    memory = 1 << 30;
    initResult = cubinResult = stickyError = success;
    const char *refused = std::getenv("QUERN_FAKE_CUDA_REFUSES");
    refusedKernel = refused ? refused : "";
    ptxLog.clear(), loadMs = 0;
    failAt = 0, failForever = false, failWith = errorOutOfMemory;
    recording = true, numCalls = 0;
    calls.clear(), launches.clear(), tensorMaps.clear(), captures.clear(), streamDevices.clear();
    allowed.clear(), forbidden.clear();
    misuse = false;
    stack.clear();
    mode = CaptureMode::Global;
  }
  Context contextOf(int device) override { return &contexts[device]; }
  std::vector<Context> &contextStack() override { return stack; }
  CaptureMode captureMode() override { return mode; }
  Result endCapture(Stream stream) override {
    std::lock_guard lock(mutex);
    auto found = captures.find(stream);
    if (found == captures.end()) return errorInvalidValue;
    auto status = found->second;
    captures.erase(found);
    return status == CaptureStatus::Active ? success : errorStreamCaptureInvalidated;
  }

  Result enter(const char *symbol) {
    ++numCalls;
    if (!recording) return success;
    if (log) std::fprintf(log, "%s\n", symbol), std::fflush(log);
    calls.push_back(symbol);
    if (!allowed.empty() && !allowed.contains(symbol)) return forbidden.push_back(symbol), errorNotSupported;
    int number = static_cast<int>(calls.size());
    return failAt && (number == failAt || (failForever && number > failAt)) ? failWith : success;
  }
  /// A line of the log beside the calls.
  void note(const char *text) {
    if (log) std::fprintf(log, "%s\n", text), std::fflush(log);
  }
  int currentDevice() const {
    return stack.empty() ? -1 : static_cast<int>(static_cast<int *>(stack.back()) - contexts);
  }
  /// A call that a capture in global mode forbids to every thread that did not exchange its mode.
  bool breaksCapture() {
    if (mode == CaptureMode::Relaxed || captures.empty()) return false;
    for (auto &[stream, status] : captures) status = CaptureStatus::Invalidated;
    return true;
  }
  bool capturing(Stream stream) const { return captures.contains(stream); }
  bool ofOtherDevice(Stream stream) const {
    auto found = streamDevices.find(stream);
    return found != streamDevices.end() && found->second != currentDevice();
  }
  Result take(DevicePointer *pointer, size_t bytes) {
    if (bytes == 0) return errorInvalidValue;
    uint64_t used = 0;
    for (auto &[p, size] : live) used += size;
    if (used + bytes > memory) return errorOutOfMemory;
    auto kept = spare.find(bytes);
    if (kept != spare.end()) {
      *pointer = kept->second;
      spare.erase(kept);
    } else {
      *pointer = reinterpret_cast<DevicePointer>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
    }
    live[*pointer] = bytes;
    return success;
  }
  Result give(DevicePointer pointer) {
    auto found = live.find(pointer);
    if (found == live.end()) return misuse = true, errorInvalidValue;
    if (recording)
      std::free(reinterpret_cast<void *>(pointer));
    else
      spare.emplace(found->second, pointer); // as a pool does: the host's allocator is not measured
    live.erase(found);
    return success;
  }
  bool owns(DevicePointer pointer, size_t bytes) const {
    auto after = live.upper_bound(pointer);
    if (after == live.begin()) return false;
    auto &[begin, size] = *std::prev(after);
    return pointer + bytes <= begin + size;
  }
};

Fake &fake() {
  static Fake &instance = *new Fake;
  return instance;
}

#define QUERN_CALL(symbol)                                                                                   \
  std::lock_guard lock(fake().mutex);                                                                        \
  if (Result failure = fake().enter(#symbol)) return failure
#define QUERN_NEEDS_CONTEXT                                                                                  \
  if (stack.empty()) return errorInvalidContext
#define QUERN_ON_STREAM(stream)                                                                              \
  if (fake().ofOtherDevice(stream)) return errorInvalidHandle;                                               \
  if (fake().stickyError) return fake().stickyError
#define QUERN_UNSAFE_IN_CAPTURE                                                                              \
  if (fake().breaksCapture()) return errorStreamCaptureUnsupported

void writeLog(unsigned count, JitOption *options, void **values, const std::string &log) {
  char *buffer = nullptr;
  size_t room = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (options[i] == JitOption::ErrorLogBuffer) buffer = static_cast<char *>(values[i]);
    if (options[i] == JitOption::ErrorLogBufferSizeBytes) room = reinterpret_cast<size_t>(values[i]);
  }
  if (buffer && room) std::memcpy(buffer, log.c_str(), std::min(room, log.size() + 1));
}

} // namespace

extern "C" {

FakeCuda *fakeCuda() { return &fake(); }

Result cuInit(unsigned) {
  QUERN_CALL(cuInit);
  return fake().initResult;
}
Result cuDriverGetVersion(int *version) {
  QUERN_CALL(cuDriverGetVersion);
  return *version = fake().version, success;
}
Result cuDeviceGetCount(int *count) {
  QUERN_CALL(cuDeviceGetCount);
  return *count = fake().devices, success;
}
Result cuDeviceGet(Device *device, int ordinal) {
  QUERN_CALL(cuDeviceGet);
  if (ordinal < 0 || ordinal >= fake().devices) return errorInvalidDevice;
  return *device = ordinal, success;
}
Result cuDeviceGetName(char *name, int length, Device) {
  QUERN_CALL(cuDeviceGetName);
  std::strncpy(name, "Fake H100", length);
  return success;
}
Result cuDeviceGetAttribute(int *value, DeviceAttribute attribute, Device) {
  QUERN_CALL(cuDeviceGetAttribute);
  switch (attribute) {
  case DeviceAttribute::MultiprocessorCount: return *value = 132, success;
  case DeviceAttribute::L2CacheSize: return *value = 1 << 20, success;
  case DeviceAttribute::ComputeCapabilityMajor: return *value = fake().major, success;
  case DeviceAttribute::ComputeCapabilityMinor: return *value = fake().minor, success;
  case DeviceAttribute::MaxSharedMemoryPerBlockOptin: return *value = fake().smemPerBlock, success;
  case DeviceAttribute::MemoryPoolsSupported: return *value = fake().pools, success;
  case DeviceAttribute::ClusterLaunch: return *value = fake().clusters, success;
  case DeviceAttribute::TensorMapAccessSupported: return *value = 1, success;
  }
  return errorInvalidValue;
}
Result cuDevicePrimaryCtxRetain(Context *context, Device device) {
  QUERN_CALL(cuDevicePrimaryCtxRetain);
  ++fake().retained[device];
  return *context = &contexts[device], success;
}
Result cuDevicePrimaryCtxRelease_v2(Device device) {
  QUERN_CALL(cuDevicePrimaryCtxRelease);
  if (--fake().retained[device] < 0) fake().misuse = true;
  return success;
}
Result cuCtxGetCurrent(Context *context) {
  QUERN_CALL(cuCtxGetCurrent);
  return *context = stack.empty() ? nullptr : stack.back(), success;
}
Result cuCtxPushCurrent_v2(Context context) {
  QUERN_CALL(cuCtxPushCurrent);
  return stack.push_back(context), success;
}
Result cuCtxPopCurrent_v2(Context *context) {
  QUERN_CALL(cuCtxPopCurrent);
  if (stack.empty()) return fake().misuse = true, errorInvalidContext;
  *context = stack.back();
  return stack.pop_back(), success;
}
Result cuThreadExchangeStreamCaptureMode(CaptureMode *other) {
  QUERN_CALL(cuThreadExchangeStreamCaptureMode);
  return std::swap(mode, *other), success;
}

Result cuModuleLoadDataEx(Module *module, const void *image, unsigned count, JitOption *options,
                          void **values) {
  std::this_thread::sleep_for(std::chrono::milliseconds(fake().loadMs)); // others come meanwhile
  QUERN_CALL(cuModuleLoadDataEx);
  QUERN_NEEDS_CONTEXT;
  QUERN_UNSAFE_IN_CAPTURE;
  auto *bytes = static_cast<const char *>(image);
  bool ptx = !isCubin(bytes);
  if (!ptx && fake().cubinResult) return fake().cubinResult;
  if (!ptx && isDamaged(bytes)) return errorInvalidImage;
  if (!ptx && !fake().refusedKernel.empty() &&
      std::string_view(bytes, elfSize(bytes)).find(".text." + fake().refusedKernel + '\0') !=
          std::string_view::npos)
    return errorNoBinaryForGpu;
  if (ptx && !std::strstr(bytes, ".version")) return errorInvalidImage;
  if (ptx && !fake().ptxLog.empty()) return writeLog(count, options, values, fake().ptxLog), errorInvalidPtx;
  if (ptx) fake().note("PTX");
  std::string copy = ptx ? bytes : std::string(bytes, elfSize(bytes));
  ++fake().liveModules;
  return *module = &modules.emplace_back(FakeModule{fake().currentDevice(), ptx, std::move(copy)}), success;
}
Result cuModuleUnload(Module module) {
  QUERN_CALL(cuModuleUnload);
  QUERN_UNSAFE_IN_CAPTURE;
  --fake().liveModules;
  return success;
}
Result cuModuleGetFunction(Function *function, Module module, const char *name) {
  QUERN_CALL(cuModuleGetFunction);
  auto *in = static_cast<FakeModule *>(module);
  // A name in the symbol table ends in a null byte, in PTX in a parenthesis.
  std::string symbol = in->fromPtx ? std::string(name) + "(" : std::string(name) + '\0';
  if (in->bytes.find(symbol) == std::string::npos) return errorNotFound;
  return *function = &functions.emplace_back(FakeFunction{in, name}), success;
}
Result cuFuncLoad(Function handle) {
  QUERN_CALL(cuFuncLoad);
  QUERN_UNSAFE_IN_CAPTURE;
  return static_cast<FakeFunction *>(handle)->loaded = true, success;
}
Result cuFuncGetAttribute(int *value, FunctionAttribute attribute, Function handle) {
  QUERN_CALL(cuFuncGetAttribute);
  QUERN_UNSAFE_IN_CAPTURE;
  static_cast<FakeFunction *>(handle)->loaded = true;
  return *value = attribute == FunctionAttribute::SharedSizeBytes ? fake().staticSmem : 0, success;
}
Result cuFuncSetAttribute(Function handle, FunctionAttribute attribute, int value) {
  QUERN_CALL(cuFuncSetAttribute);
  auto *function = static_cast<FakeFunction *>(handle);
  if (attribute == FunctionAttribute::MaxDynamicSharedSizeBytes) {
    if (value + fake().staticSmem > fake().smemPerBlock) return errorInvalidValue;
    return function->dynamicSmem = value, success;
  }
  if (attribute != FunctionAttribute::NonPortableClusterSizeAllowed) return errorInvalidValue;
  return function->nonPortableCluster = value, success;
}

Result cuLaunchKernelEx(const LaunchConfig *config, Function handle, void **parameters, void **extra) {
  QUERN_CALL(cuLaunchKernelEx);
  QUERN_NEEDS_CONTEXT;
  auto *function = static_cast<FakeFunction *>(handle);
  if (std::ranges::none_of(functions, [&](auto &known) { return &known == function; }))
    return fake().misuse = true, errorInvalidHandle;
  if (function->module->device != fake().currentDevice()) return errorInvalidHandle;
  QUERN_ON_STREAM(config->stream);
  if (!function->loaded) { // lazy loading
    QUERN_UNSAFE_IN_CAPTURE;
    function->loaded = true;
  }
  FakeLaunch launch{function, *config, 1, false, parameters};
  for (unsigned i = 0; i < config->numAttributes; ++i) {
    auto &attribute = config->attributes[i];
    if (attribute.id == LaunchAttribute::ClusterDimension)
      launch.cluster =
          attribute.value.clusterDim.x * attribute.value.clusterDim.y * attribute.value.clusterDim.z;
    else if (attribute.id == LaunchAttribute::ProgrammaticStreamSerialization)
      launch.dependent = attribute.value.programmaticStreamSerializationAllowed;
    else
      return errorInvalidValue;
  }
  unsigned threads = config->blockDimX * config->blockDimY * config->blockDimZ;
  if (!config->gridDimX || !config->gridDimY || !config->gridDimZ || !threads || threads > 1024 || extra ||
      config->gridDimX % launch.cluster || launch.cluster > (function->nonPortableCluster ? 16 : 8) ||
      config->sharedMemBytes > static_cast<unsigned>(std::max(49152, function->dynamicSmem)))
    return errorInvalidValue;
  if (fake().recording) fake().launches.push_back(launch);
  return success;
}

Result cuMemAlloc_v2(DevicePointer *pointer, size_t bytes) {
  QUERN_CALL(cuMemAlloc);
  QUERN_NEEDS_CONTEXT;
  QUERN_UNSAFE_IN_CAPTURE;
  return fake().take(pointer, bytes);
}
Result cuMemFree_v2(DevicePointer pointer) {
  QUERN_CALL(cuMemFree);
  QUERN_NEEDS_CONTEXT;
  QUERN_UNSAFE_IN_CAPTURE;
  return fake().give(pointer);
}
Result cuMemAllocFromPoolAsync(DevicePointer *pointer, size_t bytes, MemoryPool pool, Stream stream) {
  QUERN_CALL(cuMemAllocFromPoolAsync);
  QUERN_NEEDS_CONTEXT;
  if (fake().ofOtherDevice(stream)) return errorInvalidHandle;
  if (std::ranges::find(fake().livePools, static_cast<FakePool *>(pool)) == fake().livePools.end())
    return fake().misuse = true, errorInvalidValue;
  return fake().take(pointer, bytes);
}
Result cuMemFreeAsync(DevicePointer pointer, Stream) {
  QUERN_CALL(cuMemFreeAsync);
  QUERN_NEEDS_CONTEXT;
  return fake().give(pointer);
}
Result cuMemPoolCreate(MemoryPool *pool, const MemoryPoolProperties *properties) {
  QUERN_CALL(cuMemPoolCreate);
  QUERN_UNSAFE_IN_CAPTURE;
  if (properties->allocType != 1 || properties->locationType != 1 || properties->locationId >= fake().devices)
    return errorInvalidValue;
  fake().livePools.push_back(&allPools.emplace_back(FakePool{properties->locationId}));
  return *pool = fake().livePools.back(), success;
}
Result cuMemPoolDestroy(MemoryPool pool) {
  QUERN_CALL(cuMemPoolDestroy);
  if (!std::erase(fake().livePools, static_cast<FakePool *>(pool))) fake().misuse = true;
  return success;
}
Result cuMemPoolSetAttribute(MemoryPool pool, MemoryPoolAttribute attribute, void *value) {
  QUERN_CALL(cuMemPoolSetAttribute);
  if (attribute != MemoryPoolAttribute::ReleaseThreshold) return errorInvalidValue;
  return static_cast<FakePool *>(pool)->releaseThreshold = *static_cast<uint64_t *>(value), success;
}

Result cuMemcpyHtoDAsync_v2(DevicePointer to, const void *from, size_t bytes, Stream stream) {
  QUERN_CALL(cuMemcpyHtoDAsync);
  QUERN_NEEDS_CONTEXT;
  QUERN_ON_STREAM(stream);
  if (fake().capturing(stream)) QUERN_UNSAFE_IN_CAPTURE;
  if (!fake().owns(to, bytes)) return errorInvalidValue;
  return std::memcpy(reinterpret_cast<void *>(to), from, bytes), success;
}
Result cuMemcpyDtoHAsync_v2(void *to, DevicePointer from, size_t bytes, Stream stream) {
  QUERN_CALL(cuMemcpyDtoHAsync);
  QUERN_NEEDS_CONTEXT;
  QUERN_ON_STREAM(stream);
  if (fake().capturing(stream)) QUERN_UNSAFE_IN_CAPTURE;
  if (!fake().owns(from, bytes)) return errorInvalidValue;
  return std::memcpy(to, reinterpret_cast<const void *>(from), bytes), success;
}
Result cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, Stream stream) {
  QUERN_CALL(cuMemcpyDtoDAsync);
  QUERN_NEEDS_CONTEXT;
  if (!fake().owns(to, bytes) || !fake().owns(from, bytes)) return errorInvalidValue;
  return std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes), success;
}
Result cuMemGetInfo_v2(size_t *left, size_t *total) {
  QUERN_CALL(cuMemGetInfo);
  QUERN_NEEDS_CONTEXT;
  uint64_t used = 0;
  for (auto &[pointer, bytes] : fake().live) used += bytes;
  return *left = fake().memory - used, *total = fake().memory, success;
}
Result cuMemsetD32Async(DevicePointer to, unsigned value, size_t words, Stream stream) {
  QUERN_CALL(cuMemsetD32Async);
  QUERN_NEEDS_CONTEXT;
  if (!fake().owns(to, words * 4)) return errorInvalidValue;
  return std::fill_n(reinterpret_cast<unsigned *>(to), words, value), success;
}
// An event is the host's time when it was recorded: a launch takes no time here.
Result cuEventCreate(Event *event, unsigned flags) {
  QUERN_CALL(cuEventCreate);
  QUERN_NEEDS_CONTEXT;
  if (flags) return errorInvalidValue; // with timing
  return *event = new std::chrono::steady_clock::time_point, success;
}
Result cuEventDestroy_v2(Event event) {
  QUERN_CALL(cuEventDestroy);
  return delete static_cast<std::chrono::steady_clock::time_point *>(event), success;
}
Result cuEventRecord(Event event, Stream stream) {
  QUERN_CALL(cuEventRecord);
  QUERN_NEEDS_CONTEXT;
  return *static_cast<std::chrono::steady_clock::time_point *>(event) = std::chrono::steady_clock::now(),
                                                            success;
}
Result cuEventSynchronize(Event event) {
  QUERN_CALL(cuEventSynchronize);
  return success;
}
Result cuEventElapsedTime(float *milliseconds, Event from, Event to) {
  QUERN_CALL(cuEventElapsedTime);
  auto at = [](Event event) { return *static_cast<std::chrono::steady_clock::time_point *>(event); };
  return *milliseconds = std::chrono::duration<float, std::milli>(at(to) - at(from)).count(), success;
}
Result cuDeviceGetPCIBusId(char *text, int length, Device device) {
  QUERN_CALL(cuDeviceGetPCIBusId);
  if (device < 0 || device >= fake().devices || length < 13) return errorInvalidValue;
  return std::memcpy(text, "0000:00:00.0", 13), success;
}
Result cuStreamSynchronize(Stream stream) {
  QUERN_CALL(cuStreamSynchronize);
  QUERN_NEEDS_CONTEXT;
  QUERN_ON_STREAM(stream);
  if (fake().capturing(stream))
    return fake().captures[stream] = CaptureStatus::Invalidated, errorStreamCaptureUnsupported;
  return success;
}
Result cuStreamIsCapturing(Stream stream, CaptureStatus *status) {
  QUERN_CALL(cuStreamIsCapturing);
  auto found = fake().captures.find(stream);
  if (found == fake().captures.end() && !stream && !fake().captures.empty())
    return errorStreamCaptureImplicit;
  return *status = found == fake().captures.end() ? CaptureStatus::None : found->second, success;
}

Result cuTensorMapEncodeTiled(TensorMap *map, TensorType type, uint32_t rank, void *base,
                              const uint64_t *dims, const uint64_t *byteStrides, const uint32_t *box,
                              const uint32_t *elementStrides, TensorInterleave interleave,
                              TensorSwizzle swizzle, TensorPromotion promotion, TensorFill fill) {
  QUERN_CALL(cuTensorMapEncodeTiled);
  if (reinterpret_cast<uintptr_t>(map) % 64 || reinterpret_cast<uintptr_t>(base) % 16)
    return errorInvalidValue;
  for (uint32_t i = 0; i < rank; ++i)
    if (!dims[i] || dims[i] > 1ull << 32 || !box[i] || box[i] > 256 || !elementStrides[i] ||
        (i + 1 < rank && (byteStrides[i] % 16 || byteStrides[i] >= 1ull << 40)))
      return errorInvalidValue;
  std::memset(map, 0x5a, sizeof *map);
  if (!fake().recording) return success;
  fake().tensorMaps.push_back({type,
                               rank,
                               base,
                               {dims, dims + rank},
                               {byteStrides, byteStrides + rank - 1},
                               {box, box + rank},
                               {elementStrides, elementStrides + rank},
                               interleave,
                               swizzle,
                               promotion});
  return success;
}

} // extern "C"
