// Facts, parameters and reads of a tile program: records to attributes or text and back.
#include "codegen/gpu/Facts.h"
#include "codegen/gpu/Reads.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/MLIRContext.h"
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <random>

namespace quern::gpu {
namespace {

using Kind = jit::GpuParam::Kind;

struct Random {
  uint64_t seed = std::random_device()();
  std::mt19937_64 engine{seed};
  int64_t upTo(int64_t n) { return int64_t(engine() % uint64_t(n + 1)); }
  bool flip() { return engine() % 2; }
};

Facts randomFacts(Random &r) {
  Facts f;
  f.n = 8 * (1 + r.upTo(1000)), f.k = 32 * (1 + r.upTo(300));
  f.packed = int(r.upTo(9)), f.lhs = int(r.upTo(9));
  f.pairing = Pairing(r.upTo(2));
  f.routed = r.flip(), f.byExpert = r.flip(), f.byToken = r.flip();
  f.act = r.flip() ? DType::BF16 : DType::F16, f.state = DType(r.upTo(2));
  f.block = 32 << r.upTo(7);
  f.scale = syntax::ScaleType(r.upTo(2));
  f.zero = r.flip(), f.highFirst = r.flip();
  for (float &v : f.table) v = float(r.upTo(2000) - 1000) / 7;
  return f;
}

void expectSame(const Facts &a, const Facts &b) {
  EXPECT_EQ(a.n, b.n);
  EXPECT_EQ(a.k, b.k);
  EXPECT_EQ(a.packed, b.packed);
  EXPECT_EQ(a.lhs, b.lhs);
  EXPECT_EQ(a.pairing, b.pairing);
  EXPECT_EQ(a.routed, b.routed);
  EXPECT_EQ(a.byExpert, b.byExpert);
  EXPECT_EQ(a.byToken, b.byToken);
  EXPECT_EQ(a.act, b.act);
  EXPECT_EQ(a.state, b.state);
  EXPECT_EQ(a.block, b.block);
  EXPECT_EQ(a.scale, b.scale);
  EXPECT_EQ(a.zero, b.zero);
  EXPECT_EQ(a.highFirst, b.highFirst);
  EXPECT_EQ(a.table, b.table);
}

TEST(QtileFacts, EveryFieldSurvivesTheAttribute) {
  mlir::MLIRContext context;
  Random r;
  SCOPED_TRACE(fmt::format("seed {}", r.seed));
  for (int i = 0; i < 500; ++i) {
    Facts f = randomFacts(r);
    expectSame(Facts::of(f.attribute(&context)), f);
  }
}

TEST(QtileFacts, AlignmentDecidesWhoCopies) {
  Facts f;
  f.n = 256, f.k = 192;
  Schedule s;
  EXPECT_TRUE(f.alignedCodes());
  EXPECT_TRUE(f.alignedScales());
  EXPECT_EQ(f.steps(), 3);
  EXPECT_EQ(f.scalesPerStep(), 1);
  EXPECT_EQ(f.weightTiles(s), 2);
  EXPECT_EQ(Plan(s, f).fullArrivals(), 129) << "its threads make the tables";
  EXPECT_FALSE(Plan(s, f).assembles());
  s.decode = Decode::Fast;
  EXPECT_EQ(Plan(s, f).fullArrivals(), 1);
  auto with = [&](auto change) {
    Facts changed = f;
    change(changed);
    return changed;
  };
  Facts edge = with([](Facts &g) { g.k = 160; });
  EXPECT_FALSE(edge.alignedCodes());
  EXPECT_EQ(edge.steps(), 3);
  EXPECT_EQ(edge.scalesPerStep(), 2); // a row's blocks are not those of its neighbour
  EXPECT_EQ(Plan(s, edge).fullArrivals(), 129);
  EXPECT_FALSE(with([](Facts &g) { g.n = 264; }).alignedCodes());
  EXPECT_EQ(with([](Facts &g) { g.n = 264; }).weightTiles(s), 3);
  Facts half = with([](Facts &g) { g.n = 192, g.pairing = Pairing::Halved; }); // 96 rows are no whole blocks
  EXPECT_FALSE(half.alignedCodes());
  for (const Facts &g : {with([](Facts &h) { h.block = 128; }), with([](Facts &h) { h.zero = true; }),
                         with([](Facts &h) { h.scale = syntax::ScaleType::E8M0; })}) {
    EXPECT_TRUE(g.alignedCodes());
    EXPECT_FALSE(g.alignedScales());
    EXPECT_EQ(Plan(s, g).fullArrivals(), 129);
    EXPECT_TRUE(Plan(s, g).assembles());
  }
  EXPECT_EQ(with([](Facts &g) { g.block = 32; }).scalesPerStep(), 2);
}

TEST(QtilePlan, PartsOfSharedMemoryDoNotMeet) {
  Random r;
  SCOPED_TRACE(fmt::format("seed {}", r.seed));
  for (int i = 0; i < 500; ++i) {
    Schedule s;
    s.bm = 64 * (1 + r.upTo(2)), s.bn = r.flip() ? 8 << r.upTo(2) : 32 * (1 + r.upTo(7)),
    s.stages = 2 + r.upTo(6);
    s.decode = r.flip() ? Decode::Exact : Decode::Pairs;
    Facts f = randomFacts(r);
    Plan p(s, f);
    SCOPED_TRACE(s.str());
    EXPECT_EQ(p.xBytes, s.bn * 64 * 2);
    EXPECT_EQ(p.codeBytes, s.bm * 64 / 2);
    int64_t each = s.decode == Decode::Exact ? 16 * 2
                   : f.zero                  ? 2 * 4
                                             : 4; // 16 products, or scale and zero point
    EXPECT_EQ(p.scaleBytes, s.bm * f.scalesPerStep() * each);
    EXPECT_GE(p.codes, s.stages * p.xBytes);
    EXPECT_GE(p.scales, p.codes + s.stages * p.codeBytes);
    EXPECT_GE(p.barriers, p.scales + s.stages * p.scaleBytes);
    EXPECT_GE(p.table, p.barriers + 16 * s.stages);
    EXPECT_GE(p.scratch, p.table + 4 * (Plan::maxExperts + 1));
    EXPECT_GE(p.end, p.scratch + 4 * 33);
    EXPECT_EQ(p.codes % 16 + p.scales % 16 + p.scaleBytes % 16 + p.barriers % 8 + p.table % 4,
              0); // bulk copies, mbarriers, words
    std::vector<int64_t> widths = p.widths();
    EXPECT_EQ(widths.back(), s.bn);
    EXPECT_TRUE(std::is_sorted(widths.begin(), widths.end()));
    for (int64_t w : widths) EXPECT_EQ(w % p.boxRows, 0);
  }
}

TEST(QtileParams, TextAndBack) {
  mlir::MLIRContext context;
  context.loadDialect<mlir::LLVM::LLVMDialect>();
  for (int kind = Kind::TensorMap; kind <= Kind::LowRank; ++kind)
    for (int operand : {-1, 0, 12})
      for (int index : {0, 3}) {
        jit::GpuParam p{Kind(kind), operand, index}, back = parseParam(paramText(p));
        EXPECT_EQ(back.kind, p.kind);
        EXPECT_EQ(back.operand, operand);
        EXPECT_EQ(back.index, index);
        EXPECT_TRUE(paramType(&context, p.kind));
      }
  EXPECT_EQ(paramText({Kind::RowWeight, -1, 0}), "row_weight -1 0");
  for (const char *text : {"", "rows", "rows -1", "rows -1 0 0", "row -1 0", "rows  -1 0"})
    EXPECT_NE(paramText(parseParam(text)), text); // how the verifier of qtile.program knows
}

TEST(QtileReads, TextAndBack) {
  Random r;
  SCOPED_TRACE(fmt::format("seed {}", r.seed));
  for (int i = 0; i < 1000; ++i) {
    Read read;
    read.kind = Read::Kind(r.upTo(4));
    if (read.kind != Read::OfContraction && read.kind != Read::OfWeight) read.index = int(r.upTo(20));
    if (read.kind == Read::OfLowRank) read.operand = int(r.upTo(20)), read.rank = 1 + r.upTo(255);
    if (read.kind == Read::OfLowRank || read.kind == Read::OfTensor)
      read.dtype = DType(r.upTo(2)), read.row = Read::Line(r.upTo(3));
    if (read.kind < Read::OfWeight && r.flip())
      read.hasColumn = true, read.mul = 1 + r.upTo(3), read.offset = r.upTo(5000);
    std::string text = read.str();
    SCOPED_TRACE(text);
    Read back = parseRead(text);
    EXPECT_EQ(back.str(), text);
    EXPECT_EQ(back.kind, read.kind);
    EXPECT_EQ(back.row, read.row);
    EXPECT_EQ(back.index, read.index);
    EXPECT_EQ(back.operand, read.operand);
    EXPECT_EQ(back.dtype, read.dtype);
    EXPECT_EQ(back.hasColumn, read.hasColumn);
    EXPECT_EQ(back.mul, read.mul);
    EXPECT_EQ(back.offset, read.offset);
    EXPECT_EQ(back.rank, read.rank);
  }
}

TEST(QtileReads, TheFormsOfTheHeader) {
  for (const char *text :
       {"contraction column 2 1", "tensor 3 bf16 by expert column 1 0", "tensor 3 f32 by row",
        "low_rank 0 of 6 bf16 rank 16 by expert column 1 0", "weight", "scalar 5"})
    EXPECT_EQ(parseRead(text).str(), text);
  for (const char *text : {"", "tensor", "tensor 3", "tensor 3 i8", "tensor 3 bf16 by rows", "scalar",
                           "low_rank 0 of 6 bf16", "contraction column 1", "weight 1", "something"})
    EXPECT_NE(parseRead(text).str(), text); // how the verifier of qtile.write knows
}

} // namespace
} // namespace quern::gpu
