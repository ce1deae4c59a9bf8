// bar.sync: barrier 0 of all threads of a CTA, barriers 1..15 of a stated number.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Exit.h"
#include "runtime/sim/Machine.h"
#include <cstring>

namespace quern::sim {

/// Everybody learns what everybody knew. A thread's clock is below the meeting's except for its own tick.
static void learn(Thread &t, const MeetingClock &clock) {
  const uint32_t own = t.clock[t.id];
  std::memcpy(t.clock, clock.values.data(), machine->clocks.active * sizeof(uint32_t));
  t.clock[t.id] = own;
}

static void open(NamedBarrier &barrier) {
  for (unsigned waiter : barrier.waiters) {
    if (machine->options.happensBefore) learn(machine->threads[waiter], barrier.clock);
    wake(waiter);
  }
  barrier.waiters.clear();
  barrier.arrived = 0;
  barrier.clock.empty = true;
}

static void meet(uint32_t id, unsigned need) {
  Machine &m = *machine;
  Thread &t = self();
  NamedBarrier &barrier = t.cta->barriers[id];
  if (barrier.arrived == 0)
    barrier.need = need;
  else if (id && barrier.need != need)
    fatal("named-barrier", "bar.sync {}, {}: others of this generation came with {} threads", id, need,
          barrier.need);
  if (m.options.happensBefore) {
    barrier.clock.add(m.clocks, t.clock);
    t.tick();
  }
  ++barrier.arrived;
  if (barrier.arrived < need) {
    barrier.waiters.push_back(t.id);
    t.waitsFor = id;
    return block(State::NamedBarrier);
  }
  if (m.options.happensBefore) learn(t, barrier.clock);
  open(barrier);
}

void barrierAfterExit(Cta &cta) {
  NamedBarrier &barrier = cta.barriers[0];
  if (barrier.arrived && barrier.arrived == cta.alive) open(barrier);
}

} // namespace quern::sim

using namespace quern::sim;

void qsim_syncthreads() {
  step();
  maybeYield();
  meet(0, self().cta->alive);
}

void qsim_barrier_sync(uint32_t id, uint32_t threads) {
  step();
  maybeYield();
  if (id == 0 || id > 15) fatal("named-barrier", "bar.sync {}: named barriers are 1 to 15", id);
  if (threads == 0 || threads % 32 || threads > machine->launch->block)
    fatal("named-barrier", "bar.sync {}, {}: a multiple of 32 up to the block's {} threads is needed", id,
          threads, machine->launch->block);
  meet(id, threads);
}
