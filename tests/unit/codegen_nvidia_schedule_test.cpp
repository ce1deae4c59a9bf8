// The GPU schedule record: what parses, what is refused and why, registers and shared memory.
#include "codegen/gpu/Schedule.h"
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <random>

namespace quern::gpu {
namespace {

TEST(GpuSchedule, TheDefaultIsLegalAndPrints) {
  Schedule s;
  EXPECT_TRUE(s.validate());
  EXPECT_EQ(s.str(), "sm_90a bm=128 bn=256 stages=5 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 "
                     "split=1");
  EXPECT_EQ(s.consumers(), 2);
  EXPECT_EQ(s.threads(), 384);
}

TEST(GpuSchedule, EveryLegalRecordRoundTrips) {
  uint64_t seed = std::random_device()();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937_64 random(seed);
  auto pick = [&](std::initializer_list<int64_t> values) {
    return *(values.begin() + random() % values.size());
  };
  int legal = 0, refused = 0;
  for (int i = 0; i < 50000; ++i) {
    Schedule s;
    s.bm = pick({64, 128, 192}), s.bn = pick({8, 16, 32, 64, 96, 128, 160, 192, 224, 256});
    s.stages = pick({2, 3, 4, 5, 6, 8, 16}), s.cluster = pick({1, 1, 2, 4}), s.split = pick({1, 1, 2, 4});
    s.gather = random() % 2 ? Gather::Sorted : Gather::Fused;
    s.decode = Decode(random() % 4);
    s.regs = pick({104, 152, 160, 208, 232, 240}), s.producerRegs = pick({24, 32, 40}),
    s.ctas = pick({1, 2, 3});
    auto back = Schedule::parse(s.str(), Schedule());
    ASSERT_EQ(bool(back), bool(s.validate())) << s.str();
    if (!back) {
      ++refused;
      continue;
    }
    ++legal;
    EXPECT_EQ(*back, s);
    EXPECT_EQ(back->str(), s.str());
    EXPECT_LE(s.ctas * 128 * (s.consumers() * s.regs + s.producerRegs), 65536) << s.str();
    EXPECT_LE(s.ctas * (s.smemBytes(1024, 1) + 1024), 228 * 1024) << s.str();
    // setmaxnreg.inc and .dec may only go where their names say.
    EXPECT_LE(s.launchRegs(), s.regs) << s.str();
    EXPECT_GE(s.launchRegs(), s.producerRegs) << s.str();
  }
  EXPECT_GT(legal, 500);
  EXPECT_GT(refused, 500);
}

TEST(GpuSchedule, PartialLinesKeepTheRest) {
  Schedule base;
  base.bn = 128, base.decode = Decode::Fast;
  auto s = Schedule::parse("cluster=2 regs=224/48", base);
  ASSERT_TRUE(s);
  EXPECT_EQ(s->str(), "sm_90a bm=128 bn=128 stages=5 cluster=2 gather=sorted decode=fast regs=224/48 ctas=1 "
                      "split=1");
  for (const char *text : {"", "  ", "sm_90a", " sm_90a \t\n"}) {
    auto same = Schedule::parse(text, base);
    ASSERT_TRUE(same) << text;
    EXPECT_EQ(*same, base);
  }
  auto repeated = Schedule::parse("bn=64 bn=96", base); // the last one counts
  ASSERT_TRUE(repeated);
  EXPECT_EQ(repeated->bn, 96);
}

TEST(GpuSchedule, EachRefusalNamesItsReason) {
  const std::pair<const char *, const char *> cases[] = {
      {"cpu bn=64", "'cpu' is not sm_90a, the target of this schedule"},
      {"sm_80", "'sm_80' is not sm_90a, the target of this schedule"},
      {"bn=64 sm_90a", "unknown field 'sm_90a'; the fields are those of \"sm_90a bm=128"},
      {"wave=3", "unknown field 'wave'; the fields are those of \"sm_90a bm=128"},
      {"bn=wide", "field 'bn' needs an integer, found 'wide'"},
      {"bn=", "field 'bn' needs an integer, found ''"},
      {"sm_90a bn", "field 'bn' needs an integer, found ''"},
      {"stages=4.0", "field 'stages' needs an integer, found '4.0'"},
      {"ctas=99999999999999999999", "field 'ctas' needs an integer"},
      {"gather=tma", "gather 'tma' is not one of sorted, fused"},
      {"decode=bf16", "decode 'bf16' is not one of exact, fast, pairs, ahead"},
      {"regs=232", "field 'regs' needs CONSUMER/PRODUCER, two integers, found '232'"},
      {"regs=232/", "field 'regs' needs CONSUMER/PRODUCER, two integers, found '232/'"},
      {"regs=/40", "field 'regs' needs CONSUMER/PRODUCER, two integers, found '/40'"},
      {"regs=232/40/8", "field 'regs' needs CONSUMER/PRODUCER, two integers, found '232/40/8'"},
      {"bm=32", "bm: must be 64, 128 or 192"},
      {"bm=256", "bm: must be 64, 128 or 192"},
      {"bn=24", "bn: must be 8, 16 or a multiple of 32 up to 256"},
      {"bn=0", "bn: must be 8, 16 or a multiple of 32 up to 256"},
      {"bn=288", "bn: must be 8, 16 or a multiple of 32 up to 256"},
      {"stages=1", "stages: must be 2..16"},
      {"stages=17", "stages: must be 2..16"},
      {"cluster=3", "cluster: must be 1, 2, 4 or 8"},
      {"split=0", "split: must be 1, 2, 4 or 8"},
      {"split=16", "split: must be 1, 2, 4 or 8"},
      {"ctas=0", "ctas: must be 1..4"},
      {"ctas=5", "ctas: must be 1..4"},
      {"regs=228/40", "regs: must be multiples of 8 in 24..240"},
      {"regs=248/40", "regs: must be multiples of 8 in 24..240"},
      {"regs=232/16", "regs: must be multiples of 8 in 24..240"},
      {"regs=232/41", "regs: must be multiples of 8 in 24..240"},
      {"regs=40/232", "regs: the producer may not have more than a consumer"},
      {"cluster=2 gather=fused",
       "cluster: rows gathered by cp.async cannot be multicast; use gather=sorted or cluster=1"},
      {"cluster=2 split=2",
       "split: the CTAs of a cluster share either the tokens or the range of K; use cluster=1"},
      {"bm=192 regs=240/24", "regs: 3 consumer warpgroups of 240 and one of 24 registers need 95232 of the "
                             "register file; 1 resident CTA of 512 threads can have 65536"},
      {"ctas=2",
       "regs: 2 consumer warpgroups of 232 and one of 40 registers need 64512 of the register file; 2 "
       "resident CTAs of 384 threads can have 30720 each"},
      {"regs=240/40", "regs: 2 consumer warpgroups of 240 and one of 40 registers need 66560 of"},
      {"bm=192 regs=160/32", "bn: 128 accumulators of a thread leave less than 64 of its 160 registers"},
      {"bm=192 bn=192 stages=3 regs=152/40",
       "bn: 96 accumulators of a thread leave less than 64 of its 152 registers"},
      {"split=2 bn=160",
       "split: a CTA would spill a peer's sums of more than 128 tokens beside its own; use bn=128"},
      {"split=2 bn=128 stages=8",
       "stages: 8 stages, 65536 bytes of partial sums (split) and the table of 1024 "
       "experts need 266624 bytes of shared memory; 1 resident CTA can have 232448 (in"},
      {"stages=7", "stages: 7 stages and the table of 1024 experts need 291072 bytes of shared memory; 1 "
                   "resident CTA can have 232448 (in"},
      {"decode=ahead", "stages: 5 stages and the table of 1024 experts need 250112 bytes of shared memory; 1 "
                       "resident CTA can have 232448 (in"},
      {"ctas=2 bm=64 bn=256 stages=3 regs=216/40",
       "bn: 128 accumulators of a thread leave less than 30 of the 128 registers that it is launched with"},
      {"ctas=2 bm=64 bn=64 stages=12 regs=152/32",
       "stages: 12 stages and the table of 1024 experts need 151936 bytes of shared memory; 2 resident CTAs "
       "can have 115712 each (in"},
  };
  for (auto [text, message] : cases) {
    auto s = Schedule::parse(text, Schedule());
    ASSERT_FALSE(s) << text;
    EXPECT_EQ(s.error().kind, ErrorKind::User);
    EXPECT_EQ(s.error().place, "schedule");
    EXPECT_EQ(s.error().message.rfind(message, 0), 0u) << text << ": " << s.error().message;
  }
}

/// As ptxas reports them for generated kernels.
TEST(GpuSchedule, RegistersAtLaunch) {
  for (auto [text, registers] : {std::pair{"", 168},
                                 {"bn=64 regs=152/72", 152},
                                 {"bm=64 bn=64", 232},
                                 {"bm=64 bn=64 regs=240/40", 240},
                                 {"bm=192 bn=96 regs=152/40", 128},
                                 {"bn=32 ctas=2 regs=104/32", 80},
                                 {"bm=64 bn=16 ctas=4 regs=72/24", 64}}) {
    auto s = Schedule::parse(text, Schedule());
    ASSERT_TRUE(s) << s.error().str();
    EXPECT_EQ(s->launchRegs(), registers) << text;
  }
}

TEST(GpuSchedule, SharedMemory) {
  Schedule s;
  // 5 stages of 256 x 64 activations, 128 x 32 bytes of codes, 128 tables of 32 bytes; 10 barriers; 33
  // offsets; 33 sums.
  EXPECT_EQ(s.smemBytes(32, 1), (5 * (32768 + 4096 + 4096) + 80 + 132 + 132 + 127) / 128 * 128);
  EXPECT_EQ(s.smemBytes(32, 2) - s.smemBytes(32, 1), 5 * 4096);
  EXPECT_EQ(s.smemBytes(32, 2, true), s.smemBytes(32, 2)) << "zero points are in the tables";
  s.decode = Decode::Fast; // scales as they are
  EXPECT_EQ(s.smemBytes(32, 1), (5 * (32768 + 4096 + 512) + 80 + 132 + 132 + 127) / 128 * 128);
  EXPECT_EQ(s.smemBytes(32, 2, true) - s.smemBytes(32, 2), 5 * 2 * 512);
  EXPECT_EQ(s.smemBytes(32 + 32, 1) - s.smemBytes(32, 1), 128);
  Schedule split = s;
  split.bn = s.bn = 32, split.split = 2;          // two barriers and 128 x 32 sums
  for (int64_t experts : {0, 27, 28, 29, 30, 31}) // two barriers take the room of four offsets
    EXPECT_EQ(split.smemBytes(experts, 1), s.smemBytes(experts + 4, 1) + 128 * 32 * 4);
  s.bn = 256;
  EXPECT_EQ(s.smemLimit(), 227 * 1024);
  s.ctas = 2;
  EXPECT_EQ(s.smemLimit(), 113 * 1024);
}

/// Decoded weights take 128 bytes a row and step where codes take 32, and have no scales.
TEST(GpuSchedule, StagesOfDecodedWeights) {
  Schedule s;
  s.decode = Decode::Ahead;
  EXPECT_EQ(s.smemBytes(32, 1), (5 * (32768 + 16384) + 80 + 132 + 132 + 127) / 128 * 128);
  EXPECT_EQ(s.smemBytes(32, 2), s.smemBytes(32, 1));
  EXPECT_FALSE(s.validate());
  s.fitStages();
  EXPECT_EQ(s.stages, 4);
  EXPECT_TRUE(s.validate());
  s.stages = 3, s.fitStages();
  EXPECT_EQ(s.stages, 3) << "no more than asked for";
  for (int64_t bn : {64, 128, 224}) {
    s.bn = bn, s.stages = 16, s.fitStages();
    EXPECT_TRUE(s.validate()) << bn;
    ++s.stages;
    EXPECT_FALSE(s.validate()) << bn << ": the deepest that fits";
  }
}

TEST(GpuSchedule, TheTableOfManyExpertsIsCounted) {
  auto s = Schedule::parse("stages=6 decode=fast", Schedule());
  ASSERT_TRUE(s) << s.error().str();
  EXPECT_TRUE(s->checkSmem(1024, 1));
  Status tooMany = s->checkSmem(4096, 1);
  ASSERT_FALSE(tooMany);
  EXPECT_EQ(
      tooMany.error().message,
      "stages: 6 stages and the table of 4096 experts need 240896 bytes of shared memory; 1 resident CTA can "
      "have 232448 (in \"sm_90a bm=128 bn=256 stages=6 cluster=1 gather=sorted decode=fast regs=232/40 "
      "ctas=1 split=1\")");
  EXPECT_FALSE(s->checkSmem(1024, 3));
}

} // namespace
} // namespace quern::gpu
