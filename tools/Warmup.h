// What `quern warmup` makes ready: the images, and with --tune the schedules, of a list of calls, shared
// among ranks and threads.
#pragma once
#include "runtime/cache/Key.h"
#include "tools/Shapes.h"
#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace quern::tools {

/// One image: of all buckets whose key is the same.
struct WarmupItem {
  Shape shape;
  jit::Request request;
  cache::Key key;
  std::string hash, label;
};

struct WarmupOutcome {
  /// "cached" (before this run), "compiled" (here), "found" (another process compiled it when its turn had
  /// come), "tuned", "on record", "failed", "not done".
  std::string state;
  std::string detail; // the tuned schedule, or the error
  double seconds = 0;
};

/// Images of these shapes for `target` ("cpu", "cuda" or "sm_90a"), equal keys once. Where a tuning of this
/// device is on record, the image of its schedule is what a launch asks for, and is planned.
Expected<std::vector<WarmupItem>> planWarmup(std::vector<Shape> shapes, const std::string &target,
                                             int ordinal);

/// The order in which a rank of `world` takes `count` pieces of work: its share, then what others left, last
/// first, so that two ranks meet late. `hashes`: of the pieces, hexadecimal.
struct RankOrder {
  std::vector<size_t> order;
  size_t own = 0; // the first `own` are its share
};
RankOrder rankOrder(const std::vector<std::string> &hashes, int rank, int world);

/// Runs `work(i)` for i in [0, count), ascending, on `threads` threads, until `stop()`.
void forEachOnThreads(size_t count, int threads, const std::function<bool()> &stop,
                      const std::function<void(size_t)> &work);

} // namespace quern::tools
