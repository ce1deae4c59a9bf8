// The space: legal, bit-preserving, each point with a reason, and in the same order everywhere.
#include "codegen/cpu/Schedule.h"
#include "codegen/gpu/Schedule.h"
#include "compiler/syntax/Syntax.h"
#include "runtime/tune/CpuSpace.h"
#include <gtest/gtest.h>
#include <set>

namespace quern::tune {
namespace {

Problem problemOf(const char *file, const char *kernel, std::map<std::string, int64_t> dims,
                  const char *target) {
  Problem p;
  p.program = *syntax::parseProgram(*syntax::shippedFile(file), file);
  p.kernel = kernel, p.dims = std::move(dims), p.target = target;
  return p;
}

std::vector<Candidate> ranked(const Problem &p) {
  auto space = rank(p);
  EXPECT_TRUE(space) << space.error().str();
  return space ? *space : std::vector<Candidate>{};
}

TEST(TuneSpace, EveryPointHasAVerdictAndAReason) {
  for (const char *target : {"sm_90a", "cpu"}) {
    auto problem = problemOf("gpt_oss", "gate_up",
                             {{"T", 256}, {"E", 32}, {"N", 5760}, {"K", 2880}, {"top_k", 4}}, target);
    auto request = *requestOf(problem);
    std::set<std::string> schedules;
    int kept = 0, illegal = 0, pruned = 0;
    double before = 0;
    for (const Candidate &c : ranked(problem)) {
      EXPECT_FALSE(c.reason.empty()) << c.schedule;
      if (c.verdict == Verdict::Default) continue;
      EXPECT_TRUE(schedules.insert(c.schedule).second) << c.schedule << " twice";
      kept += c.verdict == Verdict::Kept, illegal += c.verdict == Verdict::Illegal,
          pruned += c.verdict == Verdict::Pruned;
      if (c.verdict == Verdict::Illegal) continue;
      EXPECT_TRUE(checkTunable(request, c.schedule)) << c.schedule;
      EXPECT_GE(c.predictedUs, before) << c.schedule;
      before = c.predictedUs;
    }
    EXPECT_GT(kept, 5) << target;
    EXPECT_LE(kept, Options().maxCandidates);
    EXPECT_GT(illegal, 0) << target;
    EXPECT_GT(pruned, 0) << target;
  }
}

TEST(TuneSpace, IllegalReasonsAreThoseOfTheSchedule) {
  auto space = ranked(problemOf("gpt_oss", "gate_up",
                                {{"T", 256}, {"E", 32}, {"N", 5760}, {"K", 2880}, {"top_k", 4}}, "sm_90a"));
  auto reasonOf = [&](std::string_view part) -> std::string {
    for (const Candidate &c : space)
      if (c.verdict == Verdict::Illegal && c.schedule.find(part) != c.schedule.npos) return c.reason;
    return "legal";
  };
  EXPECT_NE(reasonOf("cluster=2 gather=fused").find("cannot be multicast"), std::string::npos);
  EXPECT_NE(reasonOf("bn=256 stages=3 cluster=1 gather=sorted decode=exact ctas=2").find("accumulators"),
            std::string::npos)
      << reasonOf("bn=256 stages=3 cluster=1 gather=sorted decode=exact ctas=2");
}

/// Dequantize and a matmul on 16-bit weights: for many rows per expert it pays, for few it is a reason to
/// read.
TEST(TuneSpace, DecodingAheadIsACandidateOfManyRows) {
  auto aheadOf = [](int64_t tokens, Verdict verdict) {
    std::vector<Candidate> found;
    for (const Candidate &c :
         ranked(problemOf("gpt_oss", "gate_up",
                          {{"T", tokens}, {"E", 32}, {"N", 5760}, {"K", 2880}, {"top_k", 4}}, "sm_90a")))
      if (c.schedule.find("decode=ahead") != c.schedule.npos && c.verdict == verdict) found.push_back(c);
    return found;
  };
  EXPECT_FALSE(aheadOf(65536, Verdict::Kept).empty());
  EXPECT_TRUE(aheadOf(256, Verdict::Kept).empty());
  auto pruned = aheadOf(256, Verdict::Pruned);
  ASSERT_FALSE(pruned.empty());
  for (const Candidate &c : pruned) {
    EXPECT_NE(c.reason.find("us of it to decode all weights before, into 10"), std::string::npos) << c.reason;
    EXPECT_NE(c.reason.find("times the best prediction"), std::string::npos) << c.reason;
  }
}

TEST(TuneSpace, HalvedPairsKeepTheirTile) {
  for (const Candidate &c : ranked(problemOf(
           "qwen3", "gate_up", {{"T", 64}, {"E", 8}, {"N", 1536}, {"K", 2048}, {"top_k", 2}}, "sm_90a")))
    if (c.verdict == Verdict::Kept) EXPECT_NE(c.schedule.find("bm=128"), std::string::npos) << c.schedule;
}

TEST(TuneSpace, NothingThatChangesBits) {
  // Of every instruction set: isa, dot, lanes and tile stay; with the tile kernel, segment too.
  for (const char *features :
       {"", "+avx2,+fma,+f16c",
        "+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512bf16,+amx-tile,+amx-bf16"}) {
    auto base = cpu::defaultSchedule(cpu::isaOf(features));
    Shape shape;
    shape.n = 512, shape.k = 512, shape.experts = 4, shape.rows = 64, shape.units = 4;
    int legal = 0;
    for (const Candidate &c : cpuSpace(shape, features)) {
      if (c.verdict == Verdict::Illegal) continue;
      auto s = cpu::Schedule::parse(c.schedule, base);
      ASSERT_TRUE(s) << c.schedule;
      EXPECT_TRUE(s->isa == base.isa && s->dot == base.dot && s->lanes == base.lanes && s->tile == base.tile)
          << c.schedule;
      if (base.tile) EXPECT_EQ(s->segment, base.segment) << c.schedule;
      EXPECT_TRUE(checkCpuTunable(features, c.schedule)) << c.schedule;
      ++legal;
    }
    EXPECT_GT(legal, 100);
  }
  const char *amx = "+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512bf16,+amx-tile,+amx-bf16";
  for (const char *schedule : {"dot=f32 isa=avx512", "tile=0", "tile=8", "segment=256", "isa=avx512bf16"})
    EXPECT_FALSE(checkCpuTunable(amx, schedule)) << schedule;
}

TEST(TuneSpace, UserErrorsNameTheMistake) {
  auto problem = problemOf("gpt_oss", "gate_up", {{"T", 16}}, "cpu");
  problem.kernel = "gate";
  EXPECT_EQ(rank(problem).error().message, "there is no kernel 'gate'");
  problem = problemOf("gpt_oss", "gate_up", {{"Q", 16}}, "cpu");
  EXPECT_NE(rank(problem).error().message.find("has no dimension 'Q'"), std::string::npos);
  problem = problemOf("gpt_oss", "gate_up", {}, "tpu");
  EXPECT_NE(rank(problem).error().message.find("expected cpu, sim, cuda or sm_90a"), std::string::npos);
}

} // namespace
} // namespace quern::tune
