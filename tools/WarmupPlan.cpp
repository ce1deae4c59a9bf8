// See Warmup.h.
#include "runtime/config/Knobs.h"
#include "runtime/launch/Images.h"
#include "tools/Warmup.h"
#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <thread>

namespace quern::tools {

/// The device whose records count; none when it cannot be asked.
static std::optional<tune::DeviceIdentity> identity(const std::string &target, int ordinal) {
  if (target == "cpu") return tune::cpuIdentity();
  if (target != "cuda") return std::nullopt;
  auto backend = gpu::cudaBackend(ordinal);
  return backend ? std::optional(tune::identityOf(**backend)) : std::nullopt;
}

Expected<std::vector<WarmupItem>> planWarmup(std::vector<Shape> shapes, const std::string &target,
                                             int ordinal) {
  auto device = identity(target, ordinal);
  std::vector<WarmupItem> items;
  std::map<std::string, size_t> byHash;
  for (Shape &shape : shapes) {
    shape.problem.target = target, shape.problem.ordinal = ordinal;
    auto request = tune::requestOf(shape.problem);
    if (!request) return request.takeError();
    // In the order of a launch: what the knob says, what tuning found, the default.
    if (auto forced = config::value(target == "cpu" ? config::Knob::CpuSchedule : config::Knob::GpuSchedule))
      request->schedule = *forced;
    else if (device)
      if (auto tuned = tune::tunedSchedule(*request, *device)) request->schedule = *tuned;
    WarmupItem item{shape, *request, imageKey(*request), "", ""};
    item.hash = item.key.hash();
    auto [found, isNew] = byHash.emplace(item.hash, items.size());
    if (isNew) items.push_back(std::move(item));
    WarmupItem &kept = items[found->second];
    std::string rows = isNew ? fmt::to_string(shape.rowsPerExpert)
                             : fmt::format("{}..{}", kept.shape.rowsPerExpert, shape.rowsPerExpert);
    kept.label = fmt::format("{} {}, rows {}{}", shape.kernel->name, shape.dimText(), rows,
                             shape.kernel->routing >= 0 ? " per expert" : "");
  }
  return items;
}

RankOrder rankOrder(const std::vector<std::string> &hashes, int rank, int world) {
  RankOrder out;
  std::vector<size_t> others;
  for (size_t i = 0; i < hashes.size(); ++i) {
    uint64_t digits = std::stoull(hashes[i].substr(0, 15), nullptr, 16);
    (digits % uint64_t(std::max(1, world)) == uint64_t(rank) ? out.order : others).push_back(i);
  }
  out.own = out.order.size();
  out.order.insert(out.order.end(), others.rbegin(), others.rend());
  return out;
}

void forEachOnThreads(size_t count, int threads, const std::function<bool()> &stop,
                      const std::function<void(size_t)> &work) {
  std::atomic<size_t> next{0};
  auto loop = [&] {
    while (!stop()) {
      size_t i = next.fetch_add(1);
      if (i >= count) return;
      work(i);
    }
  };
  std::vector<std::thread> pool;
  for (int i = 1; i < std::min<int>(threads, int(count)); ++i) pool.emplace_back(loop);
  loop();
  for (std::thread &thread : pool) thread.join();
}

} // namespace quern::tools
