// Who compiles, checks and times schedules for the tuner. The tuner's decisions (Race.h) know nothing else,
// so tests decide with measurers of their own.
#pragma once
#include "runtime/tune/Tuner.h"

namespace quern::tune {

/// What came of compiling and checking one schedule.
struct Checked {
  std::string schedule; // the whole line of the image
  std::string image;    // digest of its code
  /// Digests of the outputs for each set of data: equal for all schedules that may be tuned.
  std::vector<std::string> bits;
  std::optional<Failure> failure;
  bool refused = false; // the failure: the compiler's own checks call this schedule illegal
};

/// One cold call of each schedule, in the order asked for.
struct Round {
  std::vector<double> us;
  unsigned smMHz = 0;  // 0: unknown
  bool slowed = false; // the device was held back
  /// When set, `guilty` (an index into the schedules) did not survive; `us` is empty.
  std::optional<Failure> failure;
  size_t guilty = 0;
};

class Measurer {
public:
  virtual ~Measurer() = default;
  virtual Expected<DeviceIdentity> device() = 0;
  /// Data on the device, and the check of the flush. An error refuses to measure and says why.
  virtual Status open() = 0;
  /// Compiles without timing anything, several at once; best effort: what fails here fails in check() again.
  virtual void compile(const std::vector<std::string> &schedules, const ProgressFn &progress) = 0;
  /// Compiles, runs on data with the oracle's answer, and compares. `expected`: the default's bits, or empty
  /// for the default itself.
  virtual Checked check(const std::string &schedule, const std::vector<std::string> &expected) = 0;
  /// Only of schedules that passed check().
  virtual Round round(const std::vector<std::string> &schedules, Skew skew) = 0;
};

} // namespace quern::tune
