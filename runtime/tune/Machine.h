// Runs schedules of one problem on one device, inside the worker process.
#pragma once
#include "runtime/gpu/Timer.h"
#include "runtime/tune/Data.h"

namespace quern::tune {

/// An image, as far as the tuner talks about it.
struct Compiled {
  std::string schedule, digest, assembler;
};

class Machine {
public:
  virtual ~Machine() = default;
  virtual DeviceIdentity identity() = 0;
  /// Bytes that the device has left; 0: unknown.
  virtual uint64_t freeBytes() = 0;
  /// Memory that a call takes for decoded weights by a schedule that was compiled.
  virtual uint64_t decodedBytes(const std::string &schedule) { return 0; }
  /// Takes the data, which outlive the machine.
  virtual Status place(Data &data) = 0;
  /// A line, or empty for the default.
  virtual Expected<Compiled> compile(const std::string &schedule) = 0;
  /// Runs a case on outputs filled with NaN and brings them back to it.
  virtual Status run(const std::string &schedule, Case &which) = 0;
  /// Microseconds of one cold call.
  virtual Expected<double> sample(const std::string &schedule, Case &which, Policy policy) = 0;
  /// Microseconds of a copy that fits the last-level cache, after the flush and after itself; empty where
  /// caches are not modelled.
  virtual Expected<std::vector<std::pair<double, double>>> coldAndWarm() = 0;
  virtual gpu::Clocks clocks() { return {}; }
};

Expected<std::unique_ptr<Machine>> makeCpuMachine(const Problem &problem);
/// "sim" or "cuda".
Expected<std::unique_ptr<Machine>> makeGpuMachine(const Problem &problem);

} // namespace quern::tune
