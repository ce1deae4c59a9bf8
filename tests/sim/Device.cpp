// See Device.h.
#include "tests/sim/Device.h"
#include "codegen/sim/DeviceKernel.h"
#include <cstring>

namespace quern::simtest {

Expected<void *> Device::allocate(uint64_t bytes, gpu::Stream) {
  constexpr uint64_t alignment = 256;
  auto memory = std::make_unique<char[]>(bytes + alignment);
  std::memset(memory.get(), 0xff, bytes + alignment); // NaN, or an index far outside
  auto at = (reinterpret_cast<uintptr_t>(memory.get()) + alignment - 1) / alignment * alignment;
  auto *data = reinterpret_cast<void *>(at);
  allocations.emplace(data, std::move(memory));
  return data;
}

Status Device::upload(void *device, const void *host, uint64_t bytes, gpu::Stream) {
  if (bytes) std::memcpy(device, host, bytes);
  return {};
}

Status Device::download(void *host, const void *device, uint64_t bytes, gpu::Stream) {
  if (bytes) std::memcpy(host, device, bytes);
  return {};
}

Status Device::encodeTensorMap(void *map128, const void *base, DType dtype, int64_t columns, int64_t rows,
                               int64_t rowStride, int64_t boxRows) {
  int64_t width = byteSize(dtype);
  std::string reason = sim::encodeTensorMap(map128, int(width), base, uint64_t(columns), uint64_t(rows),
                                            uint64_t(rowStride * width), 64, uint32_t(boxRows), true);
  if (reason.empty()) return {};
  return Error::internal(reason, "tensor map");
}

Expected<gpu::LoadedKernel *> Device::load(const jit::GpuImage &image, std::string *) {
  Code &code = kernels.emplace_back(Code{image.entry, nullptr, true});
  return reinterpret_cast<gpu::LoadedKernel *>(&code);
}

Expected<gpu::LoadedKernel *> Device::loadDevice(const std::string &kernel, gpu::Stream) {
  auto found = sim::deviceKernel(kernel, sim::symbols());
  if (!found) return found.takeError();
  Code &code = kernels.emplace_back(Code{kernel, *found, false});
  return reinterpret_cast<gpu::LoadedKernel *>(&code);
}

Status Device::launch(gpu::LoadedKernel *kernel, const gpu::LaunchConfig &config, void **params,
                      const std::vector<gpu::Range> &ranges, gpu::Stream) {
  auto *code = reinterpret_cast<Code *>(kernel);
  sim::Launch launch;
  launch.entry = code->tested ? entry : code->entry, launch.params = params;
  launch.grid = config.grid, launch.block = config.block, launch.cluster = config.cluster;
  launch.smemBytes = config.smemBytes;
  for (const gpu::Range &r : ranges)
    if (r.bytes) launch.buffers.push_back({r.name, const_cast<void *>(r.data), r.bytes, r.writable});
  if (!code->tested) {
    sim::Options plain;
    plain.scheduler = sim::Scheduler::Fifo, plain.happensBefore = false; // has tests of its own
    sim::Report found = sim::launch(launch, plain);
    return found.ok() ? Status() : Status(Error::internal(found.str(), code->name));
  }
  launch.roles = {{"producer", 0, 4}, {"consumer", 4, config.block / 32}};
  report = sim::launch(launch, options);
  return {};
}

} // namespace quern::simtest
