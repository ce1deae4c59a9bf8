// How many compilations may run at once on this machine, over all of its processes: eight ranks that compile
// with all their threads would otherwise meet the memory limit together.
#pragma once
#include "runtime/cache/Locks.h"
#include <cstdint>
#include <string>

namespace quern::cache {

/// What compilations could use now. Limits that do not exist are the type's maximum.
struct Machine {
  int affinity = 1;                // CPUs that this process may run on
  double cgroupCpus = 1e9;         // quota divided by period, the least of all levels
  uint64_t freeBytes = UINT64_MAX; // available memory, or what is left of the least cgroup limit
  int64_t freeThreads = INT64_MAX; // what is left of pids.max
};
/// From /proc and /sys/fs/cgroup (versions 1 and 2), below `root` for tests.
Machine readMachine(const std::string &root = "");

/// Of one compilation through MLIR, LLVM and ptxas, generously.
constexpr uint64_t bytesPerCompilation = uint64_t(512) << 20;
constexpr int threadsPerCompilation = 8;

/// At least 1. `wanted` (QUERN_JOBS) goes before everything if it is a number from 1 to 1024.
int jobLimit(const Machine &machine, uint64_t bytesPerJob, const std::optional<std::string> &wanted);
/// Here and now.
int jobLimit(uint64_t bytesPerJob = bytesPerCompilation);

/// Held around one expensive compilation. The constructor waits for a free slot, for a bounded time; where
/// nothing can be locked it does not wait. A slot inside another one on the same thread costs nothing. Take
/// it around the work itself, not around a findOrMake(), which may wait for somebody who waits for a slot.
class JobSlot {
  Lock lock;

public:
  explicit JobSlot(uint64_t bytesPerJob = bytesPerCompilation, const LockFolder &locks = LockFolder::user(),
                   std::chrono::milliseconds patience = std::chrono::minutes(5));
  ~JobSlot();
  JobSlot(const JobSlot &) = delete;
  JobSlot &operator=(const JobSlot &) = delete;
  /// False: the time was over, or nothing can be locked.
  bool held() const { return bool(lock); }
};

} // namespace quern::cache
