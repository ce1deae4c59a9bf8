// Measuring on a device: marks on a stream, work that flushes its last-level cache, and its clocks. For
// tuners and benchmarks; nothing of it is on the way of a call.
#pragma once
#include "runtime/gpu/Backend.h"
#include <memory>

namespace quern::gpu {

/// What a device's clocks do. Zero: nobody can say (no NVML, the simulator).
struct Clocks {
  unsigned smMHz = 0, memoryMHz = 0;
  bool slowed = false; // held back by heat or hardware (a power cap alone is normal under load)
};

/// Used by one thread at a time, on one stream.
class Timer {
public:
  virtual ~Timer() = default;
  /// The marks between which microseconds() measures.
  virtual Status start(Stream stream) = 0;
  virtual Status stop(Stream stream) = 0;
  /// Waits for the stop mark; gives what a running kernel did wrong as its error.
  virtual Expected<double> microseconds() = 0;
  /// Writes more than the last-level cache holds, so that everything else leaves it. Queued, not waited for:
  /// it also keeps the device busy while the host prepares what is measured.
  virtual Status flush(Stream stream) = 0;
  virtual uint64_t cacheBytes() const = 0; // of the last level
  /// Of device memory; 0: unknown.
  virtual uint64_t freeBytes() = 0;
  /// Device to device.
  virtual Status copy(void *to, const void *from, uint64_t bytes, Stream stream) = 0;
  virtual Clocks clocks() = 0;
};

} // namespace quern::gpu
