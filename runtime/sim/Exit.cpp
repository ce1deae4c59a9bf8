// A thread that returns must leave nothing behind; a CTA's shared memory dies with its last thread.
#include "runtime/sim/Exit.h"
#include "runtime/sim/Machine.h"
#include <algorithm>

namespace quern::sim {

void threadExits(Thread &t) {
  Machine &m = *machine;
  Cta &cta = *t.cta;
  t.state = State::Done;
  if (!t.copies.empty())
    issue("exit", "the thread returns with {} cp.async copies that it did not wait for", t.copies.size());
  const bool clocks =
      m.options.happensBefore && (m.clocks.active == m.clocks.stride || m.launch->cluster > 1);
  if (clocks) cta.exitClock.add(m.clocks, t.clock);
  --m.alive;
  if (--cta.alive == 0) {
    cta.exited = true;
    checkCtaExit(cta);
  } else {
    barrierAfterExit(cta);
  }
  clusterBarrierAfterExit();
}

void checkCtaExit(Cta &cta) {
  Machine &m = *machine;
  for (size_t i = 0; i < cta.warpgroups.size(); ++i) {
    const Warpgroup &group = cta.warpgroups[i];
    if (!group.ops.empty() && group.ops.back()->group >= *std::min_element(group.retired, group.retired + 4))
      issue("exit", "the CTA ends while a wgmma of {} is in flight: wgmma.commit and wgmma.wait are missing",
            nameOfWarp(cta, unsigned(i) * 4));
  }
  for (unsigned i = 0; i < cta.mbarrierCount; ++i) {
    const Mbarrier &barrier = cta.mbarriers[i];
    const bool observed = !m.options.happensBefore || cta.exitClock.empty ||
                          cta.exitClock.values[barrier.agent] >= barrier.issued;
    if (!observed || m.copies.pendingOn(cta, barrier))
      issue("exit",
            "the CTA ends while async copies into its shared memory may be in flight: nobody waited for the "
            "last phase of the mbarrier at {}",
            placeOf(cta, barrier.address));
  }
  if (cta.exitClock.empty) return;
  for (size_t u = 0; u < cta.remoteUse.size(); ++u) {
    if (cta.remoteUse[u] <= cta.exitClock.values[u]) continue;
    issue("cluster-exit",
          "CTA rank {} may end before {} has accessed its shared memory: a cluster barrier or a wait "
          "before the end is missing",
          cta.rank, nameOf(unsigned(u)));
    break;
  }
}

} // namespace quern::sim
