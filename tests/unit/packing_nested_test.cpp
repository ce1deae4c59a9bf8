// Nested absmax: expansion with its two roundings, and a fold that restores the same bytes for every table.
#include "packing_reference.h"
#include <algorithm>
#include <bit>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>

using namespace quern;
using namespace quern::reference;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan_ = std::numeric_limits<float>::quiet_NaN();

struct Nested {
  std::vector<uint8_t> q;
  std::vector<float> code2 = std::vector<float>(256), absmax2;
  int64_t block2 = 256;
  float offset = 0;

  std::vector<float> expand() const {
    std::vector<float> absmax(q.size());
    expandNested(q.data(), int64_t(q.size()), code2.data(), absmax2.data(), block2, offset, absmax.data());
    return absmax;
  }
  /// Folds back and returns the number of exceptions; the bytes must be the same.
  int64_t checkRoundTrip() const {
    auto absmax = expand();
    auto exceptions = findNestedExceptions(q.data(), absmax.data(), int64_t(q.size()), code2.data(),
                                           absmax2.data(), block2, offset);
    std::vector<uint8_t> back(q.size(), 0xee);
    foldNested(absmax.data(), int64_t(q.size()), code2.data(), absmax2.data(), block2, offset, exceptions,
               back.data());
    EXPECT_EQ(back, q);
    return int64_t(exceptions.size());
  }
};

Nested random(int64_t count, int64_t block2, std::mt19937_64 &random) {
  Nested n;
  n.block2 = block2;
  for (int64_t i = 0; i < count; ++i) n.q.push_back(uint8_t(random() >> 20));
  for (int i = 0; i < 256; ++i) n.code2[i] = float(i - 127) / 128; // ascending and far apart
  for (int64_t i = 0; i < (count + block2 - 1) / block2; ++i)
    n.absmax2.push_back(0.01f + float(random() % 1000) / 4096);
  n.offset = 0.0625f;
  return n;
}

TEST(PackingNested, ExpandsWithTwoRoundings) {
  auto rng = seeded();
  Nested n = random(5000, 256, rng);
  for (float &c : n.code2) c = float(int64_t(rng() % 20001) - 10000) / 9973;
  n.offset = 0.0371f;
  auto absmax = n.expand();
  int64_t fusedDiffers = 0;
  for (size_t i = 0; i < n.q.size(); ++i) {
    // A double holds the product of two floats exactly, so this rounds once per step.
    float product = float(double(n.code2[n.q[i]]) * double(n.absmax2[i / 256]));
    EXPECT_EQ(absmax[i], float(double(product) + double(n.offset)));
    fusedDiffers += std::fma(n.code2[n.q[i]], n.absmax2[i / 256], n.offset) != absmax[i];
  }
  EXPECT_GT(fusedDiffers, 0) << "the data does not tell two roundings from one";
}

TEST(PackingNested, RoundTripNeedsNoExceptionsWhenCodesStayApart) {
  auto rng = seeded();
  for (int64_t count : {0, 1, 255, 256, 257, 10000})
    for (int64_t block2 : {1, 64, 256, 4096}) EXPECT_EQ(random(count, block2, rng).checkRoundTrip(), 0);
}

TEST(PackingNested, AllCodes) {
  auto rng = seeded();
  Nested n = random(256, 256, rng);
  for (int i = 0; i < 256; ++i) n.q[i] = uint8_t(i);
  EXPECT_EQ(n.checkRoundTrip(), 0);
  std::reverse(n.code2.begin(), n.code2.end()); // descending
  EXPECT_EQ(n.checkRoundTrip(), 0);
  std::shuffle(n.code2.begin(), n.code2.end(), rng);
  EXPECT_EQ(n.checkRoundTrip(), 0);
}

TEST(PackingNested, CollapsedCodesBecomeExceptions) {
  auto rng = seeded();
  Nested n = random(256, 256, rng);
  for (int i = 0; i < 256; ++i) n.q[i] = uint8_t(i);
  n.absmax2[0] = 0; // every code gives the offset: code 0 is the guess, the other 255 are exceptions
  EXPECT_EQ(n.checkRoundTrip(), 255);
  n.absmax2[0] = 1;
  n.offset = 1e10f; // the same by rounding
  EXPECT_EQ(n.checkRoundTrip(), 255);
  n.offset = 0;
  n.code2.assign(256, 0.25f);
  EXPECT_EQ(n.checkRoundTrip(), 255);
}

TEST(PackingNested, AValueThatNoCodeGives) {
  auto rng = seeded();
  Nested n = random(2, 256, rng);
  n.q = {7, 9};
  auto absmax = n.expand();
  absmax[0] = 12345; // somebody changed the absmax
  std::vector<uint8_t> back(2, 0xee);
  foldNested(absmax.data(), 2, n.code2.data(), n.absmax2.data(), n.block2, n.offset, {}, back.data());
  EXPECT_EQ(back, (std::vector<uint8_t>{0, 9}));
}

TEST(PackingNested, SignedZerosAreTold) {
  auto rng = seeded();
  Nested n = random(2, 256, rng);
  n.q = {3, 200};
  n.code2[3] = -0.0f, n.code2[200] = 0.0f;
  n.code2[127] = 1; // was 0
  n.absmax2[0] = 1;
  n.offset = -0.0f;
  auto absmax = n.expand();
  EXPECT_TRUE(std::signbit(absmax[0]));
  EXPECT_FALSE(std::signbit(absmax[1]));
  EXPECT_EQ(n.checkRoundTrip(), 0);
}

TEST(PackingNested, AdversarialTables) {
  auto rng = seeded();
  float specials[] = {0.0f, -0.0f, inf, -inf, nan_, -nan_, 1e-45f, -1e-45f, 3.4e38f, -3.4e38f, 1.0f, -1.0f};
  auto any = [&]() -> float {
    return rng() % 3 ? specials[rng() % std::size(specials)] : std::bit_cast<float>(uint32_t(rng()));
  };
  for (int round = 0; round < 2000; ++round) {
    Nested n = random(rng() % 700, rng() % 2 ? 256 : 64, rng);
    if (rng() % 2)
      for (float &c : n.code2) c = any();
    if (rng() % 2)
      for (float &a : n.absmax2) a = any();
    if (rng() % 2) n.offset = any();
    n.checkRoundTrip();
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

} // namespace
