// See CudaTimer.h.
#include "runtime/driver/CudaTimer.h"
#include "runtime/driver/Nvml.h"
#include <algorithm>
#include <optional>

namespace quern::driver {
namespace {

/// At least this much is written to flush: what benchmarks/gpu_timing.py writes.
constexpr uint64_t leastFlush = 256 << 20;

class CudaTimer final : public gpu::Timer {
  const Driver &driver;
  cuda::Context context;
  std::string place;
  cuda::Event from = nullptr, to = nullptr;
  cuda::DevicePointer scratch = 0;
  uint64_t scratchBytes = 0, l2Bytes = 0;
  std::optional<Nvml> nvml;

  Status check(std::string_view call, cuda::Result result) const {
    if (result == cuda::success) return {};
    return driver.error(call, result, place);
  }
  template <class Call> Status inContext(std::string_view name, Call call) {
    if (forkedAfterCuda()) return forkError();
    ContextScope scope(driver, context);
    if (!scope) return driver.error(scope.call(), scope.code(), place);
    return check(name, call());
  }

public:
  CudaTimer(const Driver &driver, cuda::Context context, std::string place)
      : driver(driver), context(context), place(std::move(place)) {}
  ~CudaTimer() override {
    if (forkedAfterCuda()) return;
    ContextScope scope(driver, context);
    if (!scope) return;
    if (from) driver.api.eventDestroy(from);
    if (to) driver.api.eventDestroy(to);
    if (scratch) driver.api.memFree(scratch);
  }

  Status open(cuda::Device device) {
    int l2 = 0;
    if (Status ok = check("cuDeviceGetAttribute",
                          driver.api.deviceGetAttribute(&l2, cuda::DeviceAttribute::L2CacheSize, device));
        !ok)
      return ok;
    l2Bytes = uint64_t(std::max(l2, 0));
    scratchBytes = std::max<uint64_t>(leastFlush, 2 * l2Bytes);
    for (cuda::Event *event : {&from, &to})
      if (Status ok = inContext("cuEventCreate", [&] { return driver.api.eventCreate(event, 0); }); !ok)
        return ok;
    char bus[32] = {};
    if (driver.api.deviceGetPCIBusId(bus, sizeof bus, device) == cuda::success) nvml.emplace(bus);
    return inContext("cuMemAlloc", [&] { return driver.api.memAlloc(&scratch, scratchBytes); });
  }

  Status start(gpu::Stream stream) override {
    return inContext("cuEventRecord", [&] { return driver.api.eventRecord(from, stream); });
  }
  Status stop(gpu::Stream stream) override {
    return inContext("cuEventRecord", [&] { return driver.api.eventRecord(to, stream); });
  }
  Expected<double> microseconds() override {
    if (Status ok = inContext("cuEventSynchronize", [&] { return driver.api.eventSynchronize(to); }); !ok)
      return ok.takeError();
    float ms = 0;
    if (Status ok =
            inContext("cuEventElapsedTime", [&] { return driver.api.eventElapsedTime(&ms, from, to); });
        !ok)
      return ok.takeError();
    return double(ms) * 1000;
  }
  Status flush(gpu::Stream stream) override {
    return inContext("cuMemsetD32Async", [&] {
      return driver.api.memsetD32Async(scratch, 0x5a5a5a5a, scratchBytes / 4, stream);
    });
  }
  uint64_t cacheBytes() const override { return l2Bytes; }
  uint64_t freeBytes() override {
    size_t left = 0, total = 0;
    Status ok = inContext("cuMemGetInfo", [&] { return driver.api.memGetInfo(&left, &total); });
    return ok ? left : 0;
  }
  Status copy(void *destination, const void *source, uint64_t bytes, gpu::Stream stream) override {
    return inContext("cuMemcpyDtoDAsync", [&] {
      return driver.api.memcpyDtoDAsync(reinterpret_cast<cuda::DevicePointer>(destination),
                                        reinterpret_cast<cuda::DevicePointer>(source), bytes, stream);
    });
  }
  gpu::Clocks clocks() override {
    GpuState state = nvml ? nvml->state() : GpuState{};
    return {state.smMHz, state.memoryMHz, state.slowed};
  }
};

} // namespace

Expected<std::unique_ptr<gpu::Timer>> makeCudaTimer(const Driver &driver, cuda::Context context,
                                                    cuda::Device device, const std::string &place) {
  std::string missing;
#define QUERN_NEED(member, symbol, parameters)                                                               \
  if (!driver.api.member) missing += " " #symbol;
  QUERN_CUDA_API_TIMING(QUERN_NEED)
#undef QUERN_NEED
  if (!missing.empty())
    return Error::system("this driver cannot be measured with; it lacks" + missing, place);
  auto timer = std::make_unique<CudaTimer>(driver, context, place);
  if (Status ok = timer->open(device); !ok) return ok.takeError();
  return std::unique_ptr<gpu::Timer>(std::move(timer));
}

} // namespace quern::driver
