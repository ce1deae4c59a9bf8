// Vector clocks of the happens-before detector (Lamport; Flanagan and Freund, FastTrack, PLDI 2009).
//
// Components, for a cluster of T threads:
//   [0, T)            each thread: counts its releases
//   [T, 2T)           the same, but only what a fence.proxy.async has made visible to the async proxy; a
//   fence
//                     copies the first block onto it, so a fence anywhere on the path from the writer's store
//                     to the reader's wgmma or copy counts (PTX ISA, proxy-preserved base causality order)
//   [2T, 2T + T/32)   each warp's wgmma reads: counts its completed commit groups
//   the rest          each mbarrier: counts the async copies that complete on it, in issue order
// While no async primitive has run, everything after the first block is zero and is not touched.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace quern::sim {

/// into = max(into, from), component by component.
void joinClocks(uint32_t *into, const uint32_t *from, size_t count);
/// low = min(low, from).
void meetClocks(uint32_t *low, const uint32_t *from, size_t count);

class Clocks {
public:
  /// Fresh clocks for a cluster: thread i starts with 1 in its own component and zeros elsewhere.
  void reset(size_t threads, size_t barriers);
  /// The first async primitive of a cluster calls this (cheap afterwards).
  void activate() {
    if (active < stride) activateAll();
  }

  uint32_t *of(size_t thread) { return values.data() + thread * stride; }
  size_t fenced(size_t thread) const { return threads + thread; }
  size_t warp(size_t warp) const { return 2 * threads + warp; }
  size_t barrier(size_t index) const { return 2 * threads + threads / 32 + index; }

  size_t stride = 0, active = 0, threads = 0; // components allocated per clock; in use
private:
  void activateAll();
  std::vector<uint32_t> values;
};

/// A clock that threads meet at: a barrier's generation.
struct MeetingClock {
  std::vector<uint32_t> values;
  bool empty = true;
  void add(const Clocks &clocks, const uint32_t *clock);
};

} // namespace quern::sim
