// Which schedule is faster, by interleaved rounds: README.md, "Protocol". Knows no device.
#pragma once
#include "runtime/tune/Measurer.h"

namespace quern::tune {

/// A schedule in the race.
struct Runner {
  std::string schedule; // whole line
  size_t candidate = 0; // index in Result::candidates
  std::string image;
};

struct RaceResult {
  std::vector<Measurement> measurements; // as the runners
  std::vector<Measurement> finals;       // [0] the default, [1] the challenger; empty when there was none
  size_t winner = 0;                     // index of a runner; 0: the default stays
  std::string reason;
  int64_t samples = 0;
  bool fair = true; // false: out of time before the default was measured enough; nothing may be recorded
};

/// runners[0] is the default. Never fails: a runner that does not survive is out, with its failure; if that
/// is the default, nobody wins.
RaceResult race(Measurer &measurer, const std::vector<Runner> &runners, const Options &options,
                const ProgressFn &progress);

} // namespace quern::tune
