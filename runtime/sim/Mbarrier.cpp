// mbarrier primitives.
#include "runtime/sim/Mbarrier.h"
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"
#include <cstdlib>
#include <cstring>

namespace quern::sim {

// The 8 bytes hold a pattern, the address and the barrier's number: an overwritten barrier is noticed.
static uint64_t pattern(uint32_t address, unsigned number) {
  return 0xFFC5B4A100000000ull | uint64_t(number) << 24 | (address & 0xffffff);
}

Mbarrier &findMbarrier(Cta &cta, void *p, const char *what) {
  const uint32_t address = cta.address(p, 8, what);
  uint64_t value;
  std::memcpy(&value, cta.window + address, 8);
  const unsigned number = value >> 24 & 0xff;
  if (value != pattern(address, number) || number >= cta.mbarrierCount) {
    for (unsigned i = 0; i < cta.mbarrierCount; ++i)
      if (cta.mbarriers[i].address == address)
        fatal("mbarrier", "{}: the mbarrier at {} was overwritten", what, placeOf(cta, address));
    fatal("mbarrier", "{}: there is no initialised mbarrier at {}", what, placeOf(cta, address));
  }
  Mbarrier &barrier = cta.mbarriers[number];
  if (machine->options.happensBefore && self().clock[barrier.initThread] < barrier.initClock)
    issue("mbarrier",
          "{} on the mbarrier at {} is not ordered after its init by {}: a barrier is missing between them",
          what, placeOf(cta, address), nameOf(barrier.initThread));
  return barrier;
}

void checkFenced(Cta &cta, const Mbarrier &barrier, const char *what) {
  if (barrier.fenceClock &&
      (!machine->options.happensBefore || self().clock[barrier.initThread] >= barrier.fenceClock))
    return;
  issue("proxy-fence",
        "{} signals the mbarrier at {}, whose init by {} was not followed by fence.mbarrier.init and a "
        "barrier",
        what, placeOf(cta, barrier.address), nameOf(barrier.initThread));
}

static void tryComplete(Cta &cta, Mbarrier &barrier) {
  if (barrier.pending) return;
  if (barrier.bytes < 0) {
    issue("tx-bytes", "mbarrier at {}, phase {}: {} bytes more arrived than its expect_tx announced",
          placeOf(cta, barrier.address), barrier.phase, -barrier.bytes);
    machine->stopped = true;
  }
  if (barrier.bytes) return;
  ++barrier.phase;
  barrier.pending = barrier.expected;
  if (machine->options.happensBefore) barrier.released = barrier.collected;
  for (unsigned waiter : barrier.waiters) wake(waiter);
  barrier.waiters.clear();
}

void completeBytes(Cta &cta, Mbarrier &barrier, uint32_t bytes) {
  barrier.bytes -= bytes;
  tryComplete(cta, barrier);
}

static void arrive(Cta &cta, Mbarrier &barrier, uint32_t bytes, const char *what) {
  Machine &m = *machine;
  Thread &t = self();
  if (barrier.pending == 0)
    fatal("mbarrier", "{} on the mbarrier at {}: phase {} already has its {} arrivals and waits for {} bytes",
          what, placeOf(cta, barrier.address), barrier.phase, barrier.expected, barrier.bytes);
  if (m.options.happensBefore) {
    joinClocks(barrier.collected.data(), t.clock, m.clocks.active);
    t.tick();
  }
  --barrier.pending;
  barrier.bytes += bytes;
  if (std::llabs(barrier.bytes) >= 1 << 20)
    fatal("tx-bytes", "mbarrier at {}, phase {}: the transaction count {} leaves its range of 2^20 - 1",
          placeOf(cta, barrier.address), barrier.phase, barrier.bytes);
  tryComplete(cta, barrier);
}

} // namespace quern::sim

using namespace quern::sim;

void qsim_mbarrier_init(void *p, uint32_t count) {
  step();
  Machine &m = *machine;
  Thread &t = self();
  Cta &cta = *t.cta;
  m.clocks.activate();
  const uint32_t address = cta.address(p, 8, "mbarrier.init");
  if (address % 8)
    fatal("misaligned", "mbarrier.init at {}: 8-byte alignment is needed", placeOf(cta, address));
  if (count == 0 || count >= 1u << 20)
    fatal("mbarrier", "mbarrier.init at {}: {} arrivals; 1 to 2^20 - 1 are legal", placeOf(cta, address),
          count);
  for (unsigned i = 0; i < cta.mbarrierCount; ++i)
    if (cta.mbarriers[i].address == address)
      fatal("mbarrier", "mbarrier.init at {}: there is an mbarrier already", placeOf(cta, address));
  if (cta.mbarrierCount == maxMbarriers) fatal("mbarrier", "more than {} mbarriers in a CTA", maxMbarriers);
  // A plain store as far as other accesses of these words go.
  if (m.options.happensBefore) genericAccess(cta, address, 8, Access::Store, "mbarrier.init");
  if (cta.mbarriers.size() == cta.mbarrierCount) cta.mbarriers.emplace_back();
  const unsigned number = cta.mbarrierCount++;
  Mbarrier &barrier = cta.mbarriers[number];
  barrier.address = address;
  barrier.index = number;
  barrier.expected = barrier.pending = count;
  barrier.bytes = 0;
  barrier.phase = 0;
  barrier.agent = uint32_t(m.clocks.barrier(cta.rank * maxMbarriers + number));
  barrier.issued = 0;
  barrier.initThread = t.id;
  barrier.initClock = t.clock[t.id];
  barrier.fenceClock = 0;
  barrier.waiters.clear();
  barrier.collected.assign(m.clocks.stride, 0);
  barrier.released.assign(m.clocks.stride, 0);
  const uint64_t value = pattern(address, number);
  std::memcpy(cta.window + address, &value, 8);
}

void qsim_fence_mbarrier_init() {
  step();
  Thread &t = self();
  for (unsigned i = 0; i < t.cta->mbarrierCount; ++i)
    if (Mbarrier &barrier = t.cta->mbarriers[i]; barrier.initThread == t.id && !barrier.fenceClock)
      barrier.fenceClock = t.clock[t.id];
}

void qsim_mbarrier_expect_tx(void *p, uint32_t bytes) {
  step();
  Cta &cta = *self().cta;
  Mbarrier &barrier = findMbarrier(cta, p, "mbarrier.arrive.expect_tx");
  maybeYield();
  arrive(cta, barrier, bytes, "mbarrier.arrive.expect_tx");
}

void qsim_mbarrier_arrive(void *p) {
  step();
  Cta &cta = *self().cta;
  Mbarrier &barrier = findMbarrier(cta, p, "mbarrier.arrive");
  maybeYield();
  arrive(cta, barrier, 0, "mbarrier.arrive");
  maybeYield(8); // one that stalls right after its release is the interesting schedule
}

static void arriveAt(void *p, uint32_t rank, const char *what) {
  step();
  Thread &t = self();
  const uint32_t address = t.cta->address(p, 8, what);
  maybeYield();
  Cta &cta = remoteCta(rank, what);
  Mbarrier &barrier = findMbarrier(cta, cta.window + address, what);
  if (&cta != t.cta) checkFenced(cta, barrier, what);
  noteRemoteUse(cta);
  arrive(cta, barrier, 0, what);
  maybeYield(8);
}

void qsim_mbarrier_arrive_cluster(void *p, uint32_t rank) { arriveAt(p, rank, "mbarrier.arrive.cluster"); }

// Scopes are not told apart: an arrival of either kind orders what its thread did before.
void qsim_mbarrier_arrive_release_cluster(void *p, uint32_t rank) {
  arriveAt(p, rank, "mbarrier.arrive.release.cluster");
}

void qsim_mbarrier_wait_cluster(void *p, uint32_t parity) { qsim_mbarrier_wait(p, parity); }

void qsim_mbarrier_wait(void *p, uint32_t parity) {
  step();
  Machine &m = *machine;
  Thread &t = self();
  Cta &cta = *t.cta;
  Mbarrier &barrier = findMbarrier(cta, p, "mbarrier.try_wait");
  if (parity > 1)
    fatal("mbarrier", "mbarrier.try_wait.parity {} at {}: 0 or 1 is legal", parity,
          placeOf(cta, barrier.address));
  maybeYield();
  const uint64_t seen = barrier.phase;
  while ((barrier.phase & 1) == parity) {
    if (barrier.phase != seen)
      fatal("mbarrier",
            "the mbarrier at {} went from phase {} to phase {} while this thread waited for parity {}: it "
            "must not complete a phase that someone still waits for twice over",
            placeOf(cta, barrier.address), seen, barrier.phase, parity);
    if (m.options.copies == CopyMode::Lazy && m.copies.landFor(cta, barrier)) continue;
    barrier.waiters.push_back(t.id);
    t.waitsFor = barrier.address;
    t.waitDetail = parity;
    t.waitPhase = barrier.phase;
    block(State::Mbarrier);
  }
  if (m.options.happensBefore) joinClocks(t.clock, barrier.released.data(), m.clocks.active);
}
