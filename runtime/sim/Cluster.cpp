// Clusters: their barrier, and access to the shared memory of peers.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Exit.h"
#include "runtime/sim/Machine.h"
#include <cstring>

namespace quern::sim {

static void complete(ClusterBarrier &barrier) {
  Machine &m = *machine;
  if (m.options.happensBefore) barrier.released = barrier.collected.values;
  barrier.collected.empty = true;
  barrier.arrived = 0;
  ++barrier.generation;
  for (unsigned waiter : barrier.waiters) wake(waiter);
  barrier.waiters.clear();
}

void clusterBarrierAfterExit() {
  Machine &m = *machine;
  ClusterBarrier &barrier = m.clusterBarrier;
  if (barrier.arrived && barrier.arrived >= m.alive) complete(barrier);
}

Cta &remoteCta(uint32_t rank, const char *what) {
  Machine &m = *machine;
  if (rank >= m.launch->cluster)
    fatal("cluster", "{}: CTA rank {} in a cluster of {}", what, rank, m.launch->cluster);
  Cta &cta = m.ctas[rank];
  if (cta.exited)
    fatal("cluster-exit",
          "{}: CTA rank {} has ended, its shared memory is gone: it must wait for its peers before its "
          "end",
          what, rank);
  return cta;
}

void noteRemoteUse(Cta &cta) {
  Thread &t = self();
  if (&cta != t.cta) cta.remoteUse[t.id] = t.clock[t.id];
}

/// A plain load of a T from the window of the peer with this rank.
template <class T> static T loadCluster(void *p, uint32_t rank) {
  step();
  const char *what = "ld.shared::cluster";
  const uint32_t address = self().cta->address(p, sizeof(T), what);
  Cta &cta = remoteCta(rank, what);
  if (address % sizeof(T)) fatal("misaligned", "{} at {}", what, placeOf(cta, address));
  maybeYield();
  if (machine->options.happensBefore) {
    noteRemoteUse(cta);
    genericAccess(cta, address, sizeof(T), Access::Load, what);
  }
  T value;
  std::memcpy(&value, cta.window + address, sizeof(T));
  return value;
}

} // namespace quern::sim

using namespace quern::sim;

void qsim_cluster_arrive() {
  step();
  Machine &m = *machine;
  Thread &t = self();
  maybeYield();
  ClusterBarrier &barrier = m.clusterBarrier;
  if (t.clusterArrived != t.clusterWaited)
    fatal("cluster", "barrier.cluster.arrive twice without barrier.cluster.wait between");
  t.clusterArrived = barrier.generation;
  if (m.options.happensBefore) {
    barrier.collected.add(m.clocks, t.clock);
    t.tick();
  }
  // Threads that have arrived and returned since are counted out with the living.
  if (++barrier.arrived >= m.alive) complete(barrier);
  maybeYield(4);
}

void qsim_cluster_wait() {
  step();
  Machine &m = *machine;
  Thread &t = self();
  ClusterBarrier &barrier = m.clusterBarrier;
  if (t.clusterArrived == t.clusterWaited)
    fatal("cluster", "barrier.cluster.wait without barrier.cluster.arrive");
  while (barrier.generation == t.clusterArrived) {
    barrier.waiters.push_back(t.id);
    block(State::ClusterBarrier);
  }
  t.clusterWaited = t.clusterArrived;
  if (m.options.happensBefore) joinClocks(t.clock, barrier.released.data(), m.clocks.active);
}

float qsim_ld_cluster_f32(void *p, uint32_t rank) { return loadCluster<float>(p, rank); }
uint64_t qsim_ld_cluster_b64(void *p, uint32_t rank) { return loadCluster<uint64_t>(p, rank); }

void qsim_grid_wait() { step(); }
void qsim_grid_launch() { step(); }
