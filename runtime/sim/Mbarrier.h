// mbarrier objects: arrivals, transaction bytes and phases (PTX ISA 9.7.13.15).
#pragma once
#include <cstdint>
#include <vector>

namespace quern::sim {

struct Cta;
struct Thread;

struct Mbarrier {
  uint32_t address = 0, index = 0; // shared address; number in the cluster
  uint32_t expected = 0, pending = 0;
  int64_t bytes = 0; // expected minus completed, in this phase
  uint64_t phase = 0;
  uint32_t agent = 0;                                     // clock component of the copies that complete here
  uint32_t issued = 0;                                    // copies so far
  uint32_t initThread = 0, initClock = 0, fenceClock = 0; // 0: the init was not fenced
  std::vector<unsigned> waiters;                          // threads
  std::vector<uint32_t> collected, released; // clocks: of the arrivals so far; when the last phase completed
};

/// The mbarrier at host address `p` of `cta`'s window; a fatal issue when there is none.
Mbarrier &findMbarrier(Cta &cta, void *p, const char *what);
/// An async copy of `bytes` landed.
void completeBytes(Cta &cta, Mbarrier &barrier, uint32_t bytes);
/// A fatal or plain issue when the init was not fenced and observed by the current thread.
void checkFenced(Cta &cta, const Mbarrier &barrier, const char *what);

} // namespace quern::sim
