// Compiled kernels against the fp64 oracle: every shipped kernel, codec, dtype, block size and ragged shape.
// Names that start with Core run for every instruction set and schedule, the others once.
#include "tests/unit/jit_support.h"
#include <fmt/format.h>

namespace quern::jittest {
namespace {

using oracle::RoutingKind;

/// Rows per expert around every block size of the generated code: register blocks of tokens, tiles of 16.
const std::vector<int64_t> raggedRows = {0, 1, 15, 16, 17, 31, 32, 33, 64, 2, 3, 4, 5, 7};
int64_t raggedTotal() {
  int64_t sum = 0;
  for (int64_t r : raggedRows) sum += r;
  return sum;
}

const char *grouped = R"(use nf4
kernel grouped(x: act[T, K], route: routing[T, E], w: nf4[E, N, K], b: float[E, N]) -> y: f32[R, N] {
  y[r, n] = sum(k) x[r.token, k] * w[r.expert, n, k] + b[r.expert, n]
})";

/// Runs one compiled kernel on every kind of routing, or number of rows.
class Kernel : public testing::TestWithParam<Case> {};

TEST_P(Kernel, AgreesWithTheOracle) {
  Case c = GetParam();
  auto module = moduleOf(c.source);
  ASSERT_TRUE(module);
  bool routed = module->program().findKernel(c.kernel)->routing >= 0;
  auto check = [&](int64_t tokens, int64_t experts, int64_t topK, RoutingKind kind) {
    Case one = c;
    one.options.dims["T"] = tokens;
    if (routed) one.options.dims["E"] = experts, one.options.dims["top_k"] = topK;
    one.options.routing = kind;
    one.options.seed = c.options.seed + uint64_t(tokens);
    Call(one).expectCorrect();
  };
  if (!routed) {
    for (int64_t tokens : {0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 33, 64, 71}) check(tokens, 0, 0, {});
    return;
  }
  check(0, 3, 2, RoutingKind::Uniform);
  check(1, 1, 1, RoutingKind::Uniform);
  check(37, 1, 1, RoutingKind::Uniform);
  check(9, 5, 2, RoutingKind::One);
  check(6, 4, 3, RoutingKind::Empty);
  check(40, 8, 3, RoutingKind::Zipf);
  c.options.dims["E"] = int64_t(raggedRows.size());
  c.options.dims["T"] = raggedTotal() / 2 + 4; // 8 pairs or more go to no expert
  c.options.dims["top_k"] = 2;
  Call ragged(c);
  ASSERT_TRUE(ragged.ok());
  ragged.setRowsPerExpert(raggedRows);
  ragged.expectCorrect();
}

Case make(const std::string &source, const std::string &kernel, std::map<std::string, int64_t> dims,
          DType act = DType::BF16, DType quant = DType::BF16, int64_t block = 0) {
  Case c{source, kernel, {}};
  c.options.dims = std::move(dims);
  c.options.act = act, c.options.quant = quant, c.options.block = block;
  c.options.seed = seed();
  return c;
}

constexpr DType dtypes[] = {DType::BF16, DType::F32, DType::F16};

/// With `all`, the dtype pairs that the plain list leaves out.
std::vector<Case> shipped(bool all) {
  struct Entry {
    const char *file, *kernel;
    std::map<std::string, int64_t> dims;
  };
  const Entry entries[] = {
      {"gpt_oss", "gate_up", {{"N", 128}, {"K", 192}}},
      {"gpt_oss", "down", {{"N", 96}, {"K", 128}}},
      {"gpt_oss", "gate_up", {{"N", 68}, {"K", 90}}},
      {"gpt_oss", "down", {{"N", 45}, {"K", 34}}},
      {"qwen3", "gate_up", {{"N", 128}, {"K", 64}}},
      {"qwen3", "gate_up", {{"N", 100}, {"K", 96}}}, // the second half begins in the middle of a panel
      {"qwen3", "down", {{"N", 130}, {"K", 66}}},
      {"mixtral", "gate_up", {{"N", 14}, {"K", 128}}},
      {"mixtral", "down", {{"N", 64}, {"K", 256}}},
      {"gpt_oss_lora", "gate_up", {{"N", 96}, {"K", 128}, {"P", 8}}},
      {"gpt_oss_lora", "gate_up", {{"N", 66}, {"K", 100}, {"P", 33}}},
      {"linear", "linear", {{"N", 96}, {"K", 320}}},
      {"linear", "linear_bias", {{"N", 33}, {"K", 128}}},
      {"linear", "lora_linear", {{"N", 64}, {"K", 64}, {"P", 3}}},
  };
  std::vector<Case> cases;
  int turn = 0;
  for (const Entry &e : entries) {
    for (int a = 0; a < 3; ++a)
      for (int q = 0; q < 3; ++q) {
        // bf16 activations are what has instructions of its own: every second kernel of the plain list.
        bool plain = a == (turn % 2 ? 0 : 1 + turn / 2 % 2) && q == turn % 3;
        if (plain == all) continue;
        cases.push_back(make(e.file, e.kernel, e.dims, dtypes[a], dtypes[q]));
      }
    ++turn;
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(CoreShipped, Kernel, testing::ValuesIn(shipped(false)));
INSTANTIATE_TEST_SUITE_P(Shipped, Kernel, testing::ValuesIn(shipped(true)));

std::vector<Case> shapes(bool all) {
  const std::pair<int64_t, int64_t> sizes[] = {{2, 2},     {34, 34},   {66, 66},  {96, 96},
                                               {100, 100}, {130, 130}, {34, 704}, {1408, 64},
                                               {2, 1408},  {64, 1408}, {33, 62},  {160, 128}};
  std::vector<Case> cases;
  int turn = 0;
  for (auto [n, k] : sizes) {
    for (int a = 0; a < 3; ++a)
      if ((a == (turn % 3 == 2 ? 1 + turn / 3 % 2 : 0)) != all)
        cases.push_back(make(grouped, "grouped", {{"N", n}, {"K", k}}, dtypes[a]));
    ++turn;
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(CoreShapes, Kernel, testing::ValuesIn(shapes(false)));
INSTANTIATE_TEST_SUITE_P(Shapes, Kernel, testing::ValuesIn(shapes(true)));

/// A grouped kernel on another codec.
std::string groupedOn(const std::string &declaration, const std::string &codec) {
  return declaration + "\nkernel grouped(x: act[T, K], route: routing[T, E], w: " + codec +
         "[E, N, K]) -> y: f32[R, N] {\n  y[r, n] = sum(k) x[r.token, k] * w[r.expert, n, k]\n}";
}

std::vector<Case> codecs(bool all) {
  const std::pair<std::string, std::string> declared[] = {
      {"use nf4", "nf4"},
      {"use fp4", "fp4"},
      {"use mxfp4", "mxfp4"},
      {"use int4", "int4"},
      {"codec awq { table = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] first = low scale bf16 "
       "per 64 "
       "zero u4 per 64 }",
       "awq"},
      {"codec odd { table = [7.5, -3, 0.25, 1, 2, -8, 9, 10, 11, -12, 13, 14, 0, 1.5, 100, -0.125] first = "
       "high "
       "scale f32 per 32 zero u4 per 32 }",
       "odd"},
      {"codec fine { table = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1, 0, -0.125, -0.25, -0.375, -0.5, "
       "-0.625, "
       "-0.75, -1] first = high scale e8m0 per 32 zero u4 per 32 }",
       "fine"},
  };
  std::vector<Case> cases;
  int turn = 0;
  for (auto &[text, name] : declared) {
    const std::map<std::string, int64_t> dims[] = {{{"N", 66}, {"K", 160}}, {{"N", 64}, {"K", 256}}};
    for (int a = 0; a < 3; ++a)
      for (int d = 0; d < 2; ++d)
        if ((a == turn % 2 && d == turn / 2 % 2) != all)
          cases.push_back(make(groupedOn(text, name), "grouped", dims[d], dtypes[a], dtypes[(turn + a) % 3]));
    ++turn;
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(CoreCodecs, Kernel, testing::ValuesIn(codecs(false)));
INSTANTIATE_TEST_SUITE_P(Codecs, Kernel, testing::ValuesIn(codecs(true)));

/// Blocks that straddle rows and end short; N around 32, K from less than a block to many.
std::vector<Case> blocks(bool all) {
  std::vector<Case> cases;
  int turn = 0;
  for (int64_t block : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    const std::map<std::string, int64_t> dims[] = {
        {{"N", 34}, {"K", 96}}, {{"N", 64}, {"K", 320}}, {{"N", 40}, {"K", 46}}};
    for (int d = 0; d < 3; ++d)
      for (int a = 0; a < 2; ++a)
        if ((d == turn % 3 && a == turn / 3 % 2) != all)
          cases.push_back(make(grouped, "grouped", dims[d], dtypes[a], dtypes[(turn + a) % 3], block));
    ++turn;
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(CoreBlocks, Kernel, testing::ValuesIn(blocks(false)));
INSTANTIATE_TEST_SUITE_P(Blocks, Kernel, testing::ValuesIn(blocks(true)));

/// The other layouts are read slowly, for cross-checks.
std::vector<Case> layouts(bool all) {
  std::vector<Case> cases;
  int turn = 0;
  for (Layout layout : {Layout::Bnb, Layout::Gpu})
    for (auto [n, k] : {std::pair<int64_t, int64_t>{130, 192}, {66, 100}, {40, 128}}) {
      for (int64_t block : {32, 64, 256})
        for (const char *codec : {"nf4", "mxfp4"}) {
          bool plain = block == (turn % 2 ? 64 : 32) && (*codec == 'm') == (turn % 3 == 1);
          if (plain == all) continue;
          cases.push_back(make(groupedOn(std::string("use ") + codec, codec), "grouped", {{"N", n}, {"K", k}},
                               dtypes[turn % 2], dtypes[turn % 3], block));
          cases.back().layout = layout;
        }
      ++turn;
    }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(CoreLayouts, Kernel, testing::ValuesIn(layouts(false)));
INSTANTIATE_TEST_SUITE_P(Layouts, Kernel, testing::ValuesIn(layouts(true)));

/// The published shape in one dimension: blocks of 128 on K = 2880 straddle rows (2880 = 22.5 * 128).
TEST(CoreLongRows, BlocksStraddleRows) {
  for (int64_t rows : {1, 3, 40}) {
    Case c = make("gpt_oss", "down", {{"T", rows}, {"E", 2}, {"N", 34}, {"K", 2880}, {"top_k", 1}},
                  DType::BF16, DType::BF16, 128);
    Call(c).expectCorrect();
  }
}

/// More rows than one segment of the schedule holds, so that a segment's rest follows a whole one.
TEST(CoreLongSegments, OneExpertTakesAll) {
  for (auto act : {DType::BF16, DType::F16}) {
    Case c = make("gpt_oss", "down", {{"T", 1100}, {"E", 3}, {"N", 64}, {"K", 64}, {"top_k", 1}}, act);
    c.options.routing = RoutingKind::One;
    Call one(c);
    one.expectCorrect();
    one.setRowsPerExpert({513, 0, 555});
    one.expectCorrect();
  }
}

/// Activations are prepared in batches: 4 MB of workspace hold 364 rows of 2880 fp32 values.
TEST(CoreBatches, WorkspaceIsSmallerThanTheActivations) {
  for (auto act : {DType::F32, DType::BF16}) {
    Case c = make("gpt_oss", "down", {{"T", 900}, {"E", 5}, {"N", 32}, {"K", 2880}, {"top_k", 1}}, act);
    Call call(c);
    call.setRowsPerExpert({300, 17, 380, 1, 190});
    call.expectCorrect();
  }
}

} // namespace
} // namespace quern::jittest
