// Every shipped kernel on a device against the fp64 oracle: ragged routings, edge shapes, schedules, strides.
// Outputs start as NaN between guards (runtime/gpu/HostRun), routing and re-tiling run on the device too.
#include "tests/unit/gpu_support.h"
#include "tests/unit/jit_support.h"
#include <fmt/format.h>
#include <fmt/ranges.h>

using namespace quern;
using namespace quern::gputest;
using jittest::Case;

namespace {

using Dims = std::map<std::string, int64_t>;

/// A kernel on generated data, with a schedule.
struct DeviceCall {
  Case what;
  std::string schedule;
  jittest::Call call;

  DeviceCall(const char *file, const char *kernel, Dims dims, std::string schedule = "", bool exact = false,
             DType act = DType::BF16)
      : what(make(file, kernel, std::move(dims), exact, act)), schedule(std::move(schedule)), call(what) {}

  static Case make(const char *file, const char *kernel, Dims dims, bool exact, DType act) {
    Case c{file, kernel, {}, Layout::Bnb};
    c.options.dims = std::move(dims), c.options.act = act, c.options.exact = exact, c.options.seed = seed();
    return c;
  }

  /// Fills the outputs with marks and runs; false after a failure.
  bool run() {
    if (!call.ok()) return false;
    auto binding = bindArguments(call.module->program(), *call.kernel, call.args);
    EXPECT_TRUE(binding) << binding.error().str();
    if (!binding) return false;
    call.outputs.clear();
    std::vector<TensorView> views;
    for (const OutputSpec &spec : binding->outputs) views.push_back(call.outputs.emplace_back(spec).view);
    Status status = call.module->runOn(target(), *call.kernel, call.args, views, {schedule, 0});
    EXPECT_TRUE(succeeded(status)) << what.str() << " schedule " << schedule;
    return bool(status);
  }

  /// Within the oracle's gates; exact data: every element is the oracle's value rounded once.
  void expectCorrect() {
    if (!run()) return;
    auto expected = oracle::interpret(call.module->program(), *call.kernel, call.args);
    ASSERT_TRUE(expected) << expected.error().str();
    for (size_t i = 0; i < call.outputs.size(); ++i) {
      const TensorView &found = call.outputs[i].view;
      bool fast = schedule.find("decode=fast") != std::string::npos;
      oracle::Comparison c =
          oracle::compare((*expected)[i], found, fast ? oracle::Gates::fast() : oracle::Gates());
      EXPECT_TRUE(c.pass) << what.str() << " schedule " << schedule << "\n"
                          << c.output << ": " << c.verdict();
      if (!what.options.exact) continue;
      int64_t wrong = 0;
      for (size_t j = 0; j < (*expected)[i].values.size(); ++j)
        wrong += jittest::bitsOf(found, int64_t(j)) !=
                 jittest::bitsOf(found.dtype, float((*expected)[i].values[j]));
      EXPECT_EQ(wrong, 0) << "elements differ: " << what.str() << " schedule " << schedule;
    }
  }
  std::string bits() const { return call.bits(); }
};

/// Rows per expert that meet every edge of a tile: none, one, one short of a tile, a tile, one more, several
/// tiles.
const std::vector<int64_t> ragged = {0, 1, 7, 8, 9, 31, 33, 0, 63, 64, 65, 130, 0};

void checkRagged(const char *file, const char *kernel, const std::vector<int64_t> &rows, Dims dims,
                 const char *schedule = "", bool exact = false) {
  int64_t total = 0;
  for (int64_t r : rows) total += r;
  dims["E"] = int64_t(rows.size()), dims["top_k"] = std::min<int64_t>(2, dims["E"]);
  dims["T"] = (total + 8) / dims["top_k"]; // some pairs are left over: ids that name no expert
  DeviceCall c(file, kernel, dims, schedule, exact);
  if (!c.call.ok()) return;
  c.call.setRowsPerExpert(rows);
  c.expectCorrect();
}

const Dims shape = {{"N", 256}, {"K", 192}}; // of most tests, so that they share compiled kernels

constexpr std::pair<const char *, const char *> routedKernels[] = {
    {"gpt_oss.qn", "gate_up"}, {"gpt_oss.qn", "down"}, {"qwen3.qn", "gate_up"},       {"qwen3.qn", "down"},
    {"mixtral.qn", "gate_up"}, {"mixtral.qn", "down"}, {"gpt_oss_lora.qn", "gate_up"}};

} // namespace

TEST(GpuKernels, RaggedRoutings) {
  QUERN_NEEDS_DEVICE();
  for (auto [file, kernel] : routedKernels) checkRagged(file, kernel, ragged, shape);
}

TEST(GpuKernels, OneExpertHasAll) {
  QUERN_NEEDS_DEVICE();
  checkRagged("gpt_oss.qn", "gate_up", {0, 0, 300, 0}, shape);
  checkRagged("gpt_oss.qn", "down", {0, 0, 300, 0}, shape);
  checkRagged("qwen3.qn", "down", {257}, shape); // E = 1
}

/// The tile table takes several rounds of a CTA's threads. Rows on both sides of every width.
TEST(GpuKernels, ManyExperts) {
  QUERN_NEEDS_DEVICE();
  std::mt19937_64 random(seed());
  for (int64_t experts : {33, 400, 513}) {
    std::vector<int64_t> rows(experts);
    for (int i = 0; i < 24; ++i) rows[random() % experts] = int64_t(random() % 70);
    rows.back() = 40;
    checkRagged("gpt_oss.qn", "down", rows, {{"N", 64}, {"K", 64}}, "bm=64 bn=64 stages=3");
    checkRagged("gpt_oss.qn", "gate_up", rows, {{"N", 64}, {"K", 64}}, "bm=64 bn=32 stages=3");
  }
}

TEST(GpuKernels, NoRows) {
  QUERN_NEEDS_DEVICE();
  for (auto [file, kernel] : routedKernels) {
    checkRagged(file, kernel, {0, 0, 0}, shape); // tokens, but every id is outside
    DeviceCall(file, kernel, {{"T", 0}, {"E", 3}, {"N", 256}, {"K", 192}, {"top_k", 2}}).expectCorrect();
  }
  for (const char *kernel : {"linear", "linear_bias", "lora_linear"})
    DeviceCall("linear.qn", kernel, {{"T", 0}, {"N", 192}, {"K", 128}}).expectCorrect();
}

TEST(GpuKernels, DenseRows) {
  QUERN_NEEDS_DEVICE();
  for (int64_t tokens : {1, 8, 9, 33, 128, 257})
    for (const char *kernel : {"linear", "linear_bias", "lora_linear"})
      DeviceCall("linear.qn", kernel, {{"T", tokens}, {"N", 192}, {"K", 128}}).expectCorrect();
}

/// Integer data: the order of fp32 sums does not matter, so every bit must agree.
TEST(GpuKernels, ExactData) {
  QUERN_NEEDS_DEVICE();
  for (const char *schedule : {"", "gather=fused bn=64", "cluster=2"}) {
    checkRagged("gpt_oss.qn", "down", ragged, {{"N", 256}, {"K", 320}}, schedule, true);
    DeviceCall("linear.qn", "linear_bias", {{"T", 70}, {"N", 320}, {"K", 192}}, schedule, true)
        .expectCorrect();
    DeviceCall("linear.qn", "lora_linear", {{"T", 70}, {"N", 128}, {"K", 192}, {"P", 8}}, schedule, true)
        .expectCorrect();
  }
}

TEST(GpuKernels, Schedules) {
  QUERN_NEEDS_DEVICE();
  for (const char *schedule :
       {"bn=32 stages=3", "bn=64", "bn=128 stages=4", "stages=2", "gather=fused bn=128",
        "gather=fused bn=32 stages=4", "gather=fused bn=8 stages=2", "gather=fused bn=16 stages=3",
        "cluster=2 bn=128", "bn=32 stages=3 split=2", "bn=16 stages=2 split=4 ctas=2 decode=pairs",
        "gather=fused bn=32 stages=3 split=4"})
    for (auto [file, kernel] : {routedKernels[0], routedKernels[1], routedKernels[2]})
      checkRagged(file, kernel, {5, 0, 70, 33}, {{"N", 384}, {"K", 256}}, schedule);
  for (const char *schedule : {"bm=64 bn=32", "bm=192 bn=64 stages=3", "bm=64 bn=64 split=2 decode=fast"})
    checkRagged("gpt_oss.qn", "down", {5, 0, 70, 33}, {{"N", 384}, {"K", 256}}, schedule);
}

/// N and K that are no multiples of a block of codes, and scales that straddle rows.
TEST(GpuKernels, EdgeShapes) {
  QUERN_NEEDS_DEVICE();
  for (auto [n, k] : {std::pair{64, 64}, {192, 96}, {136, 160}, {8, 32}, {320, 704}})
    checkRagged("gpt_oss.qn", "down", {9, 0, 40}, {{"N", n}, {"K", k}});
  for (auto [n, k] : {std::pair{128, 96}, {144, 64}})
    checkRagged("gpt_oss.qn", "gate_up", {9, 0, 40}, {{"N", n}, {"K", k}});
  checkRagged("qwen3.qn", "gate_up", {9, 0, 40}, {{"N", 192}, {"K", 64}});
}

TEST(GpuKernels, CodecsAndBlocks) {
  QUERN_NEEDS_DEVICE();
  for (const char *codec : {"nf4", "fp4", "mxfp4", "int4"})
    for (int64_t block : {32, 64, 128})
      for (DType state : {DType::BF16, DType::F32, DType::F16}) {
        if (state != DType::BF16 && block != 64) continue;
        std::string text =
            fmt::format("use {0}\nkernel linear(x: act[T, K], w: {0}[N, K]) -> y: f32[T, N] {{\n  y[t, n] "
                        "= sum(k) x[t, k] * w[n, k]\n}}\n",
                        codec);
        Case c{text, "linear", {}, Layout::Bnb};
        c.options.dims = {{"T", 17}, {"N", 128}, {"K", 192}}, c.options.block = block,
        c.options.quant = state;
        c.options.act = state == DType::F16 ? DType::F16 : DType::BF16, c.options.seed = seed();
        DeviceCall d("linear.qn", "linear", {{"T", 1}});
        d.what = c, d.call = jittest::Call(c);
        d.expectCorrect();
      }
}

TEST(GpuKernels, StridesOfActivations) {
  QUERN_NEEDS_DEVICE();
  for (const char *schedule : {"", "gather=fused bn=64"})
    for (jittest::Strides how : jittest::allStrides) {
      SCOPED_TRACE(jittest::name(how));
      DeviceCall routed("qwen3.qn", "gate_up", {{"T", 20}, {"E", 3}, {"N", 128}, {"K", 64}, {"top_k", 2}},
                        schedule);
      routed.call.setStrides("x", how);
      routed.expectCorrect();
      DeviceCall dense("linear.qn", "linear_bias", {{"T", 20}, {"N", 128}, {"K", 64}}, schedule);
      dense.call.setStrides("x", how),
          dense.call.setStrides("b",
                                how == jittest::Strides::EveryOther ? how : jittest::Strides::NegativeLast);
      dense.expectCorrect();
    }
}

TEST(GpuKernels, Fp16) {
  QUERN_NEEDS_DEVICE();
  for (const char *kernel : {"gate_up", "down"})
    DeviceCall("gpt_oss.qn", kernel, {{"T", 30}, {"E", 3}, {"N", 128}, {"K", 128}, {"top_k", 2}}, "", false,
               DType::F16)
        .expectCorrect();
}

/// fp32 activations are rounded to bf16 by the launcher; these are bf16 values already.
TEST(GpuKernels, Fp32ActivationsAreConverted) {
  QUERN_NEEDS_DEVICE();
  for (const char *schedule : {"", "gather=fused bn=64"}) {
    DeviceCall c("gpt_oss.qn", "down", {{"T", 30}, {"E", 3}, {"N", 128}, {"K", 128}, {"top_k", 2}}, schedule,
                 false, DType::F32);
    if (!c.call.ok()) return;
    c.call.fill("h", [](int64_t i) { return fromBF16(toBF16(float(i * 37 % 1001 - 500) / 640)); });
    c.expectCorrect();
  }
}

/// The same input gives the same bits, whatever the grid and the order in which its parts run.
TEST(GpuKernels, SameBitsEveryTime) {
  QUERN_NEEDS_DEVICE();
  Dims dims = {{"T", 60}, {"E", 4}, {"N", 256}, {"K", 128}, {"top_k", 4}};
  DeviceCall c("gpt_oss.qn", "down", dims);
  std::string first;
  for (const char *seed : {"1", "2", "3"}) {
    setenv("QUERN_SIM_SEED", seed, 1);
    bool ran = c.run();
    unsetenv("QUERN_SIM_SEED");
    ASSERT_TRUE(ran);
    if (first.empty()) first = c.bits();
    EXPECT_EQ(c.bits(), first);
  }
}

/// A routing whose rows are not in token order inside an expert comes from no ids: it is used as it stands.
TEST(GpuKernels, RoutingsThatNoSortGives) {
  QUERN_NEEDS_DEVICE();
  DeviceCall c("gpt_oss.qn", "down", {{"T", 12}, {"E", 1}, {"N", 64}, {"K", 64}, {"top_k", 1}});
  if (!c.call.ok()) return;
  std::vector<int64_t> rowToken(12);
  for (size_t r = 0; r < 12; ++r) rowToken[r] = int64_t(11 - r);
  c.call.routing().rowToken = rowToken.data();
  c.expectCorrect();
}

/// The CTAs of a cluster share the steps of K, evenly or not; each kind of share must hold over many tiles.
TEST(GpuKernels, SplitOfK) {
  QUERN_NEEDS_DEVICE();
  for (int64_t split : {2, 4, 8})
    for (int64_t steps : {split, split + 1, 2 * split, 3 * split - 1}) {
      std::string schedule = fmt::format("bn=32 stages=3 split={}", split);
      checkRagged("gpt_oss.qn", "down", {5, 0, 70, 33, 0}, {{"N", 256}, {"K", 64 * steps}}, schedule.c_str(),
                  true);
    }
  // Edges of N and K: the producer stores codes where it copies others.
  checkRagged("gpt_oss.qn", "gate_up", {9, 0, 40}, {{"N", 320}, {"K", 224}}, "bn=32 stages=3 split=4");
  checkRagged("gpt_oss_lora.qn", "gate_up", {9, 0, 40}, {{"N", 320}, {"K", 224}}, "bn=16 stages=3 split=2");
  for (int64_t tokens : {0, 1, 70})
    DeviceCall("linear.qn", "linear_bias", {{"T", tokens}, {"N", 192}, {"K", 320}}, "bn=64 split=4", true)
        .expectCorrect();
}

/// Integer multiples of a power of two would hide another order; these sums round in every step.
TEST(GpuKernels, SplitAddsInOneOrder) {
  QUERN_NEEDS_DEVICE();
  DeviceCall c("gpt_oss.qn", "down", {{"T", 20}, {"E", 4}, {"N", 256}, {"K", 576}, {"top_k", 4}},
               "bn=32 stages=3 split=8");
  std::string first;
  for (const char *seed : {"1", "2", "3"}) {
    setenv("QUERN_SIM_SEED", seed, 1);
    bool ran = c.run();
    unsetenv("QUERN_SIM_SEED");
    ASSERT_TRUE(ran);
    if (first.empty()) first = c.bits();
    EXPECT_EQ(c.bits(), first);
  }
}

/// decode=ahead adds the same values in the same order: every bit is that of decode=exact.
struct Ahead {
  const char *file, *kernel;
  Dims dims;                 // without T, E, top_k where there is a routing
  std::vector<int64_t> rows; // per expert; empty: a dense kernel
  const char *schedule;
  DType act = DType::BF16;
};

void checkAhead(const Ahead &a) {
  Dims dims = a.dims;
  if (!a.rows.empty()) {
    int64_t total = 0;
    for (int64_t r : a.rows) total += r;
    dims["E"] = int64_t(a.rows.size()), dims["top_k"] = std::min<int64_t>(2, dims["E"]);
    dims["T"] = (total + 8) / dims["top_k"];
  }
  std::string bits[2];
  for (const char *decode : {"ahead", "exact"}) {
    DeviceCall c(a.file, a.kernel, dims, fmt::format("{} decode={}", a.schedule, decode), false, a.act);
    if (!c.call.ok()) return;
    if (!a.rows.empty()) c.call.setRowsPerExpert(a.rows);
    c.expectCorrect();
    bits[decode[0] == 'e'] = c.bits();
  }
  EXPECT_EQ(bits[0], bits[1]) << a.file << " " << a.kernel << " " << a.schedule;
}

TEST(GpuKernels, DecodedAhead) {
  QUERN_NEEDS_DEVICE();
  for (auto [file, kernel] : routedKernels) // plain, interleaved and halved; biases, combines, adapters
    checkAhead({file, kernel, shape, ragged, "bn=64 stages=3"});
  for (const char *kernel : {"linear", "linear_bias", "lora_linear"})
    checkAhead({"linear.qn", kernel, {{"T", 70}, {"N", 320}, {"K", 192}}, {}, "bn=64 stages=3"});
  checkAhead({"gpt_oss.qn", "gate_up", shape, {9, 0, 40}, "bn=64 stages=3", DType::F16});
}

TEST(GpuKernels, DecodedAheadBySchedules) {
  QUERN_NEEDS_DEVICE();
  const std::vector<int64_t> rows = {5, 0, 70, 33};
  for (const char *schedule :
       {"bn=256 stages=4", "bn=32 stages=2", "bn=8 stages=4 ctas=2 regs=104/32", "cluster=2 bn=128 stages=3",
        "gather=fused bn=64 stages=4", "bn=32 stages=3 split=2", "gather=fused bn=16 stages=3 split=4"}) {
    checkAhead({"gpt_oss.qn", "gate_up", {{"N", 384}, {"K", 256}}, rows, schedule});
    checkAhead({"qwen3.qn", "gate_up", {{"N", 384}, {"K", 256}}, rows, schedule});
  }
  for (const char *schedule : {"bm=64 bn=64 stages=3", "bm=192 bn=64 stages=3 regs=152/40"})
    checkAhead({"gpt_oss.qn", "down", {{"N", 320}, {"K", 256}}, rows, schedule});
  // Weight tiles that a cluster has beyond the last one.
  checkAhead({"gpt_oss.qn", "down", {{"N", 320}, {"K", 128}}, rows, "cluster=2 bn=64 stages=3"});
}

TEST(GpuKernels, DecodedAheadAtEdges) {
  QUERN_NEEDS_DEVICE();
  for (auto [n, k] : {std::pair{64, 64}, {192, 96}, {136, 160}, {8, 32}, {320, 704}})
    checkAhead({"gpt_oss.qn", "down", {{"N", n}, {"K", k}}, {9, 0, 40}, "bn=64 stages=3"});
  for (auto [n, k] : {std::pair{192, 64}, {144, 96}, {272, 160}})
    checkAhead({"qwen3.qn", "gate_up", {{"N", n}, {"K", k}}, {9, 0, 40}, "bn=64 stages=3"});
  checkAhead({"gpt_oss.qn", "gate_up", {{"N", 200}, {"K", 96}}, {0, 0, 0}, "bn=64 stages=3"}); // no rows
  checkAhead({"gpt_oss.qn", "gate_up", {{"N", 200}, {"K", 96}}, {0, 0, 1}, "bn=64 stages=3"});
}

/// Other codecs, blocks and chains of roundings, and weights that all experts share.
TEST(GpuKernels, DecodedAheadFromAnyCodec) {
  QUERN_NEEDS_DEVICE();
  const std::string zeros =
      "codec counted {\n  table = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]\n"
      "  first = low\n  scale bf16 per 32\n  zero u4 per 32\n}\n";
  for (std::string codec : {"nf4", "mxfp4", "int4", "counted"})
    for (int64_t block : {32, 64, 128})
      for (auto [act, state] : {std::pair{DType::BF16, DType::BF16},
                                {DType::BF16, DType::F32},
                                {DType::BF16, DType::F16},
                                {DType::F16, DType::BF16},
                                {DType::F16, DType::F16}}) {
        if (block != 64 && act != state) continue;
        std::string bits[2];
        for (const char *decode : {"ahead", "exact"}) {
          std::string text =
              fmt::format("{}kernel shared(x: act[T, K], route: routing[T, E], w: {}[N, K]) -> y: "
                          "act[R, N] {{\n  y[r, n] = sum(k) x[r.token, k] * w[n, k]\n}}\n",
                          codec == "counted" ? zeros : "use " + codec + "\n", codec);
          Case c{text, "shared", {}, Layout::Bnb};
          c.options.dims = {{"T", 17}, {"E", 3}, {"top_k", 2}, {"N", 136}, {"K", 160}},
          c.options.block = block;
          c.options.quant = state, c.options.act = act, c.options.seed = seed();
          DeviceCall d("linear.qn", "linear", {{"T", 1}}, fmt::format("bn=64 stages=3 decode={}", decode));
          d.what = c, d.call = jittest::Call(c);
          d.expectCorrect();
          bits[decode[0] == 'e'] = d.bits();
        }
        EXPECT_EQ(bits[0], bits[1]) << codec << " block " << block << " " << name(state) << " to "
                                    << name(act);
      }
}

TEST(GpuKernels, Errors) {
  QUERN_NEEDS_DEVICE();
  DeviceCall c("gpt_oss.qn", "down", {{"T", 4}, {"E", 2}, {"N", 64}, {"K", 64}, {"top_k", 1}}, "bn=17");
  ASSERT_TRUE(c.call.ok());
  auto binding = bindArguments(c.call.module->program(), *c.call.kernel, c.call.args);
  ASSERT_TRUE(binding);
  oracle::OutputBuffer out(binding->outputs[0]);
  auto run = [&](const std::string &where, const std::string &schedule) {
    Status status = c.call.module->runOn(where, *c.call.kernel, c.call.args, {out.view}, {schedule, 0});
    return status ? "no error" : status.error().str();
  };
  EXPECT_NE(run(target(), "bn=17").find("bn"), std::string::npos);
  EXPECT_NE(run(target(), "bn=32 split=2")
                .find("split: 2 CTAs cannot share the 1 step of 64 columns that K = 64 has"),
            std::string::npos);
  EXPECT_EQ(run("tpu", ""), "target: found 'tpu', expected cpu, sim or cuda");
  // A device routing cannot be used by the CPU.
  int32_t offsets = 0;
  c.call.routing().device.offsets = &offsets;
  EXPECT_EQ(run("cpu", ""), "argument 'route': a routing on a device; expected one on the CPU");
}
