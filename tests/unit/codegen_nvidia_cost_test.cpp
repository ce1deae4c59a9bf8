// The cost model against figures worked out by hand, and its directions: more of a resource never costs time.
#include "codegen/gpu/CostModel.h"
#include <gtest/gtest.h>

namespace quern::gpu {
namespace {

const Device &h200 = *findDevice("h200");

Schedule with(const char *text) {
  auto s = Schedule::parse(text, Schedule());
  EXPECT_TRUE(s) << s.error().str();
  return s ? *s : Schedule();
}

TEST(CostModel, TheWidestTileByHand) {
  StepBudget b = stepBudget(Schedule(), 256, h200, decodeCounts(Decode::Fast));
  EXPECT_EQ(b.tensor, 1024);   // 8 wgmma of 128 clocks
  EXPECT_NEAR(b.alu, 376, 24); // 22 to 25 instructions per 8 of 8192 codes, 64 lanes
  // 2 x 32 KB read by wgmma, 36.5 KB written, 4.5 KB read by the decoders, at 128 bytes a clock.
  EXPECT_EQ(b.smem, (65536 + 37376 + 4608) / 128);
  EXPECT_EQ(b.limiter(), "l2") << "7 TB/s would be needed";
  EXPECT_EQ(stepBudget(with("cluster=2"), 256, h200, decodeCounts(Decode::Fast)).limiter(), "tensor");
  StepBudget exact = stepBudget(Schedule(), 256, h200, decodeCounts(Decode::Exact));
  EXPECT_GT(exact.alu, b.alu);
  EXPECT_EQ(exact.smem, b.smem + 12 * 256 / 32) << "12 shuffles of a thread";
  // 790 TFLOP/s need 6.9 TB/s from L2; with the token tile shared by two CTAs 3.9.
  auto demand = [&](const char *schedule) {
    StepBudget at = stepBudget(with(schedule), 256, h200, decodeCounts(Decode::Fast));
    return at.l2 / at.tensor * h200.l2TBs;
  };
  EXPECT_NEAR(demand("cluster=1"), 7.0, 0.1);
  EXPECT_NEAR(demand("cluster=2"), 3.95, 0.05);
}

TEST(CostModel, NarrowTilesAreLimitedByTheirDecode) {
  StepCounts fast = decodeCounts(Decode::Fast), busy = fast;
  busy.other = 1000;
  Schedule pair = with("cluster=2");
  EXPECT_EQ(stepBudget(pair, 64, h200, fast).limiter(), "alu");
  EXPECT_EQ(stepBudget(pair, 128, h200, fast).limiter(), "tensor");
  EXPECT_EQ(stepBudget(pair, 64, h200, busy).limiter(), "issue");
  EXPECT_EQ(stepBudget(pair, 8, h200, {}).tensor, 128) << "eight of the narrowest wgmma";
}

TEST(CostModel, WidthsAreBalanced) {
  Schedule wide, narrow = with("bn=32");
  EXPECT_EQ(tileWidth(wide, 1), 32);
  EXPECT_EQ(tileWidth(wide, 256), 256);
  EXPECT_EQ(tileWidth(wide, 257), 160) << "two tiles of 129 rows";
  EXPECT_EQ(tileWidth(wide, 600), 224) << "three tiles of 200";
  EXPECT_EQ(tileWidth(narrow, 3), 8);
  EXPECT_EQ(tileWidth(narrow, 9), 16);
  EXPECT_EQ(tileWidth(narrow, 17), 32);
  EXPECT_EQ(tileWidth(narrow, 33), 32) << "two tiles of 17";
}

TEST(CostModel, TimesAreWhereTheKernelPlanExpectsThem) {
  auto at = [&](int64_t rows, const char *schedule) {
    Schedule s = with(schedule);
    return predict(s, {5760, 2880, 32, rows}, h200, decodeCounts(s.decode));
  };
  Prediction many = at(1024, "cluster=2 decode=fast");
  EXPECT_GT(many.tflops, 600);
  EXPECT_LT(many.tflops, 790);
  EXPECT_EQ(many.limiter, "tensor");
  Prediction some = at(128, "bn=128 cluster=2 decode=fast");
  EXPECT_GT(some.tflops, 450);
  EXPECT_LT(some.tflops, many.tflops);
  Prediction few = at(64, "bn=64 cluster=2 decode=fast");
  EXPECT_GT(few.tflops, 350);
  EXPECT_LT(few.tflops, 500);
  EXPECT_EQ(few.limiter, "alu");
  Prediction fewExact = at(64, "bn=64 cluster=2 decode=exact");
  EXPECT_LT(fewExact.tflops, few.tflops);
}

TEST(CostModel, DecodingTokensOneByOneIsLimitedByMemory) {
  Prediction one =
      predict(with("bn=8 stages=8 decode=fast"), {5760, 2880, 32, 1}, h200, decodeCounts(Decode::Fast));
  // 265 MB of codes and 33 MB of scales.
  EXPECT_NEAR(one.hbmUs - 2, (265.4 + 33.2 + 0.6) / 4.3, 1);
  EXPECT_LE(one.hbmTBs, h200.hbmTBs);
}

TEST(CostModel, MoreNeverCostsMore) {
  Workload work{2880, 2880, 32, 300};
  Schedule s;
  StepCounts counts = decodeCounts(s.decode);
  double before = predict(s, work, h200, counts).us;
  for (auto change : {+[](Device &d) { d.sms *= 2; }, +[](Device &d) { d.hbmTBs *= 2; },
                      +[](Device &d) { d.l2TBs *= 2; }, +[](Device &d) { d.clockGHz *= 1.2; }}) {
    Device better = h200;
    change(better);
    // With more SMs or clocks at the same L2 rate, L2 may take over, but time does not grow.
    EXPECT_LE(predict(s, work, better, counts).us, before * 1.0001);
  }
  for (auto change : {+[](Workload &w) { w.rows += 256; }, +[](Workload &w) { w.k *= 2; },
                      +[](Workload &w) { w.n *= 2; }, +[](Workload &w) { w.experts *= 2; }}) {
    Workload larger = work;
    change(larger);
    EXPECT_GT(predict(s, larger, h200, counts).us, before);
  }
}

TEST(CostModel, TooFewTilesAreNamed) {
  Prediction p = predict(Schedule(), {256, 65536, 1, 256}, h200, decodeCounts(Decode::Exact));
  EXPECT_EQ(p.tiles, 2);
  EXPECT_EQ(p.limiter, "too few tiles");
  EXPECT_EQ(findDevice("b200"), nullptr);
  EXPECT_EQ(deviceNames(), "h200, h100");
}

} // namespace
} // namespace quern::gpu
