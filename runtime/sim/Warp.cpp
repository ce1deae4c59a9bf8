// Shuffles, votes and __syncwarp: the lanes of the mask meet, then each takes its result.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"
#include <cstring>
#include <string_view>

namespace quern::sim {

/// The lanes of the mask learn what the others knew.
static void orderLanes(Thread *lanes, uint32_t mask) {
  static MeetingClock clock; // not on a fiber's stack
  Machine &m = *machine;
  clock.empty = true;
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1) clock.add(m.clocks, lanes[i].clock);
  for (unsigned i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    std::memcpy(lanes[i].clock, clock.values.data(), m.clocks.active * sizeof(uint32_t));
    lanes[i].tick();
  }
}

/// Returns true in the lane that came last; the others come back when it has called part().
static bool meet(const char *what, uint32_t mask) {
  Thread &t = self();
  Cta &cta = *t.cta;
  if (!(mask >> t.lane() & 1)) fatal("warp", "{}: the mask 0x{:08x} lacks the executing lane", what, mask);
  WarpMeeting &meeting = cta.meetings[t.warp()];
  if (meeting.arrived == 0) {
    meeting.what = what;
    meeting.mask = mask;
  } else if (std::string_view(meeting.what) != what || meeting.mask != mask) {
    fatal("warp", "{} with mask 0x{:08x}, while other lanes of the warp wait in {} with mask 0x{:08x}", what,
          mask, meeting.what, meeting.mask);
  }
  meeting.arrived |= 1u << t.lane();
  if (meeting.arrived == mask) return true;
  block(State::WarpMeeting);
  return false;
}

static void part(bool ordersMemory) {
  Machine &m = *machine;
  Thread &t = self();
  WarpMeeting &meeting = t.cta->meetings[t.warp()];
  Thread *lanes = &m.threadOf(*t.cta, t.warp() * 32);
  const uint32_t mask = meeting.arrived;
  meeting.arrived = 0;
  if (m.options.happensBefore && (ordersMemory || m.options.convergence)) orderLanes(lanes, mask);
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1 && &lanes[i] != &t) wake(lanes[i].id);
}

enum class Shuffle : uint8_t { Idx, Up, Down, Bfly };

/// PTX ISA 9.7.9.6: which lane `lane` reads from.
static uint32_t sourceLane(Shuffle mode, uint32_t lane, uint32_t b, uint32_t c) {
  const uint32_t segment = c >> 8 & 31, clamp = c & 31;
  const uint32_t highest = (lane & segment) | (clamp & ~segment), lowest = lane & segment;
  b &= 31;
  int64_t source = 0;
  bool inside = false;
  switch (mode) {
  case Shuffle::Up: source = int64_t(lane) - b, inside = source >= highest; break;
  case Shuffle::Down: source = lane + b, inside = source <= highest; break;
  case Shuffle::Bfly: source = lane ^ b, inside = source <= highest; break;
  case Shuffle::Idx: source = lowest | (b & ~segment), inside = source <= highest; break;
  }
  return inside ? uint32_t(source) : lane;
}

static uint32_t shuffle(Shuffle mode, const char *what, uint32_t mask, uint32_t value, uint32_t lane,
                        uint32_t clamp) {
  step();
  Thread &t = self();
  t.exchanged = value;
  t.exchangeLane = lane;
  t.exchangeClamp = clamp;
  if (meet(what, mask)) {
    Thread *lanes = &machine->threadOf(*t.cta, t.warp() * 32);
    uint32_t results[32];
    for (unsigned i = 0; i < 32; ++i) {
      if (!(mask >> i & 1)) continue;
      const uint32_t from = sourceLane(mode, i, lanes[i].exchangeLane, lanes[i].exchangeClamp);
      if (!(mask >> from & 1))
        fatal("warp", "{}: lane {} reads lane {}, which is not in the mask 0x{:08x}", what, i, from, mask);
      results[i] = lanes[from].exchanged;
    }
    for (unsigned i = 0; i < 32; ++i)
      if (mask >> i & 1) lanes[i].exchanged = results[i];
    part(false);
  }
  return t.exchanged;
}

} // namespace quern::sim

using namespace quern::sim;

uint32_t qsim_shfl_idx(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp) {
  return shuffle(Shuffle::Idx, "shfl.sync.idx", mask, value, lane, clamp);
}
uint32_t qsim_shfl_up(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp) {
  return shuffle(Shuffle::Up, "shfl.sync.up", mask, value, lane, clamp);
}
uint32_t qsim_shfl_down(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp) {
  return shuffle(Shuffle::Down, "shfl.sync.down", mask, value, lane, clamp);
}
uint32_t qsim_shfl_bfly(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp) {
  return shuffle(Shuffle::Bfly, "shfl.sync.bfly", mask, value, lane, clamp);
}

uint32_t qsim_ballot(uint32_t mask, uint32_t predicate) {
  step();
  Thread &t = self();
  t.exchanged = predicate != 0;
  if (meet("vote.sync.ballot", mask)) {
    Thread *lanes = &machine->threadOf(*t.cta, t.warp() * 32);
    uint32_t result = 0;
    for (unsigned i = 0; i < 32; ++i)
      if (mask >> i & 1) result |= lanes[i].exchanged << i;
    for (unsigned i = 0; i < 32; ++i)
      if (mask >> i & 1) lanes[i].exchanged = result;
    part(false);
  }
  return t.exchanged;
}

void qsim_syncwarp(uint32_t mask) {
  step();
  maybeYield();
  if (meet("bar.warp.sync", mask)) part(true);
}
