// Pure primitives against references in wider arithmetic.
#include "sim_support.h"
#include <bit>
#include <cmath>
#include <random>

namespace sim_tests {
namespace {

template <class Body> void inKernel(Body body) { // they are called as a kernel would
  static Body *current;
  current = &body;
  int data = 0;
  Report report = KernelRun<int>(
      data,
      [](int &) {
        if (qsim_tid_x() == 0) (*current)();
      },
      32)();
  ASSERT_TRUE(report.ok()) << report.str();
}

float ofBits(uint32_t bits) { return std::bit_cast<float>(bits); }
float bf16Value(uint32_t h) { return ofBits(h << 16); }
float f16Value(uint32_t h) { return float(std::bit_cast<_Float16>(uint16_t(h))); }

/// The format's value nearest to x, ties to even, by search over all its finite values of x's sign.
uint32_t nearest(double x, float (*value)(uint32_t), uint32_t infinity) {
  if (std::isnan(x)) return 0x7fff;
  const uint32_t sign = std::signbit(x) ? 0x8000 : 0;
  const double magnitude = std::fabs(x);
  uint32_t low = 0, high = infinity; // value(low) <= magnitude
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (double(value(middle)) <= magnitude ? low : high) = middle;
  }
  // Infinity stands one step beyond the largest finite value.
  const double below = value(low),
               step = low + 1 == infinity ? below - value(low - 1) : value(low + 1) - below;
  const double rest = magnitude - below;
  return sign | (rest > step / 2 || (rest == step / 2 && low & 1) ? low + 1 : low);
}

TEST(SimArithmetic, ConversionsRoundToNearestEven) {
  inKernel([] {
    std::mt19937_64 random(11);
    for (int i = 0; i < 200000; ++i) {
      uint32_t bits = uint32_t(random());
      if (i % 4 == 0) bits &= 0xffff8000;                      // ties of bf16
      if (i % 4 == 1) bits = (bits & 0x87fff000) | 0x38000000; // ties of f16, around its subnormals
      if (i % 4 == 2) bits = (bits & 0x80ffffff) | 0x47000000; // around its overflow
      const float x = ofBits(bits), y = ofBits(uint32_t(random()));
      if ((bits & 0x7FF00000) == 0x7FD00000 || (std::bit_cast<uint32_t>(y) & 0xFFF00000) == 0x7FD00000)
        continue; // tokens
      ASSERT_EQ(qsim_cvt_bf16x2(x, y), nearest(x, bf16Value, 0x7f80) << 16 | nearest(y, bf16Value, 0x7f80))
          << x << " " << y;
      ASSERT_EQ(qsim_cvt_f16x2(x, y), nearest(x, f16Value, 0x7c00) << 16 | nearest(y, f16Value, 0x7c00))
          << x << " " << y;
    }
    for (float x : {INFINITY, -INFINITY, 0.0f, -0.0f, NAN, 65504.0f, 65519.0f, 65520.0f, 0x1p-24f, 0x1p-25f,
                    0x1.8p-25f}) {
      EXPECT_EQ(qsim_cvt_f16x2(x, x) & 0xffff, nearest(x, f16Value, 0x7c00)) << x;
      EXPECT_EQ(qsim_cvt_bf16x2(x, x) & 0xffff, nearest(x, bf16Value, 0x7f80)) << x;
    }
  });
}

TEST(SimArithmetic, ProductsRoundOnce) {
  inKernel([] {
    std::mt19937_64 random(12);
    for (int i = 0; i < 200000; ++i) {
      const uint32_t a = uint32_t(random()),
                     b = i % 2 ? uint32_t(random()) : (a & 0x80ff80ff) ^ (uint32_t(random()) & 0x07000700);
      auto product = [&](float (*value)(uint32_t), uint32_t infinity) {
        uint32_t result = 0;
        for (uint32_t shift : {0u, 16u})
          result |= nearest(double(value(a >> shift & 0xffff)) * value(b >> shift & 0xffff), value, infinity)
                    << shift;
        return result;
      };
      ASSERT_EQ(qsim_mul_bf16x2(a, b), product(bf16Value, 0x7f80)) << std::hex << a << " " << b;
      ASSERT_EQ(qsim_mul_f16x2(a, b), product(f16Value, 0x7c00)) << std::hex << a << " " << b;
    }
  });
}

TEST(SimArithmetic, Permute) {
  inKernel([] {
    EXPECT_EQ(qsim_prmt(0x33221100, 0x77665544, 0x3210), 0x33221100u);
    EXPECT_EQ(qsim_prmt(0x33221100, 0x77665544, 0x5140), 0x55114400u);
    EXPECT_EQ(qsim_prmt(0x33221100, 0x77665544, 0x7362), 0x77336622u);
    EXPECT_EQ(qsim_prmt(0x33221100, 0x77665588, 0xc890), 0xff000000u) << "bit 3 replicates the sign";
  });
}

TEST(SimArithmetic, ApproximationsFlushSubnormals) {
  inKernel([] {
    EXPECT_EQ(qsim_ex2(3), 8);
    EXPECT_EQ(qsim_ex2(-INFINITY), 0);
    EXPECT_EQ(qsim_ex2(INFINITY), INFINITY);
    EXPECT_EQ(qsim_ex2(-127), 0) << "the result would be subnormal";
    EXPECT_EQ(qsim_ex2(0x1p-130f), 1);
    EXPECT_EQ(qsim_rcp(4), 0.25f);
    EXPECT_EQ(qsim_rcp(-0.0f), -INFINITY);
    EXPECT_EQ(qsim_rcp(0x1p-130f), INFINITY);
    EXPECT_EQ(qsim_rcp(-0x1p127f), -0.0f);
    EXPECT_TRUE(std::signbit(qsim_rcp(-0x1p127f)));
    EXPECT_EQ(std::bit_cast<uint32_t>(qsim_rcp(-NAN)), 0x7fffffffu);
    EXPECT_EQ(qsim_rcp(3), 1.0f / 3);
    EXPECT_EQ(qsim_ex2(0.5f), float(std::sqrt(2.0)));
  });
}

TEST(SimArithmetic, AccumulatorsInFlightAreNotForArithmetic) {
  int data = 0;
  KernelRun<int> run(
      data,
      [](int &) {
        const float token = ofBits(0x7FD00000 | 5 << 7 | 3);
        const uint32_t t = qsim_tid_x();
        if (t == 0) qsim_cvt_bf16x2(0, token);
        if (t == 1) qsim_cvt_f16x2(token, 0);
        if (t == 2) qsim_ex2(token);
        if (t == 3) qsim_rcp(token);
      },
      32);
  Report report = run();
  EXPECT_EQ(report.issueCount, 4u);
  EXPECT_THAT(report.str(), HasSubstr("wgmma number 5 is used before wgmma.wait covers it"));
}

} // namespace
} // namespace sim_tests
