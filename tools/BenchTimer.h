// Times of one call under several schedules, side by side, on generated data.
#pragma once
#include "tools/Shapes.h"
#include <functional>

namespace quern::tools {

struct BenchOptions {
  std::string target = "cpu";         // "cpu" or "cuda"
  std::vector<std::string> schedules; // lines, whole or partial, after the default
  std::string routing = "uniform";
  uint64_t seed = 0;
  double seconds = 1; // for each call and schedule, flushes included
  int minRounds = 5, maxRounds = 1000;
  int ordinal = 0; // of the GPU
};

struct BenchRow {
  std::string name;     // "default", "tuned" (a record of this device says so), or the line that was given
  std::string schedule; // the whole line that was used
  tune::Timing timing;
  double firstMs = 0; // the first call, with its compilation or its look into the cache
  std::string error;  // instead of times
};

struct BenchResult {
  Shape shape;
  tune::DeviceIdentity device;
  tune::Workload work;
  int64_t liveRows = 0;
  std::vector<BenchRow> rows; // the default first
};

/// CPU: each sample is one call on flushed caches, the schedules in turn. GPU 0: from an idle device to an
/// idle device, the host's work included. `tick` after each round with the part that is done.
Expected<BenchResult> bench(const Shape &shape, const BenchOptions &options,
                            const std::function<void(double)> &tick);

} // namespace quern::tools
