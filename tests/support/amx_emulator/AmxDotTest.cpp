// tdpbf16ps against the plain model: every tile triple, every shape class, ordinary and extreme values.
#include "AmxTestSupport.h"
#include "AmxTiles.h"

using namespace quern;
using namespace quern::amxtest;

namespace {

enum Values { Integers, Ordinary, AnyBits, NearUnderflow, NearOverflow, Specials, valueKinds };
constexpr const char *valueNames[] = {"integers",       "ordinary",      "any bits",
                                      "near underflow", "near overflow", "specials"};

struct Source {
  std::mt19937_64 random;
  Values values;
  uint32_t bits(uint32_t n) { return static_cast<uint32_t>(random() % n); }
  uint16_t bf16() {
    const uint32_t sign = bits(2) << 15, fraction = bits(128);
    switch (values) {
    case Integers: return std::bit_cast<uint32_t>(static_cast<float>(static_cast<int>(bits(17)) - 8)) >> 16;
    case Ordinary: return sign | (120 + bits(10)) << 7 | fraction;
    case AnyBits: return static_cast<uint16_t>(random());
    case NearUnderflow: return sign | (58 + bits(12)) << 7 | fraction; // products around 2^-126
    case NearOverflow: return sign | (186 + bits(8)) << 7 | fraction;  // products around 2^127
    default: break;
    }
    // zeros, denormals, the smallest and largest normals, infinities, quiet and signalling NaN, ordinary ones
    // between
    constexpr uint16_t special[] = {0, 1, 0x7F, 0x80, 0x7F7F, 0x7F80, 0x7FC0, 0x7F81};
    const uint32_t pick = bits(64);
    return pick < 8 ? sign | special[pick] : sign | (124 + bits(6)) << 7 | fraction;
  }
  float fp32() {
    if (values == Integers) return static_cast<float>(static_cast<int>(bits(2001)) - 1000);
    if (values == AnyBits && bits(4) == 0) return std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (values == NearUnderflow && bits(4) == 0)
      return std::bit_cast<float>(bits(0x01000000) | bits(2) << 31); // many denormals
    return std::bit_cast<float>(static_cast<uint32_t>(bf16()) << 16 | bits(65536));
  }
};

/// One product on tiles (c, a, b); returns how many of C's elements differ from the model.
int run(Source &source, int c, int a, int b, int rows, int pairs, int cols, std::string &first) {
  std::vector<uint16_t> left(rows * pairs * 2), right(pairs * cols * 2);
  std::vector<float> before(rows * cols), expected, got(rows * cols, -77.0f);
  for (auto &x : left) x = source.bf16();
  for (auto &x : right) x = source.bf16();
  for (auto &x : before) x = source.fp32();
  TileConfig().tile(c, rows, cols * 4).tile(a, rows, pairs * 4).tile(b, pairs, cols * 4).apply();
  loads[c](before.data(), cols * 4);
  loads[a](left.data(), pairs * 4);
  loads[b](right.data(), cols * 4);
  dots[c * 64 + a * 8 + b]();
  stores[c](got.data(), cols * 4);
  _tile_release();
  expected = before;
  modelDot(expected, left, right, rows, pairs, cols);
  int wrong = 0;
  for (size_t i = 0; i < got.size(); ++i)
    if (!sameFloat(got[i], expected[i]) && wrong++ == 0)
      first = "element " + std::to_string(i) + ": " + std::to_string(got[i]) + ", expected " +
              std::to_string(expected[i]);
  return wrong;
}

TEST(AmxDot, EveryTileTripleAndValueClass) {
  const unsigned seed = testSeed();
  for (int values = 0; values < valueKinds; ++values) {
    Source source{std::mt19937_64(seed + values), static_cast<Values>(values)};
    for (int i = 0; i < 512; ++i) {
      const int c = i / 64, a = i / 8 % 8, b = i % 8;
      if (c == a || c == b || a == b) continue;
      std::string first;
      ASSERT_EQ(run(source, c, a, b, 16, 16, 16, first), 0)
          << valueNames[values] << ", tiles " << c << a << b << ", " << first << ", seed " << seed;
    }
  }
}

TEST(AmxDot, EveryShape) {
  const unsigned seed = testSeed();
  Source source{std::mt19937_64(seed), Ordinary};
  for (int rows = 1; rows <= 16; ++rows)
    for (int pairs = 1; pairs <= 16; ++pairs)
      for (int cols = 1; cols <= 16; cols += rows % 4 == 1 ? 1 : 5) {
        std::string first;
        ASSERT_EQ(run(source, 0, 1, 2, rows, pairs, cols, first), 0)
            << rows << " x " << pairs << " x " << cols << ", " << first << ", seed " << seed;
      }
}

/// Exact by construction, and computed without any float: an oracle that shares nothing with the model above.
TEST(AmxDot, IntegersAreExact) {
  const unsigned seed = testSeed();
  std::mt19937 random(seed);
  int a[16][32], b[32][16], expected[16][16] = {};
  alignas(64) uint16_t left[16][32], right[16][16][2];
  alignas(64) float got[16][16];
  auto bf16 = [](int v) {
    return static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(v)) >> 16);
  };
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < 32; ++k) left[m][k] = bf16(a[m][k] = static_cast<int>(random() % 255) - 127);
  for (int k = 0; k < 32; ++k)
    for (int n = 0; n < 16; ++n)
      right[k / 2][n][k % 2] = bf16(b[k][n] = static_cast<int>(random() % 255) - 127);
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n)
      for (int k = 0; k < 32; ++k) expected[m][n] += 2 * a[m][k] * b[k][n];
  TileConfig().all(16, 64).apply();
  _tile_zero(3);
  _tile_loadd(4, left, 64);
  _tile_loadd(6, right, 64);
  _tile_dpbf16ps(3, 4, 6);
  _tile_dpbf16ps(3, 4, 6);
  _tile_stored(3, got, 64);
  _tile_release();
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n)
      ASSERT_EQ(got[m][n], static_cast<float>(expected[m][n])) << m << " " << n << " seed " << seed;
}

/// One element on a 1 x 1 x 1 tile: c + (even + odd), with both products given.
float one(uint16_t a0, uint16_t b0, uint16_t a1, uint16_t b1, float c) {
  uint16_t left[2] = {a0, a1}, right[2] = {b0, b1};
  TileConfig().tile(0, 1, 4).tile(1, 1, 4).tile(2, 1, 4).apply();
  _tile_loadd(0, &c, 4);
  _tile_loadd(1, left, 4);
  _tile_loadd(2, right, 4);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, &c, 4);
  _tile_release();
  return c;
}

TEST(AmxDot, KnownCases) {
  constexpr uint16_t one1 = 0x3F80, minNormal = 0x0080, denormal = 0x007F, half = 0x3F00, inf = 0x7F80,
                     minusInf = 0xFF80, nan = 0x7FC0;
  EXPECT_EQ(one(one1, one1, one1, one1, 1), 3.0f);
  // flushed: a denormal operand, a denormal product, a denormal accumulator (its sign stays)
  EXPECT_EQ(one(denormal, 0x7F00, 0, 0, 1), 1.0f);
  EXPECT_EQ(std::bit_cast<uint32_t>(one(minNormal, half, 0, 0, 0)), 0u);
  EXPECT_EQ(std::bit_cast<uint32_t>(one(0x8000, one1, 0x8000, one1, -0x1p-127f)), 0u);
  // the even and the odd sum meet first, then C: in another order 1 + 2^-24 would be lost twice
  EXPECT_EQ(one(0x3380, one1, 0x3380, one1, 1), 1.0f + 0x1p-23f);
  // ties go to even: 1 + 2^-24 is 1, and 1 + 2^-23 + 2^-24 is 1 + 2^-22
  EXPECT_EQ(one(0x3380, one1, 0, 0, 1), 1.0f);
  EXPECT_EQ(one(0x3380, one1, 0, 0, 1 + 0x1p-23f), 1 + 0x1p-22f);
  // infinities and NaN, without any trap
  EXPECT_EQ(one(inf, one1, 0, 0, 5), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(one(inf, 0, 0, 0, 5)));
  EXPECT_TRUE(std::isnan(one(inf, one1, minusInf, one1, 5)));
  EXPECT_TRUE(std::isnan(one(nan, one1, 0, 0, 5)));
  EXPECT_EQ(one(0x7F7F, 0x7F7F, 0, 0, 0), std::numeric_limits<float>::infinity());
}

/// A product below 2^-126 still counts inside the FMA: only a result is flushed. Two separate roundings would
/// lose it.
TEST(AmxDot, OneRoundingPerStep) {
  uint16_t left[4] = {0x0080, 0, 0x0080, 0},
           right[4] = {0x3F80, 0, 0x3F00, 0}; // 2^-126 * 1, then 2^-126 * 0.5
  float c = 0;
  TileConfig().tile(0, 1, 4).tile(1, 1, 8).tile(2, 2, 4).apply();
  _tile_zero(0);
  _tile_loadd(1, left, 8);
  _tile_loadd(2, right, 4);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, &c, 4);
  _tile_release();
  EXPECT_EQ(c, 0x1.8p-126f);
}

TEST(AmxDot, MxcsrIsNeitherUsedNorChanged) {
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x7F80); // round towards zero, everything masked, no flag set, denormals kept
  const float up = one(0x3380, 0x3F80, 0x3300, 0x3F80, 1); // 1 + 2^-24 + 2^-25: up to 1 + 2^-23
  const float flushed = one(0x0080, 0x3F00, 0, 0, 0);
  const unsigned after = _mm_getcsr();
  _mm_setcsr(before);
  EXPECT_EQ(up, 1 + 0x1p-23f);
  EXPECT_EQ(flushed, 0.0f);
  EXPECT_EQ(after, 0x7F80u);
}

/// The emulator picks one of two builds of the same loop by the CPU; here both run.
TEST(AmxDot, BothBuildsAgree) {
  if (!__builtin_cpu_supports("avx512f"))
    GTEST_SKIP() << "no AVX-512 here: the other tests run the AVX2 build";
  const unsigned seed = testSeed(), mxcsr = _mm_getcsr();
  for (int values = 0; values < valueKinds; ++values) {
    Source source{std::mt19937_64(seed + values), static_cast<Values>(values)};
    alignas(64) float c[2][16][16];
    alignas(64) uint16_t a[16][32], b[16][32];
    for (auto &row : c[0])
      for (auto &x : row) x = source.fp32();
    std::memcpy(c[1], c[0], sizeof c[0]);
    for (int i = 0; i < 512; ++i) a[i / 32][i % 32] = source.bf16(), b[i / 32][i % 32] = source.bf16();
    using Rows = uint8_t (*)[64];
    _mm_setcsr(0x9FC0);
    amx::dotBf16Avx2(reinterpret_cast<Rows>(c[0]), reinterpret_cast<Rows>(a), reinterpret_cast<Rows>(b), 16,
                     16, 16);
    amx::dotBf16Avx512(reinterpret_cast<Rows>(c[1]), reinterpret_cast<Rows>(a), reinterpret_cast<Rows>(b), 16,
                       16, 16);
    _mm_setcsr(mxcsr);
    for (int i = 0; i < 256; ++i)
      ASSERT_TRUE(sameFloat(c[0][i / 16][i % 16], c[1][i / 16][i % 16]))
          << valueNames[values] << " " << i << " seed " << seed;
  }
}

} // namespace
