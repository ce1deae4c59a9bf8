// The child process of the tuner.
#pragma once
#include "runtime/tune/Data.h"
#include <functional>

namespace quern::tune {

/// For tests: what a broken kernel would do. `schedule` is the line asked for.
struct WorkerHooks {
  std::function<void(const std::string &schedule)> onCompile;
  std::function<void(const std::string &schedule, Case &which)> afterRun;
  std::function<void(const std::string &schedule, double &us)> onSample;
  bool flushWorks = true; // false: the self-check sees a copy as fast cold as warm
};
int tuneWorker(int in, int out, const WorkerHooks &hooks);

} // namespace quern::tune
