// Scheduling policies.
#include "runtime/sim/RunQueue.h"
#include <algorithm>

namespace quern::sim {

void RunQueue::reset(Scheduler newPolicy, unsigned threads, Random &newRandom) {
  policy = newPolicy;
  random = &newRandom;
  count = 0;
  fifo.clear();
  any.clear();
  if (policy != Scheduler::Pct) return;
  lowest = 0;
  warps.resize(threads / 32);
  for (auto &warp : warps) warp.clear();
  warpPriority.resize(warps.size());
  groupPriority.resize((warps.size() + 3) / 4);
  for (int &priority : warpPriority) priority = int(random->below(1000));
  for (int &priority : groupPriority) priority = int(random->below(1000));
}

void RunQueue::push(unsigned thread) {
  ++count;
  if (policy == Scheduler::Pct)
    warps[thread / 32].push_back(thread);
  else if (policy == Scheduler::Random)
    any.push_back(thread);
  else
    fifo.push_back(thread);
}

unsigned RunQueue::pop() {
  --count;
  if (policy == Scheduler::Pct) return popByPriority();
  if (policy == Scheduler::Random) {
    std::swap(any[random->below(any.size())], any.back());
    unsigned thread = any.back();
    any.pop_back();
    return thread;
  }
  unsigned thread = fifo.front();
  fifo.pop_front();
  return thread;
}

unsigned RunQueue::popByPriority() {
  auto priority = [&](size_t warp) { return std::pair(groupPriority[warp / 4], warpPriority[warp]); };
  size_t best = warps.size();
  for (size_t i = 0; i < warps.size(); ++i)
    if (!warps[i].empty() && (best == warps.size() || priority(i) > priority(best))) best = i;
  // Mostly in lane order, as a warp would; now and then any lane.
  auto &lanes = warps[best];
  auto lane = random->below(4) ? std::min_element(lanes.begin(), lanes.end()) : lanes.begin();
  unsigned thread = *lane;
  *lane = lanes.back();
  lanes.pop_back();
  if (random->below(2048) == 0) demote(thread);
  return thread;
}

void RunQueue::demote(unsigned thread) {
  if (policy != Scheduler::Pct) return;
  if (random->next() & 1)
    groupPriority[thread / 128] = --lowest;
  else
    warpPriority[thread / 32] = --lowest;
}

} // namespace quern::sim
