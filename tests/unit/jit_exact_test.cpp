// Bitwise tests of compiled kernels: exact data, decoded weights, numbers that are not finite, subnormal
// scales.
#include "tests/unit/jit_support.h"
#include <bit>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>

namespace quern::jittest {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity(),
                notANumber = std::numeric_limits<float>::quiet_NaN();
constexpr DType dtypes[] = {DType::BF16, DType::F32, DType::F16};

Case make(const std::string &source, const std::string &kernel, std::map<std::string, int64_t> dims,
          DType act, DType quant = DType::BF16, int64_t block = 0) {
  Case c{source, kernel, {}};
  c.options.dims = std::move(dims);
  c.options.act = act, c.options.quant = quant, c.options.block = block;
  c.options.seed = seed();
  return c;
}

/// Whole activations, codes whose values are exact and power-of-two scales: no sum rounds, in any order.
TEST(CoreExact, SumsAreBitwiseRight) {
  struct Entry {
    const char *file, *kernel;
    std::map<std::string, int64_t> dims;
  };
  for (const Entry &e : {Entry{"gpt_oss", "down", {{"T", 41}, {"E", 5}, {"N", 66}, {"K", 160}, {"top_k", 2}}},
                         Entry{"linear", "linear", {{"T", 33}, {"N", 96}, {"K", 320}}},
                         Entry{"linear", "linear_bias", {{"T", 3}, {"N", 33}, {"K", 62}}}})
    for (DType act : dtypes) {
      Case c = make(e.file, e.kernel, e.dims, act);
      c.options.exact = true;
      for (uint64_t s = 0; s < 3; ++s) {
        c.options.seed = seed() + s;
        Call(c).expectExact();
      }
    }
}

/// x is the identity, so y[k, n] is weight [n, k] times 1, plus zeros: the decoded weight itself.
void expectDecoded(Case c) {
  int64_t k = c.options.dims.at("K"), n = c.options.dims.at("N");
  c.options.dims["T"] = k;
  Call call(c);
  ASSERT_TRUE(call.ok());
  call.fill("x", [&](int64_t i) { return i / k == i % k ? 1.0f : 0.0f; });
  Status status = call.run();
  ASSERT_TRUE(status) << c.str() << "\n" << status.error().str();
  std::vector<float> decoded(size_t(n * k));
  std::vector<char> storage(size_t(n * k * byteSize(c.options.act)));
  decodeExpert(call.packed("w"), 0, c.options.act, storage.data());
  const TensorView &y = call.outputs[0].view;
  int64_t wrong = 0;
  for (int64_t row = 0; row < n; ++row)
    for (int64_t column = 0; column < k; ++column) {
      float want = loadAs(c.options.act, storage.data(), row * k + column),
            found = loadAs(y.dtype, y.data, column * n + row);
      // Subnormal products may be flushed; at 2^-126 it depends on which side the product lay before
      // rounding.
      bool flushed = found == 0 && std::fabs(want) <= 0x1p-126f;
      if (bitsOf(y.dtype, found) == bitsOf(y.dtype, want) || flushed) continue;
      if (!wrong++)
        ADD_FAILURE() << c.str() << "\nweight [" << row << ", " << column << "] is " << found << ", expected "
                      << want;
    }
  EXPECT_EQ(wrong, 0);
}

TEST(CoreDecode, EveryBlockSizeBitwise) {
  const std::pair<int64_t, int64_t> sizes[] = {{34, 96}, {66, 320}, {40, 46}, {64, 192}};
  int turn = 0;
  for (int64_t block : {32, 64, 128, 256, 512, 1024, 2048, 4096, 64}) {
    auto [n, k] = sizes[turn % 4];
    expectDecoded(make("linear", "linear", {{"N", n}, {"K", k}}, dtypes[turn % 3],
                       dtypes[(turn / 3 + turn) % 3], block));
    ++turn;
  }
}

TEST(Decode, EveryChainOfDtypesBitwise) {
  for (DType act : dtypes)
    for (DType quant : dtypes)
      for (int64_t block : {32, 64, 128})
        for (auto [n, k] : {std::pair<int64_t, int64_t>{66, 96}, {64, 320}, {33, 100}})
          expectDecoded(make("linear", "linear", {{"N", n}, {"K", k}}, act, quant, block));
}

std::string linearOn(const std::string &declaration, const std::string &codec) {
  return declaration + "\nkernel linear(x: act[T, K], w: " + codec +
         "[N, K]) -> y: act[T, N] {\n  y[t, n] = sum(k) x[t, k] * w[n, k]\n}";
}

TEST(CoreDecode, EveryCodecBitwise) {
  const char *zeros =
      "codec zeros { table = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] first = low "
      "scale f32 per 32 zero u4 per 32 }";
  int turn = 0;
  for (auto [text, codec] : {std::pair<const char *, const char *>{"use fp4", "fp4"},
                             {"use mxfp4", "mxfp4"},
                             {"use int4", "int4"},
                             {zeros, "zeros"}}) {
    expectDecoded(make(linearOn(text, codec), "linear", {{"N", 66}, {"K", 160}}, dtypes[turn % 3],
                       dtypes[(turn + 1) % 3]));
    expectDecoded(make(linearOn(text, codec), "linear", {{"N", 32}, {"K", 128}}, dtypes[(turn + 2) % 3],
                       dtypes[turn % 3]));
    ++turn;
  }
}

/// Scales over the whole range of fp32, subnormal ones included: decoded as the reference, or flushed.
TEST(CoreDecode, ScalesOfEveryMagnitude) {
  int turn = 0;
  for (DType act : dtypes) {
    DType quant = dtypes[turn++];
    Case c = make("linear", "linear", {{"T", 64}, {"N", 32}, {"K", 64}}, act, quant, 32);
    Call call(c);
    ASSERT_TRUE(call.ok());
    call.fill("x", [](int64_t i) { return i / 64 == i % 64 ? 1.0f : 0.0f; });
    PackedView &w = call.packed("w");
    ASSERT_EQ(w.shape.scaleCount(), 64);
    // 2^-149 .. 2^127 in steps of 2^(276/63), with odd mantissas; f16 stops where it would overflow.
    auto *scales = static_cast<float *>(w.scales[0]);
    bool half = act == DType::F16 || quant == DType::F16;
    for (int i = 0; i < 64; ++i)
      scales[i] = float(std::ldexp(i % 3 ? 1.37 : 1.0, int(-149 + i * (half ? 164 : 276) / 63)));
    Status status = call.run();
    ASSERT_TRUE(status) << status.error().str();
    std::vector<char> storage(size_t(32 * 64 * byteSize(act)));
    decodeExpert(w, 0, act, storage.data());
    int64_t normal = 0;
    for (int64_t row = 0; row < 32; ++row)
      for (int64_t k = 0; k < 64; ++k) {
        float want = loadAs(act, storage.data(), row * 64 + k),
              found = loadAs(act, call.outputs[0].view.data, k * 32 + row);
        if (std::fabs(want) <= 0x1p-126f && found == 0) continue;
        normal += std::fabs(want) > 0x1p-126f;
        ASSERT_EQ(bitsOf(act, found), bitsOf(act, want))
            << name(act) << " " << name(quant) << " weight [" << row << ", " << k << "]: " << found
            << ", expected " << want;
      }
    EXPECT_GT(normal, 300);
  }
}

/// A codec whose table exceeds 1 turns subnormal scales into normal weights: those must not be flushed.
TEST(CoreDecode, SubnormalScalesOfALargeTable) {
  for (DType act : {DType::BF16, DType::F32}) {
    Case c = make(linearOn("use mxfp4", "mxfp4"), "linear", {{"T", 64}, {"N", 32}, {"K", 64}}, act, act);
    Call call(c);
    ASSERT_TRUE(call.ok());
    call.fill("x", [](int64_t i) { return i / 64 == i % 64 ? 1.0f : 0.0f; });
    PackedView &w = call.packed("w");
    for (int64_t i = 0; i < w.shape.scaleCount(); ++i)
      static_cast<uint8_t *>(w.scales[0])[i] = uint8_t(i % 4); // 2^-127 (subnormal) .. 2^-124
    ASSERT_TRUE(call.run());
    std::vector<char> storage(size_t(32 * 64 * byteSize(act)));
    decodeExpert(w, 0, act, storage.data());
    int64_t normal = 0;
    for (int64_t row = 0; row < 32; ++row)
      for (int64_t k = 0; k < 64; ++k) {
        float want = loadAs(act, storage.data(), row * 64 + k),
              found = loadAs(act, call.outputs[0].view.data, k * 32 + row);
        normal += std::fabs(want) > 0x1p-126f;
        ASSERT_TRUE(bitsOf(act, found) == bitsOf(act, want) || (found == 0 && std::fabs(want) <= 0x1p-126f))
            << name(act) << " weight [" << row << ", " << k << "]: " << found << ", expected " << want;
      }
    EXPECT_GT(normal, 500);
  }
}

/// Infinite and NaN scales poison exactly the rows of weights that hold them.
TEST(CoreNotFinite, ScalesPoisonTheirRows) {
  for (DType act : {DType::BF16, DType::F32})
    for (auto [n, k] : {std::pair<int64_t, int64_t>{96, 320}, {33, 62}})
      for (int64_t tokens : {1, 3, 40}) {
        Case c = make("linear", "linear", {{"T", tokens}, {"N", n}, {"K", k}}, act, DType::BF16, 64);
        Call call(c);
        ASSERT_TRUE(call.ok());
        PackedView &w = call.packed("w");
        auto *scales = static_cast<float *>(w.scales[0]);
        scales[0] = infinity, scales[w.shape.scaleCount() / 2] = notANumber,
        scales[w.shape.scaleCount() - 1] = -infinity;
        call.expectCorrect();
        int64_t bad = 0, good = 0;
        for (int64_t i = 0; i < tokens * n; ++i)
          ++(std::isfinite(loadAs(act, call.outputs[0].view.data, i)) ? good : bad);
        EXPECT_GE(bad, 3 * tokens);
        EXPECT_GE(good, tokens * (n - 6)); // three blocks lie in six rows at most
      }
  // e8m0: 255 is NaN, also where every code of the block is the same number and an infinite scale would give
  // infinity.
  for (auto [n, k] : {std::pair<int64_t, int64_t>{66, 160}, {34, 128}}) {
    Case c = make(linearOn("use mxfp4", "mxfp4"), "linear", {{"T", 5}, {"N", n}, {"K", k}}, DType::BF16);
    Call call(c);
    ASSERT_TRUE(call.ok());
    call.fill("x", [](int64_t) { return 1.0f; });
    PackedView &w = call.packed("w");
    std::memset(w.codes[0], 0x77, size_t(w.shape.codeBytes()));
    static_cast<uint8_t *>(w.scales[0])[7] = 255;
    static_cast<uint8_t *>(w.scales[0])[w.shape.scaleCount() - 1] = 255;
    call.expectCorrect();
    int64_t bad = 0;
    for (int64_t i = 0; i < 5 * n; ++i) bad += std::isnan(loadAs(DType::BF16, call.outputs[0].view.data, i));
    EXPECT_EQ(bad, 10);
  }
}

TEST(CoreNotFinite, ActivationsPoisonTheirRow) {
  for (DType act : dtypes)
    for (int64_t k : {320, 62}) {
      Case c =
          make("linear", "linear", {{"T", 21}, {"N", k == 62 ? 33 : 96}, {"K", k}}, act, DType::BF16, 64);
      Call call(c);
      ASSERT_TRUE(call.ok());
      TensorView &x = call.tensor("x");
      storeAs(act, x.data, 3 * k + k - 1, notANumber);
      storeAs(act, x.data, 17 * k, infinity);
      call.expectCorrect();
    }
}

/// Rounding must not carry a NaN's payload into its exponent: not in a scale, not in a result.
TEST(CoreNotFinite, PayloadsDoNotMatter) {
  const char *text = R"(use nf4
kernel k(x: act[T, K], w: nf4[N, K], b: f32[N]) -> y: act[T, N] {
  y[t, n] = sum(k) x[t, k] * w[n, k] + b[n]
})";
  for (DType act : dtypes)
    for (auto [n, k] : {std::pair<int64_t, int64_t>{34, 62}, {64, 64}}) {
      Call call(make(text, "k", {{"T", 6}, {"N", n}, {"K", k}}, act, DType::BF16, 64));
      ASSERT_TRUE(call.ok());
      static_cast<float *>(call.packed("w").scales[0])[3] = std::bit_cast<float>(0x7fffffffu);
      call.fill("b", [](int64_t i) {
        return std::bit_cast<float>(i % 3 == 0 ? 0x7fffffffu : i % 3 == 1 ? 0xffffffffu : 0u);
      });
      call.expectCorrect();
      for (int64_t i = 0; i < 6 * n; ++i)
        if (i % n % 3 != 2) ASSERT_TRUE(std::isnan(loadAs(act, call.outputs[0].view.data, i))) << i;
    }
}

/// A NaN routing weight is NaN in its token and nowhere else; rows of no expert are never read.
TEST(CoreNotFinite, RoutingWeightStaysInItsToken) {
  Case c = make("gpt_oss", "down", {{"T", 41}, {"E", 5}, {"N", 66}, {"K", 160}, {"top_k", 2}}, DType::BF16);
  Call call(c);
  ASSERT_TRUE(call.ok());
  std::vector<int64_t> ids;
  std::vector<float> weights;
  for (int64_t i = 0; i < 82; ++i)
    ids.push_back(i % 7 == 6 ? -1 : i % 7), weights.push_back(0.25f * float(i % 5));
  weights[2 * 13 + 1] = notANumber;
  weights[6] = notANumber; // of a pair without expert
  ids[2 * 13 + 1] = 3;
  call.setRouting(ids, weights);
  int64_t k = 160, live = call.rows().liveRows();
  ASSERT_LT(live, 82);
  TensorView &h = call.tensor("h");
  for (int64_t i = live * k; i < 82 * k; ++i) storeAs(h.dtype, h.data, i, notANumber);
  call.expectCorrect();
  for (int64_t i = 0; i < 41 * 66; ++i)
    ASSERT_EQ(std::isnan(loadAs(DType::F32, call.outputs[0].view.data, i)), i / 66 == 13)
        << "token " << i / 66;
}

/// Rows beyond the live ones are zero, in every output dtype.
TEST(CoreRows, BeyondTheLiveOnesAreZero) {
  Case c = make("gpt_oss", "gate_up", {{"T", 30}, {"E", 4}, {"N", 68}, {"K", 90}, {"top_k", 3}}, DType::BF16);
  Call call(c);
  ASSERT_TRUE(call.ok());
  call.setRowsPerExpert({5, 0, 17, 1});
  call.expectCorrect();
  const TensorView &h = call.outputs[0].view;
  ASSERT_EQ(h.shape, (std::vector<int64_t>{90, 34}));
  for (int64_t i = 23 * 34; i < 90 * 34; ++i) ASSERT_EQ(bitsOf(h, i), 0u) << "row " << i / 34;
}

} // namespace
} // namespace quern::jittest
