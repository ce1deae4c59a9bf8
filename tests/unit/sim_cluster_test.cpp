// Clusters: barriers, multicast, remote arrivals and loads, and CTAs that end too early.
#include "sim_support.h"
#include <memory>
#include <span>

namespace sim_tests {
namespace {

enum class Gap {
  None,
  NoFirstBarrier,
  NoLastBarrier,
  NoWait,
  WrongRank,
  WrongMask,
  TwoArrives,
  WaitOnly,
  NoInitFence
};

struct alignas(128) Peers {
  char map[128];
  uint16_t source[64][64];
  float sums[8][128];
  uint16_t rows[8][64];
  Gap gap;
};

void clusterBarrier() {
  qsim_cluster_arrive();
  qsim_cluster_wait();
}

// Every CTA stores its numbers; every thread adds up what all CTAs hold at its place, in rank order.
void sumKernel(Peers &d) {
  const uint32_t t = qsim_tid_x(), rank = qsim_cluster_ctarank(), ranks = 4;
  storeShared(smem<float>(t * 4), float(rank * 1000 + t));
  if (d.gap == Gap::TwoArrives) qsim_cluster_arrive();
  if (d.gap == Gap::WaitOnly) qsim_cluster_wait();
  if (d.gap != Gap::NoFirstBarrier) clusterBarrier();
  float sum = 0;
  for (uint32_t r = 0; r < ranks; ++r)
    sum += qsim_ld_cluster_f32(smem(t * 4), d.gap == Gap::WrongRank ? r + 1 : r);
  if (d.gap != Gap::NoLastBarrier) clusterBarrier();
  storeGlobal(&d.sums[qsim_ctaid_x()][t], sum);
}

KernelRun<Peers> sumRun(Peers &d, Gap gap) {
  d.gap = gap;
  KernelRun<Peers> run(d, sumKernel, 128, 1024);
  run.launch.grid = 8;
  run.launch.cluster = 4;
  return run;
}

TEST(SimCluster, RemoteLoads) {
  auto d = std::make_unique<Peers>();
  expectClean(sumRun(*d, Gap::None), [&] {
    for (uint32_t cta = 0; cta < 8; ++cta)
      for (uint32_t t = 0; t < 128; ++t) ASSERT_EQ(d->sums[cta][t], 6000 + 4 * t);
    std::memset(d->sums, 0, sizeof d->sums);
  });
}

TEST(SimCluster, RemoteLoadHazards) {
  auto d = std::make_unique<Peers>();
  expectIssue(sumRun(*d, Gap::NoFirstBarrier),
              AllOf(HasSubstr("ld.shared::cluster at smem+0x"), HasSubstr("of CTA rank")));
  expectIssue(sumRun(*d, Gap::NoLastBarrier), HasSubstr("[cluster-exit]"));
  expectIssue(sumRun(*d, Gap::WrongRank), HasSubstr("ld.shared::cluster: CTA rank 4 in a cluster of 4"));
  expectIssue(sumRun(*d, Gap::TwoArrives),
              HasSubstr("barrier.cluster.arrive twice without barrier.cluster.wait between"));
  expectIssue(sumRun(*d, Gap::WaitOnly), HasSubstr("barrier.cluster.wait without barrier.cluster.arrive"));
}

// Rank 1 hands rank 0 a pair of numbers per thread, round after round through the same place.
void exchangeKernel(Peers &d) {
  const uint32_t t = qsim_tid_x(), rank = qsim_cluster_ctarank();
  char *ready = smem(2048), *taken = smem(2056);
  if (t == 0) {
    qsim_mbarrier_init(ready, 2); // one arrival of each warp
    qsim_mbarrier_init(taken, 2);
    qsim_fence_mbarrier_init();
  }
  clusterBarrier();
  float sum = 0;
  for (uint32_t round = 0; round < 3; ++round) {
    if (rank == 1) {
      if (d.gap != Gap::NoWait) qsim_mbarrier_wait_cluster(taken, (round & 1) ^ 1);
      storeShared(smem<float>(t * 8), float(100 * round));
      storeShared(smem<float>(t * 8 + 4), float(t));
      qsim_syncwarp(~0u);
      if (t % 32 == 0) qsim_mbarrier_arrive_release_cluster(ready, 0);
    } else {
      if (d.gap != Gap::NoFirstBarrier) qsim_mbarrier_wait_cluster(ready, round & 1);
      const uint64_t bits = qsim_ld_cluster_b64(smem(t * 8), d.gap == Gap::WrongRank ? 0 : 1);
      float pair[2];
      std::memcpy(pair, &bits, 8);
      sum += pair[0] + pair[1];
      qsim_syncwarp(~0u);
      if (t % 32 == 0) qsim_mbarrier_arrive_release_cluster(taken, 1);
    }
  }
  if (rank == 0) storeGlobal(&d.sums[0][t], sum);
  if (d.gap != Gap::NoLastBarrier) clusterBarrier();
}

TEST(SimCluster, ExchangeByRemoteArrivals) {
  auto d = std::make_unique<Peers>();
  auto exchange = [&](Gap gap) {
    d->gap = gap;
    KernelRun<Peers> run(*d, exchangeKernel, 64, 2048 + 64);
    run.launch.grid = run.launch.cluster = 2;
    return run;
  };
  expectClean(exchange(Gap::None), [&] {
    for (uint32_t t = 0; t < 64; ++t) ASSERT_EQ(d->sums[0][t], 300 + 3 * t);
    std::memset(d->sums, 0, sizeof d->sums);
  });
  using testing::AnyOf;
  expectIssue(exchange(Gap::NoWait), AnyOf(HasSubstr("[race]"), HasSubstr("[mbarrier]")));
  expectIssue(exchange(Gap::NoFirstBarrier), HasSubstr("ld.shared::cluster at smem+0x"));
  expectIssue(exchange(Gap::WrongRank), HasSubstr("which nobody has written"));
  expectIssue(exchange(Gap::NoLastBarrier), HasSubstr("[cluster-exit]"));
}

TEST(SimCluster, AMissingThreadIsADeadlock) {
  auto d = std::make_unique<Peers>();
  KernelRun<Peers> run(
      *d,
      [](Peers &) {
        if (qsim_cluster_ctarank() == 1 && qsim_tid_x() == 3) qsim_barrier_sync(1, 64); // never completes
        clusterBarrier();
      },
      64, 256);
  run.launch.grid = run.launch.cluster = 2;
  expectIssue(
      run,
      AllOf(HasSubstr("[deadlock]"),
            HasSubstr("1 thread of CTA rank 1 (first: warp 0 lane 3): waits in bar.sync 1: 1 of 64 threads"),
            HasSubstr("64 threads of CTA rank 0 (first: warp 0 lane 0): waits in barrier.cluster.wait: 127 "
                      "of 128 threads arrived")));
}

// The token tile of a GEMM: each of two CTAs loads its half of 16 rows for both; a stage is free again when
// the readers of both CTAs have told the issuer, by remote arrivals.
void multicastKernel(Peers &d) {
  const uint32_t t = qsim_tid_x(), rank = qsim_cluster_ctarank();
  char *full = smem(2048), *empty = smem(2056), *stage = smem(0);
  if (t == 0) {
    qsim_mbarrier_init(full, 1);
    qsim_mbarrier_init(empty, 2);
    if (d.gap != Gap::NoInitFence) qsim_fence_mbarrier_init();
  }
  if (d.gap == Gap::NoFirstBarrier)
    qsim_syncthreads();
  else
    clusterBarrier();
  uint32_t sum = 0;
  for (uint32_t step = 0; step < 4; ++step) {
    if (t == 0) {
      if (step && d.gap != Gap::NoWait) qsim_mbarrier_wait(empty, (step - 1) & 1);
      qsim_mbarrier_expect_tx(full, 2048);
      qsim_tma_load2d_multicast(stage + rank * 1024, d.map, 0, int32_t(step * 16 + rank * 8), full,
                                d.gap == Gap::WrongMask ? 7 : 3);
    }
    qsim_mbarrier_wait(full, step & 1);
    for (uint32_t i = t; i < 1024; i += 32) sum += loadShared(smem<uint16_t>(i * 2));
    qsim_syncwarp(~0u);
    if (t < 2) qsim_mbarrier_arrive_cluster(empty, t);
  }
  for (uint32_t lanes = 16; lanes; lanes /= 2) sum += qsim_shfl_down(~0u, sum, lanes, 31);
  if (t == 0) storeGlobal(&d.sums[rank][0], float(sum));
  if (d.gap != Gap::NoLastBarrier) clusterBarrier();
}

KernelRun<Peers> multicastRun(Peers &d, Gap gap) {
  d.gap = gap;
  for (uint32_t i = 0; i < 64 * 64; ++i) d.source[i / 64][i % 64] = uint16_t(i % 251);
  EXPECT_EQ(encodeTensorMap(d.map, 2, d.source, 64, 64, 128, 64, 8, true), "");
  KernelRun<Peers> run(d, multicastKernel, 32, 2048 + 64);
  run.launch.grid = run.launch.cluster = 2;
  return run;
}

TEST(SimCluster, Multicast) {
  auto d = std::make_unique<Peers>();
  auto run = multicastRun(*d, Gap::None);
  uint32_t sum = 0;
  for (uint16_t v : std::span(&d->source[0][0], 64 * 64)) sum += v;
  expectClean(run, [&] {
    ASSERT_EQ(d->sums[0][0], float(sum));
    ASSERT_EQ(d->sums[1][0], float(sum));
    d->sums[0][0] = d->sums[1][0] = 0;
  });
}

TEST(SimCluster, MulticastHazards) {
  auto d = std::make_unique<Peers>();
  using testing::AnyOf;
  // A peer's barrier may not exist yet, or is not known to.
  expectIssue(multicastRun(*d, Gap::NoFirstBarrier),
              AnyOf(HasSubstr("there is no initialised mbarrier"), HasSubstr("not ordered after its init")));
  expectIssue(multicastRun(*d, Gap::NoInitFence), HasSubstr("[proxy-fence]"));
  expectIssue(multicastRun(*d, Gap::NoLastBarrier), HasSubstr("[cluster-exit]"));
  expectIssue(multicastRun(*d, Gap::WrongMask), HasSubstr("mask 0x7 in a cluster of 2"));
  // Without the wait for remote releases a copy overwrites what a peer reads, or a phase is overrun.
  expectIssue(multicastRun(*d, Gap::NoWait),
              AnyOf(HasSubstr("[race]"), HasSubstr("[mbarrier]"), HasSubstr("[tx-bytes]")));
}

TEST(SimCluster, ACopyIntoAPeerThatEndsIsReported) {
  auto d = std::make_unique<Peers>();
  auto run = multicastRun(*d, Gap::None);
  run.body = [](Peers &d) {
    if (qsim_tid_x() == 0) {
      qsim_mbarrier_init(smem(2048), 1);
      qsim_fence_mbarrier_init();
    }
    clusterBarrier();
    if (qsim_tid_x() == 0 && qsim_cluster_ctarank() == 0) {
      qsim_mbarrier_expect_tx(smem(2048), 1024);
      qsim_tma_load2d_multicast(smem(0), d.map, 0, 0, smem(2048), 3);
      qsim_mbarrier_wait(smem(2048), 0);
    }
  };
  expectIssue(run,
              testing::AnyOf(
                  HasSubstr("nobody waited for the last phase of the mbarrier at smem+0x800 of CTA rank 1"),
                  HasSubstr("cp.async.bulk.tensor.multicast: CTA rank 1 has ended")));
}

} // namespace
} // namespace sim_tests
