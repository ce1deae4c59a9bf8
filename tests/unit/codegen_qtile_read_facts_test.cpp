// From a resolved kernel to facts, parameters and writes; and what the GPU target does not take.
#include "codegen/gpu/ReadFacts.h"
#include <gtest/gtest.h>

namespace quern::gpu {
namespace {

using Kind = jit::GpuParam::Kind;
using syntax::Param;
using syntax::RowAccess;

/// x[T, K], routing, w[E, N, K], b[E, N] -> h[R, columns]; the write reads column `mul` j + `offset` for each
/// entry.
cpu::Problem layer(int64_t n, int64_t k, int64_t columns, std::vector<std::pair<int64_t, int64_t>> places) {
  cpu::Problem p;
  p.act = DType::BF16, p.routing = 1;
  p.operands.resize(5);
  for (cpu::Operand &o : p.operands) o.dtype = DType::BF16, o.rank = 2;
  p.operands[1].kind = Param::Routing;
  cpu::Operand &w = p.operands[2];
  w.kind = Param::Packed, w.rank = 3, w.layout = Layout::Gpu, w.dtype = DType::F16;
  w.codec.highFirst = false, w.codec.scale = syntax::ScaleType::BF16, w.block = 128;
  for (int i = 0; i < 16; ++i) w.codec.table[i] = float(i) - 8;
  p.contractions.push_back({0, -1, RowAccess::Token, 2, true, n, k});
  cpu::Write write;
  write.output = 4, write.columns = columns;
  for (auto [mul, offset] : places)
    write.reads.push_back({cpu::Read::OfContraction, 0, RowAccess::Row, true, mul, offset});
  write.reads.push_back({cpu::Read::OfTensor, 3, RowAccess::Expert, true, 1, 0});
  p.writes.push_back(std::move(write));
  return p;
}

std::vector<std::string> texts(const TileKernel &kernel) {
  std::vector<std::string> out;
  for (const jit::GpuParam &p : kernel.params) out.push_back(paramText(p));
  return out;
}

std::string reason(const cpu::Problem &p, const Schedule &s = {}) {
  auto tile = readTileKernel(p, s);
  return tile ? "" : tile.error().message;
}

TEST(QtileReadFacts, FactsOfALayer) {
  auto tile = readTileKernel(layer(256, 192, 256, {{1, 0}}), Schedule());
  ASSERT_TRUE(tile);
  const Facts &f = tile->facts;
  EXPECT_EQ(f.n, 256);
  EXPECT_EQ(f.k, 192);
  EXPECT_EQ(f.packed, 2);
  EXPECT_EQ(f.lhs, 0);
  EXPECT_EQ(f.pairing, Pairing::None);
  EXPECT_TRUE(f.routed && f.byExpert && f.byToken);
  EXPECT_EQ(f.state, DType::F16);
  EXPECT_EQ(f.block, 128);
  EXPECT_EQ(f.scale, syntax::ScaleType::BF16);
  EXPECT_FALSE(f.highFirst);
  EXPECT_EQ(f.table[15], 7);
  EXPECT_EQ(texts(*tile), (std::vector<std::string>{
                              "map 0 0", "codes 2 0", "scales 2 0", "offsets -1 0", "experts -1 0",
                              "rows -1 0", "token -1 0", "row_weight -1 0", "pointer 3 0", "stride 3 0",
                              "stride 3 1", "pointer 4 0", "stride 4 0", "stride 4 1"}));
  ASSERT_EQ(tile->writes.size(), 1u);
  EXPECT_EQ(tile->writes[0].reads[1].str(), "tensor 3 bf16 by expert column 1 0");
}

TEST(QtileReadFacts, ParametersFollowTheGatherTheZerosAndTheCombine) {
  Schedule fused;
  fused.gather = Gather::Fused;
  cpu::Problem p = layer(256, 192, 256, {{1, 0}});
  p.operands[2].codec.hasZero = true;
  p.writes[0].combine = true;
  auto tile = readTileKernel(p, fused);
  ASSERT_TRUE(tile);
  auto has = [&](const char *text) {
    return testing::AssertionResult(llvm::is_contained(texts(*tile), text));
  };
  EXPECT_TRUE(has("pointer 0 0"));
  EXPECT_TRUE(has("stride 0 0"));
  EXPECT_FALSE(has("map 0 0"));
  EXPECT_TRUE(has("zeros 2 0"));
  EXPECT_TRUE(has("partial -1 0"));
  EXPECT_FALSE(has("pointer 4 0")); // the combine's output is formed by another kernel
  ASSERT_EQ(tile->combine.size(), 1u);
  EXPECT_EQ(tile->combine[0].output, 4);
  Schedule fast;
  fast.decode = Decode::Fast;
  EXPECT_EQ(reason(p, fast), "decode=fast has no zero points; use decode=exact, pairs or ahead");
}

TEST(QtileReadFacts, WeightsDecodedAheadAreOneWorkspace) {
  Schedule ahead;
  ahead.decode = Decode::Ahead, ahead.stages = 4;
  cpu::Problem p = layer(256, 160, 128, {{1, 0}, {1, 128}});
  p.operands[2].codec.hasZero = true; // zero points are the decoder's affair
  auto tile = readTileKernel(p, ahead);
  ASSERT_TRUE(tile);
  EXPECT_TRUE(llvm::is_contained(texts(*tile), "decoded -1 0"));
  for (const char *packed : {"codes 2 0", "scales 2 0", "zeros 2 0"})
    EXPECT_FALSE(llvm::is_contained(texts(*tile), packed)) << packed;
  ASSERT_EQ(tile->decode.size(), 1u);
  const jit::DecodeStep &step = tile->decode[0];
  EXPECT_EQ(step.packed, 2);
  EXPECT_TRUE(step.byExpert && step.halved);
  EXPECT_EQ(step.rows, 256);
  EXPECT_EQ(step.columns, 160);
  EXPECT_EQ(step.tileRows, 128);
  EXPECT_EQ(step.bytesPerExpert(), 256 * 192 * 2) << "whole steps of 64 columns";
  ahead.bm = 192, ahead.bn = 64;
  auto plain = readTileKernel(layer(200, 64, 200, {{1, 0}}), ahead);
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->decode[0].halved);
  EXPECT_EQ(plain->decode[0].bytesPerExpert(), 384 * 64 * 2) << "whole tiles";
  EXPECT_TRUE(readTileKernel(p, Schedule())->decode.empty());
}

TEST(QtileReadFacts, Pairings) {
  auto pairing = [](const cpu::Problem &p) {
    auto tile = readTileKernel(p, Schedule());
    EXPECT_TRUE(tile);
    return tile ? tile->facts.pairing : Pairing::None;
  };
  EXPECT_EQ(pairing(layer(256, 64, 128, {{2, 0}, {2, 1}})), Pairing::Interleaved);
  EXPECT_EQ(pairing(layer(256, 64, 128, {{1, 0}, {1, 128}})), Pairing::Halved);
  const char *odd =
      "an output column may take contraction column n, the pair 2j and 2j + 1, or the pair j and j + N/2";
  EXPECT_EQ(reason(layer(256, 64, 128, {{2, 0}, {1, 0}})), odd);
  EXPECT_EQ(reason(layer(256, 64, 128, {{1, 0}, {1, 64}})), odd);
  EXPECT_EQ(reason(layer(256, 64, 64, {{4, 0}, {4, 1}})), odd);
  Schedule narrow;
  narrow.bm = 64;
  EXPECT_EQ(reason(layer(256, 64, 128, {{1, 0}, {1, 128}}), narrow),
            "a halved pair needs bm=128, the schedule has bm=64");
}

TEST(QtileReadFacts, Refusals) {
  EXPECT_EQ(reason(layer(256, 48, 256, {{1, 0}})), "K = 48 is no multiple of 32");
  EXPECT_EQ(reason(layer(252, 64, 252, {{1, 0}})), "N = 252 is no multiple of 8");
  cpu::Problem p = layer(256, 64, 256, {{1, 0}});
  p.operands[2].layout = Layout::Cpu;
  EXPECT_EQ(reason(p), "packed operands must be in the gpu layout, found cpu");
  p = layer(256, 64, 256, {{1, 0}});
  p.contractions.push_back(p.contractions[0]);
  EXPECT_EQ(reason(p), "the kernel multiplies by two packed operands, one is supported; stack them along N");
  p = layer(256, 64, 256, {{1, 0}});
  p.contractions.clear(), p.writes.clear();
  EXPECT_EQ(reason(p), "the kernel has no packed operand");
}

} // namespace
} // namespace quern::gpu
