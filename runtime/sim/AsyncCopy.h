// Async copies global -> shared that complete on an mbarrier: linear bulk copies and tensor map boxes.
#pragma once
#include "runtime/sim/TensorMap.h"
#include <cstddef>
#include <cstdint>
#include <vector>

namespace quern::sim {

struct Cta;
struct Mbarrier;

struct AsyncCopy {
  Cta *cta = nullptr; // whose shared memory and mbarrier
  uint32_t address = 0, bytes = 0;
  uint32_t barrier = 0;           // number in the CTA
  uint32_t epoch = 0;             // number among the copies of the mbarrier
  const TensorMap *map = nullptr; // null: linear from `source`
  const char *source = nullptr;
  int32_t column = 0, row = 0;
};

/// The copies that have not landed.
class CopyQueue {
public:
  void reset() { pending.clear(); }
  bool empty() const { return pending.empty(); }
  /// Lands one that was chosen at random.
  void landAny();
  /// Lands what a waiter of this barrier needs when only bytes are missing; false when there is nothing.
  bool landFor(Cta &cta, Mbarrier &barrier);
  /// Whether one of them completes on the barrier.
  bool pendingOn(const Cta &cta, const Mbarrier &barrier) const;
  void add(const AsyncCopy &copy);

private:
  void land(size_t index);
  std::vector<AsyncCopy> pending;
};

} // namespace quern::sim
