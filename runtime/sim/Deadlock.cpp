// A deadlock, told by what each group of threads waits for.
#include "runtime/sim/Machine.h"
#include <map>

namespace quern::sim {

static std::string waitsFor(const Thread &t) {
  Machine &m = *machine;
  Cta &cta = *t.cta;
  switch (t.state) {
  case State::Done: return "returned";
  case State::Ready: return "can run";
  case State::Mbarrier: {
    const Mbarrier *barrier = nullptr;
    for (unsigned i = 0; i < cta.mbarrierCount; ++i)
      if (cta.mbarriers[i].address == t.waitsFor) barrier = &cta.mbarriers[i];
    return fmt::format(
        "waits for parity {} of the mbarrier at {}: phase {} has {} of {} arrivals and lacks {} bytes",
        t.waitDetail, placeOf(cta, t.waitsFor), barrier->phase, barrier->expected - barrier->pending,
        barrier->expected, barrier->bytes);
  }
  case State::NamedBarrier: {
    const NamedBarrier &barrier = cta.barriers[t.waitsFor];
    return t.waitsFor ? fmt::format("waits in bar.sync {}: {} of {} threads are there", t.waitsFor,
                                    barrier.arrived, barrier.need)
                      : fmt::format("waits in __syncthreads: {} of {} threads are there", barrier.arrived,
                                    cta.alive);
  }
  case State::ClusterBarrier:
    return fmt::format("waits in barrier.cluster.wait: {} of {} threads arrived", m.clusterBarrier.arrived,
                       m.alive);
  case State::Wgmma:
    return fmt::format("waits in wgmma: {} of 128 threads are there", cta.warpgroups[t.tid / 128].arrived);
  case State::WarpMeeting: {
    const WarpMeeting &meeting = cta.meetings[t.warp()];
    return fmt::format("waits in {}: lanes 0x{:08x} of mask 0x{:08x} are there", meeting.what,
                       meeting.arrived, meeting.mask);
  }
  case State::Registers:
    return fmt::format("waits in setmaxnreg.inc {} (it has {}): {} registers are free in the CTA",
                       t.waitDetail, t.registers, cta.freeRegisters);
  }
  return "";
}

void reportDeadlock() {
  Machine &m = *machine;
  m.report.deadlock = true;
  std::map<std::pair<std::string, std::string>, std::pair<unsigned, const Thread *>>
      groups; // in reading order of roles
  for (const Thread &t : m.threads) {
    std::string who(roleOf(t.warp()));
    if (m.launch->cluster > 1) who += fmt::format("{}CTA rank {}", who.empty() ? "" : " of ", t.cta->rank);
    auto &group = groups[{who, waitsFor(t)}];
    if (!group.first++) group.second = &t;
  }
  std::string all = "all threads are blocked:";
  for (const auto &[key, group] : groups)
    all += fmt::format("\n    {} thread{}{}{} (first: warp {} lane {}): {}", group.first,
                       group.first == 1 ? "" : "s", key.first.empty() ? "" : " of ", key.first,
                       group.second->warp(), group.second->lane(), key.second);
  issue("deadlock", "{}", all);
}

} // namespace quern::sim
