// Barriers of a CTA, warp meetings, plain and atomic accesses to shared memory, registers.
#include "sim_support.h"
#include <memory>

namespace sim_tests {
namespace {

struct Values {
  uint32_t out[1024], how;
};

// Thread i stores, thread (i + how) % block loads.
void exchangeKernel(Values &d, void (*barrier)()) {
  const uint32_t t = qsim_tid_x(), n = qsim_ntid_x();
  storeShared(smem<uint32_t>(t * 4), t * 3);
  barrier();
  storeGlobal(&d.out[t], loadShared(smem<uint32_t>((t + d.how) % n * 4)));
}

TEST(SimBarrier, SyncThreadsOrdersTheBlock) {
  Values d{};
  d.how = 77;
  for (unsigned block : {32u, 96u, 1024u}) {
    KernelRun<Values> run(d, [](Values &d) { exchangeKernel(d, qsim_syncthreads); }, block);
    expectClean(run, [&] {
      for (uint32_t t = 0; t < block; ++t) ASSERT_EQ(d.out[t], (t + 77) % block * 3);
    });
  }
}

TEST(SimBarrier, WithoutABarrierTheLoadIsARace) {
  Values d{};
  d.how = 77;
  KernelRun<Values> run(d, [](Values &d) { exchangeKernel(d, [] {}); }, 128);
  expectIssue(run, testing::AnyOf(HasSubstr("is not ordered after the store of warp"),
                                  HasSubstr("is not ordered after the load of warp")));
}

TEST(SimBarrier, NamedBarriersOrderTheirThreadsOnly) {
  Values d{};
  auto kernel = [](Values &d) { // two groups of 64, each with a barrier of its own
    const uint32_t t = qsim_tid_x(), group = t / 64;
    for (uint32_t round = 0; round < 3; ++round) {
      storeShared(smem<uint32_t>(t * 4), t + round);
      qsim_barrier_sync(1 + group, 64);
      const uint32_t other = d.how ? (t + 64) % 128 : group * 64 + (t + 5) % 64;
      d.out[t] = loadShared(smem<uint32_t>(other * 4));
      qsim_barrier_sync(3 + group, 64);
    }
  };
  KernelRun<Values> run(d, kernel, 128);
  expectClean(run, [&] {
    for (uint32_t t = 0; t < 128; ++t) ASSERT_EQ(d.out[t], t / 64 * 64 + (t + 5) % 64 + 2);
  });
  d.how = 1;
  expectIssue(run, HasSubstr("[race]"));
}

TEST(SimBarrier, AReleaseDoesNotCoverLaterStores) {
  Values d{};
  KernelRun<Values> run(
      d,
      [](Values &) {
        if (qsim_tid_x() == 0) qsim_mbarrier_init(smem(0), 1);
        qsim_syncthreads();
        if (qsim_tid_x() == 0) {
          qsim_mbarrier_arrive(smem(0));
          storeShared(smem<uint32_t>(64), 1u);
        }
        if (qsim_tid_x() == 40) {
          qsim_mbarrier_wait(smem(0), 0);
          loadShared(smem<uint32_t>(64));
        }
      },
      64);
  expectIssue(run, AllOf(HasSubstr("[race]"), HasSubstr("at smem+0x40")));
}

TEST(SimBarrier, BadOperandsAndDeadlocks) {
  Values d{};
  auto text = [&](void (*kernel)(Values &), const char *expected) {
    expectIssue(KernelRun<Values>(d, kernel, 64), HasSubstr(expected));
  };
  text([](Values &) { qsim_barrier_sync(16, 64); }, "bar.sync 16: named barriers are 1 to 15");
  text([](Values &) { qsim_barrier_sync(1, 48); },
       "bar.sync 1, 48: a multiple of 32 up to the block's 64 threads");
  text([](Values &) { qsim_barrier_sync(2, qsim_tid_x() < 32 ? 64 : 32); }, "bar.sync 2");
  text(
      [](Values &) {
        if (qsim_tid_x() < 32) qsim_barrier_sync(2, 64);
      },
      "32 threads (first: warp 0 lane 0): waits in bar.sync 2: 32 of 64 threads are there");
}

TEST(SimBarrier, ThreadsThatReturnedAreNotWaitedFor) {
  Values d{};
  KernelRun<Values> run(
      d,
      [](Values &) {
        if (qsim_tid_x() >= 40) return;
        qsim_syncthreads();
      },
      64);
  expectClean(run, [] {});
}

TEST(SimWarp, Shuffles) {
  Values d{};
  KernelRun<Values> run(
      d,
      [](Values &d) {
        const uint32_t t = qsim_tid_x(), value = t * 10;
        d.out[t] = qsim_shfl_idx(~0u, value, 5, 31);
        d.out[t + 128] = qsim_shfl_up(~0u, value, 3, 0);
        d.out[t + 256] = qsim_shfl_down(~0u, value, 4, 31);
        d.out[t + 384] = qsim_shfl_bfly(~0u, value, 16, 31);
        d.out[t + 512] = qsim_shfl_down(~0u, value, 1, 24 << 8 | 31); // segments of 8 lanes
        d.out[t + 640] = qsim_shfl_idx(~0u, value, t + 1, 31);
        d.out[t + 768] = qsim_ballot(~0u, t % 3 == 0);
      },
      128);
  expectClean(run, [&] {
    for (uint32_t t = 0; t < 128; ++t) {
      const uint32_t lane = t % 32, warp = t - lane;
      ASSERT_EQ(d.out[t], (warp + 5) * 10);
      ASSERT_EQ(d.out[t + 128], (lane < 3 ? t : t - 3) * 10);
      ASSERT_EQ(d.out[t + 256], (lane > 27 ? t : t + 4) * 10);
      ASSERT_EQ(d.out[t + 384], (t ^ 16) * 10);
      ASSERT_EQ(d.out[t + 512], (lane % 8 == 7 ? t : t + 1) * 10);
      ASSERT_EQ(d.out[t + 640], (warp + (lane + 1) % 32) * 10);
      uint32_t ballot = 0;
      for (uint32_t i = 0; i < 32; ++i) ballot |= uint32_t((warp + i) % 3 == 0) << i;
      ASSERT_EQ(d.out[t + 768], ballot);
    }
    d = {};
  });
}

TEST(SimWarp, LanesThatStayAwayAreADeadlock) {
  Values d{};
  KernelRun<Values> run(
      d,
      [](Values &) {
        if (qsim_laneid() < 30) qsim_ballot(~0u, 1);
      },
      32);
  expectIssue(run,
              AllOf(HasSubstr("waits in vote.sync.ballot: lanes 0x3fffffff of mask 0xffffffff are there"),
                    HasSubstr("2 threads (first: warp 0 lane 30): returned")));
  KernelRun<Values> mixed(
      d,
      [](Values &) {
        if (qsim_laneid() < 16)
          qsim_ballot(~0u, 1);
        else
          qsim_shfl_idx(~0u, 0, 0, 31);
      },
      32);
  expectIssue(mixed, AllOf(HasSubstr("[warp]"), HasSubstr("while other lanes of the warp wait in")));
  KernelRun<Values> absent(d, [](Values &) { qsim_shfl_idx(1, 0, 0, 31); }, 32);
  expectIssue(absent, HasSubstr("lacks the executing lane"));
}

TEST(SimWarp, OnlySyncwarpOrdersMemoryInTheStrictModel) {
  Values d{};
  d.how = 1;
  KernelRun<Values> sync(d, [](Values &d) { exchangeKernel(d, [] { qsim_syncwarp(~0u); }); }, 32);
  sync.options.convergence = false;
  expectClean(sync, [&] {
    for (uint32_t t = 0; t < 32; ++t) ASSERT_EQ(d.out[t], (t + 1) % 32 * 3);
  });
  KernelRun<Values> vote(d, [](Values &d) { exchangeKernel(d, [] { qsim_ballot(~0u, 1); }); }, 32);
  expectClean(vote, [] {});
  vote.options.convergence = false;
  expectIssue(vote, HasSubstr("[race]"));
}

TEST(SimShared, UninitialisedMisalignedAndOutside) {
  Values d{};
  auto text = [&](void (*kernel)(Values &), const char *expected) {
    expectIssue(KernelRun<Values>(d, kernel, 32, 256), HasSubstr(expected));
  };
  text([](Values &) { loadShared(smem<uint32_t>(16)); }, "[uninitialised] CTA 0, warp 0 lane");
  text([](Values &) { qsim_shared(smem(4), 8, 1); }, "st.shared of 8 bytes at smem+0x4");
  text([](Values &) { qsim_shared(smem(256), 4, 0); },
       "ld.shared: 4 bytes at smem+0x100 are outside the CTA's 256 bytes");
  text([](Values &) { qsim_shared(smem(0) - 4, 4, 0); }, "ld.shared: 4 bytes at smem+0x-4 are outside");
  text([](Values &d) { qsim_shared(&d, 4, 0); }, "outside the CTA's 256 bytes");
}

TEST(SimShared, StaticVariables) {
  Values d{};
  KernelRun<Values> run(
      d,
      [](Values &d) {
        auto *counts = static_cast<uint32_t *>(qsim_smem_static(7, 128, 4));
        auto *total = static_cast<uint64_t *>(qsim_smem_static(9, 8, 8));
        const uint32_t t = qsim_tid_x();
        if (t < 32) storeShared(&counts[t], 0u);
        if (t == 0) storeShared(total, uint64_t(0));
        if (d.how != 1) qsim_syncthreads();
        qsim_atomic(&counts[t % 32], 4, 3);
        counts[t % 32] += t;
        qsim_atomic(total, 8, 3);
        *total += t;
        qsim_syncthreads();
        if (t < 32) storeGlobal(&d.out[t], loadShared(&counts[t]));
        if (t == 0) storeGlobal(&d.out[32], uint32_t(loadShared(total)));
        if (d.how == 2) loadShared(counts + 40);
      },
      96, 0);
  expectClean(run, [&] {
    for (uint32_t t = 0; t < 32; ++t) ASSERT_EQ(d.out[t], 3 * t + 96);
    ASSERT_EQ(d.out[32], 95u * 96 / 2);
  });
  d.how = 1; // an atomic against the plain store that zeroes
  expectIssue(run, AllOf(HasSubstr("[race]"), HasSubstr("at static ")));
  d.how = 2; // beyond the variable and all others
  expectIssue(run, HasSubstr("[bounds]"));
  KernelRun<Values> large(d, [](Values &) { qsim_smem_static(1, 50000, 4); }, 32);
  expectIssue(large, HasSubstr("static shared variables take 50000 bytes: at most 49152 exist"));
}

TEST(SimRegisters, ThePoolOfACta) {
  Values d{};
  // 384 threads start with 168; the producer gives back 128 * 128, of which two consumers take 128 * 64 each.
  auto kernel = [](Values &d) {
    if (qsim_tid_x() < 128)
      qsim_setmaxnreg(40, 0);
    else
      qsim_setmaxnreg(d.how, 1);
  };
  KernelRun<Values> run(d, kernel, 384);
  d.how = 232;
  expectClean(run, [] {});
  d.how = 240;
  expectIssue(run, AllOf(HasSubstr("[deadlock]"), HasSubstr("waits in setmaxnreg.inc 240 (it has 168)")));
  d.how = 160;
  expectIssue(run, HasSubstr("setmaxnreg.inc 160: the warp has 168 registers per thread"));
}

} // namespace
} // namespace sim_tests
