// The device interface on the CUDA driver. A launch calls the driver twice: is our context current, launch.
// Nothing here waits for the device but synchronize() (and copies to and from pageable memory, as the driver
// defines them).
#include "runtime/driver/CudaBackend.h"
#include "runtime/driver/CudaKernels.h"
#include "runtime/driver/CudaTimer.h"
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <mutex>
#include <optional>

namespace quern::driver {
namespace {

/// Memory that the pool keeps for the next call instead of giving it back to the driver at each
/// synchronisation.
constexpr uint64_t poolKeeps = 1ull << 30;

class CudaBackend final : public gpu::Backend {
  const Driver &driver;
  DeviceFacts device;
  cuda::MemoryPool pool = nullptr;
  CudaKernels kernels;
  // A failure of release(), which cannot return it: given by the next call.
  std::atomic<bool> hasLate{false};
  std::mutex lateMutex;
  std::optional<Error> late;

public:
  CudaBackend(const Driver &driver, DeviceFacts facts, cuda::MemoryPool pool)
      : driver(driver), device(std::move(facts)), pool(pool), kernels(driver, device) {}

  std::string name() const override { return fmt::format("{} ({})", device.name, device.arch); }
  std::string arch() const override { return device.arch; }
  int multiprocessors() const override { return device.multiprocessors; }

  Expected<void *> allocate(uint64_t bytes, gpu::Stream stream) override {
    ContextScope scope(driver, device.context);
    if (Status ok = usable(scope); !ok) return ok.takeError();
    bytes = std::max<uint64_t>(bytes, 1); // the driver refuses 0
    cuda::DevicePointer memory = 0;
    std::string_view call = "cuMemAllocFromPoolAsync";
    cuda::Result result;
    if (pool) {
      result = driver.api.memAllocFromPoolAsync(&memory, bytes, pool, stream);
    } else {
      if (Status ok = notCapturing(stream, "memory cannot be allocated (this device has no memory pools)");
          !ok)
        return ok.takeError();
      call = "cuMemAlloc";
      RelaxedCapture relaxed(driver); // another thread may capture
      result = driver.api.memAlloc(&memory, bytes);
    }
    if (result == cuda::success) return reinterpret_cast<void *>(memory);
    Error error = driver.error(call, result, device.place);
    if (error.detail.empty()) error.detail = fmt::format("{} bytes were asked for", bytes);
    return error;
  }

  void release(void *memory, gpu::Stream stream) override {
    if (!memory || forkedAfterCuda()) return;
    auto address = reinterpret_cast<cuda::DevicePointer>(memory);
    ContextScope scope(driver, device.context);
    cuda::Result result = scope.code();
    std::string_view call = scope.call();
    if (scope) {
      call = pool ? "cuMemFreeAsync" : "cuMemFree";
      result = pool ? driver.api.memFreeAsync(address, stream) : freeNow(address);
    }
    if (result == cuda::success) return;
    std::lock_guard lock(lateMutex);
    if (!late) late = driver.error(call, result, device.place);
    hasLate = true;
  }

  Status upload(void *to, const void *host, uint64_t bytes, gpu::Stream stream) override {
    ContextScope scope(driver, device.context);
    if (Status ok = usable(scope); !ok || !bytes) return ok;
    if (Status ok = notCapturing(stream, "host memory cannot be copied"); !ok) return ok;
    return check("cuMemcpyHtoDAsync",
                 driver.api.memcpyHtoDAsync(reinterpret_cast<cuda::DevicePointer>(to), host, bytes, stream));
  }

  Status download(void *host, const void *from, uint64_t bytes, gpu::Stream stream) override {
    ContextScope scope(driver, device.context);
    if (Status ok = usable(scope); !ok || !bytes) return ok;
    if (Status ok = notCapturing(stream, "device memory cannot be copied to the host"); !ok) return ok;
    return check("cuMemcpyDtoHAsync", driver.api.memcpyDtoHAsync(
                                          host, reinterpret_cast<cuda::DevicePointer>(from), bytes, stream));
  }

  Status synchronize(gpu::Stream stream) override {
    ContextScope scope(driver, device.context);
    if (Status ok = usable(scope); !ok) return ok;
    if (Status ok = notCapturing(stream, "the device cannot be waited for"); !ok) return ok;
    return check("cuStreamSynchronize", driver.api.streamSynchronize(stream));
  }

  Status encodeTensorMap(void *map128, const void *base, DType dtype, int64_t columns, int64_t rows,
                         int64_t rowStride, int64_t boxRows) override;

  Status mayLoad(const std::string &kernel, gpu::Stream stream) override {
    ContextScope scope(driver, device.context);
    if (Status ok = usable(scope); !ok) return ok;
    auto capturing = isCapturing(stream);
    if (!capturing) return capturing.takeError();
    if (!*capturing) return {};
    return Error::user(
        "this kernel is not ready for this call, and a CUDA graph is being captured; warm up before "
        "the capture: make the same call once outside it",
        fmt::format("kernel '{}' on {}", kernel, device.place));
  }
  Expected<gpu::LoadedKernel *> load(const jit::GpuImage &image, std::string *refusal) override {
    if (forkedAfterCuda()) return forkError();
    auto kernel = kernels.load(image, refusal);
    if (!kernel) return kernel.takeError();
    return reinterpret_cast<gpu::LoadedKernel *>(*kernel);
  }
  Expected<gpu::LoadedKernel *> loadDevice(const std::string &name, gpu::Stream stream) override {
    if (forkedAfterCuda()) return forkError();
    if (auto *hit = kernels.find(name)) return reinterpret_cast<gpu::LoadedKernel *>(hit);
    if (Status ok = mayLoad(name, stream); !ok) return ok.takeError();
    auto kernel = kernels.loadDevice(name);
    if (!kernel) return kernel.takeError();
    return reinterpret_cast<gpu::LoadedKernel *>(*kernel);
  }

  Status launch(gpu::LoadedKernel *loaded, const gpu::LaunchConfig &config, void **params,
                const std::vector<gpu::Range> &ranges, gpu::Stream stream) override;

  Expected<std::unique_ptr<gpu::Timer>> timer() override {
    cuda::Device handle = 0;
    if (auto result = driver.api.deviceGet(&handle, device.ordinal))
      return driver.error("cuDeviceGet", result, device.place);
    return makeCudaTimer(driver, device.context, handle, device.place);
  }

private:
  cuda::Result freeNow(cuda::DevicePointer memory) {
    RelaxedCapture relaxed(driver); // another thread may capture
    return driver.api.memFree(memory);
  }
  Status check(std::string_view call, cuda::Result result) const {
    if (result == cuda::success) return {};
    return driver.error(call, result, device.place);
  }
  /// This is no forked child, nothing failed in a release, and the context is current.
  Status usable(const ContextScope &scope) {
    if (forkedAfterCuda()) return forkError();
    if (hasLate.load(std::memory_order_relaxed)) {
      std::lock_guard lock(lateMutex);
      hasLate = false;
      if (late) return *std::exchange(late, std::nullopt);
    }
    if (!scope) return driver.error(scope.call(), scope.code(), device.place);
    return {};
  }
  /// Also when the stream is the legacy one and another one is being captured: it would take part.
  Expected<bool> isCapturing(gpu::Stream stream) {
    cuda::CaptureStatus status = cuda::CaptureStatus::None;
    auto result = driver.api.streamIsCapturing(stream, &status);
    if (result == cuda::errorStreamCaptureImplicit) return true;
    if (result != cuda::success) return driver.error("cuStreamIsCapturing", result, device.place);
    return status != cuda::CaptureStatus::None;
  }
  /// Asked before calls that would break the capture of a graph, so that the capture survives.
  Status notCapturing(gpu::Stream stream, std::string_view what) {
    auto capturing = isCapturing(stream);
    if (!capturing) return capturing.takeError();
    if (!*capturing) return {};
    return Error::user(
        fmt::format("{} while a CUDA graph is being captured; make this call once before the capture", what),
        device.place);
  }
};

Status CudaBackend::encodeTensorMap(void *map128, const void *base, DType dtype, int64_t columns,
                                    int64_t rows, int64_t rowStride, int64_t boxRows) {
  ContextScope scope(driver, device.context);
  if (Status ok = usable(scope); !ok) return ok;
  std::string place = fmt::format("tensor map of [{}, {}] on {}", rows, columns, device.place);
  if (dtype != DType::BF16 && dtype != DType::F16)
    return Error::internal(fmt::format("dtype {}, expected bf16 or f16", quern::name(dtype)), place);
  // cuTensorMapEncodeTiled says CUDA_ERROR_INVALID_VALUE to all of these, and no more.
  if (reinterpret_cast<uintptr_t>(base) % 16 || rowStride % 8)
    return Error::internal(
        fmt::format("base {} and row stride {} must be multiples of 16 bytes", base, rowStride * 2), place);
  if (columns < 1 || rows < 1 || rows > 1ll << 32 || columns > 1ll << 32 || rowStride < columns ||
      rowStride >= 1ll << 39 || boxRows < 1 || boxRows > 256)
    return Error::internal(
        fmt::format(
            "rows and columns must be 1..2^32, the row stride {} in columns..2^39, box rows {} in 1..256",
            rowStride, boxRows),
        place);
  cuda::TensorMap map;
  const std::array<uint64_t, 2> dims{static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)};
  const std::array<uint64_t, 1> byteStrides{static_cast<uint64_t>(rowStride) * 2};
  const std::array<uint32_t, 2> box{64, static_cast<uint32_t>(boxRows)}, elementStrides{1, 1};
  auto result = driver.api.tensorMapEncodeTiled(
      &map, dtype == DType::BF16 ? cuda::TensorType::BFloat16 : cuda::TensorType::Float16, 2,
      const_cast<void *>(base), dims.data(), byteStrides.data(), box.data(), elementStrides.data(),
      cuda::TensorInterleave::None, cuda::TensorSwizzle::Bytes128, cuda::TensorPromotion::L2Bytes256,
      cuda::TensorFill::Zero);
  if (result) return driver.error("cuTensorMapEncodeTiled", result, place);
  std::memcpy(map128, &map, sizeof map);
  return {};
}

Status CudaBackend::launch(gpu::LoadedKernel *loaded, const gpu::LaunchConfig &config, void **params,
                           const std::vector<gpu::Range> &, gpu::Stream stream) {
  if (config.grid == 0) return {}; // no rows: nothing to do, and the driver refuses it
  auto &kernel = *reinterpret_cast<CudaKernel *>(loaded);
  auto place = [&] { return fmt::format("kernel '{}' on {}", kernel.name, device.place); };
  if (config.smemBytes > kernel.dynamicSmem)
    return Error::internal(fmt::format("{} bytes of shared memory asked for, the kernel was loaded with {}",
                                       config.smemBytes, kernel.dynamicSmem),
                           place());
  if (config.cluster == 0 || config.grid % config.cluster)
    return Error::internal(
        fmt::format("a grid of {} is not whole clusters of {}", config.grid, config.cluster), place());

  ContextScope scope(driver, device.context);
  if (Status ok = usable(scope); !ok) return ok;
  cuda::LaunchAttribute attributes[2];
  cuda::LaunchConfig launch;
  launch.gridDimX = config.grid;
  launch.blockDimX = config.block;
  launch.sharedMemBytes = static_cast<unsigned>(config.smemBytes);
  launch.stream = stream;
  launch.attributes = attributes;
  if (config.cluster > 1) {
    auto &attribute = attributes[launch.numAttributes++];
    attribute.id = cuda::LaunchAttribute::ClusterDimension;
    attribute.value.clusterDim = {config.cluster, 1, 1};
  }
  if (config.dependent) {
    auto &attribute = attributes[launch.numAttributes++];
    attribute.id = cuda::LaunchAttribute::ProgrammaticStreamSerialization;
    attribute.value.programmaticStreamSerializationAllowed = 1;
  }
  auto result = driver.api.launchKernelEx(&launch, kernel.function, params, nullptr);
  if (result == cuda::success) return {};
  Error error = driver.error("cuLaunchKernelEx", result, place());
  error.detail += fmt::format("{}grid {}, {} threads, cluster {}, {} bytes of shared memory",
                              error.detail.empty() ? "" : "\n", config.grid, config.block, config.cluster,
                              config.smemBytes);
  return error;
}

/// "sm_90a" for 9.0: the architecture with the features of that one chip family, where there is such a one.
std::string archName(int major, int minor) {
  return fmt::format("sm_{}{}{}", major, minor, major >= 9 ? "a" : "");
}

/// A pool of our own, so that nobody else's settings change; null where the device has none.
Expected<cuda::MemoryPool> makePool(const Driver &driver, const DeviceFacts &facts, cuda::Device device) {
  cuda::MemoryPool pool = nullptr;
  if (!facts.pools) return pool;
  ContextScope scope(driver, facts.context);
  if (!scope) return driver.error(scope.call(), scope.code(), facts.place);
  RelaxedCapture relaxed(driver);
  cuda::MemoryPoolProperties properties;
  properties.locationId = device;
  auto created = driver.api.memPoolCreate(&pool, &properties);
  if (created == cuda::errorNotSupported) return cuda::MemoryPool(); // some virtual GPUs say they have pools
  if (created) return driver.error("cuMemPoolCreate", created, facts.place);
  uint64_t keeps = poolKeeps;
  if (auto result =
          driver.api.memPoolSetAttribute(pool, cuda::MemoryPoolAttribute::ReleaseThreshold, &keeps)) {
    driver.api.memPoolDestroy(pool);
    return driver.error("cuMemPoolSetAttribute", result, facts.place);
  }
  return pool;
}

} // namespace

Expected<std::unique_ptr<gpu::Backend>> makeCudaBackend(const Driver &driver, int ordinal) {
  const cuda::Api &api = driver.api;
  DeviceFacts facts;
  facts.ordinal = ordinal;
  facts.place = fmt::format("cuda:{}", ordinal);
  if (ordinal < 0 || ordinal >= driver.deviceCount)
    return Error::user(fmt::format("there is no such device; this machine has {}", driver.deviceCount),
                       facts.place);
  cuda::Device device = 0;
  if (auto result = api.deviceGet(&device, ordinal)) return driver.error("cuDeviceGet", result, facts.place);
  char name[256] = {};
  if (auto result = api.deviceGetName(name, sizeof name - 1, device))
    return driver.error("cuDeviceGetName", result, facts.place);
  facts.name = name;
  cuda::Result failed = cuda::success;
  auto attribute = [&](cuda::DeviceAttribute which) {
    int value = 0;
    if (auto result = api.deviceGetAttribute(&value, which, device); result && !failed) failed = result;
    return value;
  };
  using enum cuda::DeviceAttribute;
  int major = attribute(ComputeCapabilityMajor), minor = attribute(ComputeCapabilityMinor);
  facts.arch = archName(major, minor);
  facts.multiprocessors = attribute(MultiprocessorCount);
  facts.smemPerBlock = attribute(MaxSharedMemoryPerBlockOptin);
  facts.pools = attribute(MemoryPoolsSupported);
  facts.clusters = attribute(ClusterLaunch);
  facts.tensorMaps = attribute(TensorMapAccessSupported);
  if (failed) return driver.error("cuDeviceGetAttribute", failed, facts.place);
  // The primary context is PyTorch's too. It is kept for the life of the process.
  if (auto result = api.devicePrimaryCtxRetain(&facts.context, device))
    return driver.error("cuDevicePrimaryCtxRetain", result, facts.place);
  auto pool = makePool(driver, facts, device);
  if (!pool) {
    api.devicePrimaryCtxRelease(device);
    return pool.takeError();
  }
  return std::unique_ptr<gpu::Backend>(std::make_unique<CudaBackend>(driver, std::move(facts), *pool));
}

} // namespace quern::driver

namespace quern::gpu {

Expected<Backend *> cudaBackend(int ordinal) {
  static std::mutex mutex;
  // Never destroyed: other threads may still launch while the process ends.
  static auto &backends = *new std::map<int, std::unique_ptr<Backend>>;
  auto driver = driver::Driver::get();
  if (!driver) return driver.takeError();
  std::lock_guard lock(mutex);
  auto &backend = backends[ordinal];
  if (!backend) {
    auto made = driver::makeCudaBackend(**driver, ordinal);
    if (!made) return made.takeError();
    backend = std::move(*made);
  }
  return backend.get();
}

} // namespace quern::gpu
