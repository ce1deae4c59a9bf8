// wgmma, mbarriers and tensor map copies in a pipeline: exact results, and every hazard that can be planted.
#include "sim_gemm.h"
#include <memory>

namespace sim_tests {
namespace {

TEST(SimWgmma, EveryShapeIsExact) {
  auto g = std::make_unique<Gemm>();
  for (uint32_t n = 8; n <= 256; n += 8) {
    fillGemm(*g, n, n / 8 % 2, n);
    Report report = gemmRun(*g)(n);
    ASSERT_TRUE(report.ok()) << "n=" << n << "\n" << report.str();
    EXPECT_EQ(report.wgmmas, gemmSteps * 4);
    EXPECT_EQ(report.copies, gemmSteps);
    checkGemm(*g);
    if (HasFailure()) break;
  }
}

TEST(SimWgmma, CleanUnderEverySchedule) {
  auto g = std::make_unique<Gemm>();
  for (bool isF16 : {false, true}) {
    fillGemm(*g, 24, isF16);
    expectClean(gemmRun(*g), [&] { checkGemm(*g); });
  }
}

TEST(SimWgmma, WithoutDetectorsTheResultIsTheSame) {
  auto g = std::make_unique<Gemm>();
  fillGemm(*g, 64, false);
  KernelRun<Gemm> run = gemmRun(*g);
  run.options.happensBefore = run.options.tokens = run.options.poison = run.options.bounds =
      run.options.rehash = false;
  expectClean(run, [&] { checkGemm(*g); });
}

struct Hazard {
  Plant plant;
  const char *text;  // what the report must say
  const char *where; // who or where
};

class SimHazard : public testing::TestWithParam<Hazard> {};

TEST_P(SimHazard, IsReported) {
  auto g = std::make_unique<Gemm>();
  fillGemm(*g, 16, false);
  g->plant = GetParam().plant;
  expectIssue(gemmRun(*g), AllOf(HasSubstr(GetParam().text), HasSubstr(GetParam().where)));
}

INSTANTIATE_TEST_SUITE_P(
    Planted, SimHazard,
    testing::Values(
        Hazard{Plant::NoFullWait, "wgmma reads smem+0x", "CTA 0, consumer warp"},
        Hazard{Plant::WrongFullParity, "", "consumer"},
        Hazard{Plant::WrongEmptyParity,
               "waits for parity 0 of the mbarrier at smem+0x1010: phase 0 has 0 of 4 arrivals",
               "[deadlock]"},
        Hazard{Plant::FewBytes, "phase 0: 16 bytes more arrived than its expect_tx announced", "[tx-bytes]"},
        Hazard{Plant::ManyBytes, "phase 0 has 1 of 1 arrivals and lacks 16 bytes",
               "128 threads of consumer (first: warp 4 lane 0)"},
        Hazard{Plant::EarlyRelease, "which wgmma group",
               "[race] CTA 0, producer warp 0 lane 0: cp.async.bulk.tensor overwrites smem+0x"},
        Hazard{Plant::ReleaseOnce, "may still read: that warp must wait for the group", "consumer warp 5"},
        Hazard{Plant::NoInitFence, "was not followed by fence.mbarrier.init",
               "[proxy-fence] CTA 0, producer"},
        Hazard{Plant::NoInitSync, "[mbarrier] CTA 0, consumer warp", "mbarrier.try_wait"},
        Hazard{Plant::NoWgmmaFence, "wgmma without any wgmma.fence before it",
               "[wgmma-fence] CTA 0, consumer"},
        Hazard{Plant::LateA, "A register 1 of a wgmma was written after the last wgmma.fence",
               "[wgmma-fence]"},
        Hazard{Plant::LateAccumulator, "accumulators of a wgmma were written after the last wgmma.fence",
               "[wgmma-fence]"},
        Hazard{Plant::NoWgmmaWait,
               "an accumulator register of wgmma number 19 is used before wgmma.wait covers it",
               "[accumulator] CTA 0, consumer"},
        Hazard{Plant::NoCommit, "an accumulator register of wgmma number 19 is used before",
               "the CTA ends while a wgmma of consumer warp 4 is in flight"},
        Hazard{Plant::TwoUses, "used after a later wgmma accumulated onto it", "[accumulator]"},
        Hazard{Plant::StoreToB, "st.shared overwrites smem+0x", "which wgmma group"},
        Hazard{Plant::OneWarpFewer, "executed different sequences of wgmma, fence, commit and wait",
               "consumer warp 6 lane 0"},
        Hazard{Plant::OneCopyMore, "nobody waited for the last phase of the mbarrier at smem+0x1008",
               "[exit] CTA 0"},
        Hazard{Plant::DoubleArrive, "phase 0 already has its 1 arrivals and waits for 2048 bytes",
               "[mbarrier] CTA 0, producer"},
        Hazard{Plant::OverwriteMbarrier, "the mbarrier at smem+0x1000 was overwritten", "[mbarrier]"},
        Hazard{Plant::NoEmptyWait, "phase 0 already has its 1 arrivals and waits for 2048 bytes",
               "[mbarrier] CTA 0, producer"},
        Hazard{Plant::BadDescriptor, "is not aligned to the 1024-byte pattern of its swizzle", "[wgmma]"},
        Hazard{Plant::DescriptorOutside, "outside the CTA's 4160 bytes", "[bounds]"}));

TEST(SimWgmma, ChangedOperandIsSeenWithoutTheRaceDetector) {
  auto g = std::make_unique<Gemm>();
  fillGemm(*g, 16, false);
  g->plant = Plant::StoreToB;
  KernelRun<Gemm> run = gemmRun(*g);
  run.options.happensBefore = false;
  expectIssue(run, AllOf(HasSubstr("[operand-changed]"), HasSubstr("B at smem+0x"), HasSubstr("n=0 k=0")));
}

TEST(SimWgmma, OneReleasePerWarpgroupIsAnOption) {
  auto g = std::make_unique<Gemm>();
  fillGemm(*g, 16, false);
  g->plant = Plant::ReleaseOnce;
  KernelRun<Gemm> run = gemmRun(*g);
  run.options.warpWait = false;
  expectClean(run, [&] { checkGemm(*g); });
}

// Lanes exchange words around a wgmma: its convergence orders them, unless the strict model is asked for.
TEST(SimWgmma, OrdersTheLanesOfAWarp) {
  auto g = std::make_unique<Gemm>();
  fillGemm(*g, 8, false);
  KernelRun<Gemm> run(
      *g,
      [](Gemm &) {
        const uint32_t t = qsim_tid_x();
        for (uint32_t i = t; i < 8 * 32; i += 128) storeShared(smem<uint32_t>(i * 4), 0u);
        qsim_fence_proxy_async();
        qsim_syncthreads();
        storeShared(smem<uint32_t>(1024 + t * 4), t);
        float acc[4] = {};
        const uint32_t a[4] = {};
        qsim_wgmma_fence(acc, 4, a, 4);
        qsim_wgmma(0, 8, acc, a, descriptor(smem(0)));
        qsim_wgmma_commit();
        qsim_wgmma_wait(0, acc, 4);
        loadShared(smem<uint32_t>(1024 + (t ^ 1) * 4));
      },
      128);
  expectClean(run, [] {});
  run.options.convergence = false;
  expectIssue(run, AllOf(HasSubstr("[race]"), HasSubstr("is not ordered after")));
}

} // namespace
} // namespace sim_tests
