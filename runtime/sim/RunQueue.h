// The threads that can run, and which one does: first come first served, at random, or by the priorities of
// probabilistic concurrency testing (Burckhardt et al., ASPLOS 2010) over warpgroups and warps, with
// demotions at primitives.
#pragma once
#include "runtime/sim/Random.h"
#include "runtime/sim/Sim.h"
#include <deque>
#include <vector>

namespace quern::sim {

class RunQueue {
public:
  void reset(Scheduler policy, unsigned threads, Random &random);
  void push(unsigned thread);
  unsigned pop(); // not empty
  bool empty() const { return count == 0; }
  /// A thread is about to yield: with Pct its warp, or its warpgroup, falls behind all others.
  void demote(unsigned thread);

private:
  unsigned popByPriority();
  Scheduler policy = Scheduler::Fifo;
  Random *random = nullptr;
  size_t count = 0;
  std::deque<unsigned> fifo;
  std::vector<unsigned> any;
  std::vector<std::vector<unsigned>> warps; // Pct: the ready threads of each warp
  std::vector<int> warpPriority, groupPriority;
  int lowest = 0;
};

} // namespace quern::sim
