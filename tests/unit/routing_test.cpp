// Routing against a naive stable sort, for any strides, id widths and weight dtypes.
#include "runtime/launch/ParallelFor.h"
#include "runtime/routing/Routing.h"
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <random>
#include <tuple>

using namespace quern;

namespace {

struct Pair {
  int64_t expert, token, index;
  float weight;
};

/// By definition: the pairs with a valid id, sorted by expert, then by their own order.
Routing naive(const std::vector<int64_t> &ids, const std::vector<float> &weights, int64_t tokens,
              int64_t topK, int64_t experts) {
  std::vector<Pair> pairs;
  for (int64_t i = 0; i < tokens * topK; ++i)
    if (ids[i] >= 0 && ids[i] < experts) pairs.push_back({ids[i], i / topK, i, weights[i]});
  std::sort(pairs.begin(), pairs.end(),
            [](auto &a, auto &b) { return std::tie(a.expert, a.index) < std::tie(b.expert, b.index); });
  Routing r{tokens, experts, topK, {}, {}, {}, {}};
  r.offsets.assign(experts + 1, 0);
  r.rowToken.assign(tokens * topK, -1);
  r.rowWeight.assign(tokens * topK, 0);
  r.inverse.assign(tokens * topK, -1);
  for (size_t row = 0; row < pairs.size(); ++row) {
    r.rowToken[row] = pairs[row].token;
    r.rowWeight[row] = pairs[row].weight;
    r.inverse[pairs[row].index] = int64_t(row);
    for (int64_t e = pairs[row].expert; e < experts; ++e) ++r.offsets[e + 1];
  }
  return r;
}

std::vector<uint32_t> bits(const std::vector<float> &values) {
  std::vector<uint32_t> out;
  for (float v : values) out.push_back(std::bit_cast<uint32_t>(v));
  return out;
}

void expectSame(const Routing &found, const Routing &expected) {
  EXPECT_EQ(found.tokens, expected.tokens);
  EXPECT_EQ(found.experts, expected.experts);
  EXPECT_EQ(found.topK, expected.topK);
  EXPECT_EQ(found.offsets, expected.offsets);
  EXPECT_EQ(found.rowToken, expected.rowToken);
  EXPECT_EQ(bits(found.rowWeight), bits(expected.rowWeight));
  EXPECT_EQ(found.inverse, expected.inverse);
}

std::mt19937_64 seeded() {
  uint64_t seed = std::random_device{}();
  ::testing::Test::RecordProperty("seed", std::to_string(seed));
  std::cout << "seed " << seed << "\n";
  return std::mt19937_64(seed);
}

Routing route(const std::vector<int64_t> &ids, const std::vector<float> &weights, int64_t tokens,
              int64_t topK, int64_t experts) {
  return routeFromIds(ids.data(), 8, topK, 1, weights.data(), DType::F32, topK, 1, tokens, topK, experts);
}

TEST(Routing, WrittenExample) {
  // Token 0 chooses experts 2 and 0, token 1 chooses 0 and a sentinel, token 2 chooses 2 and 2.
  Routing r = route({2, 0, 0, -1, 2, 2}, {1, 2, 3, 4, 5, 6}, 3, 2, 3);
  EXPECT_EQ(r.offsets, (std::vector<int64_t>{0, 2, 2, 5}));
  EXPECT_EQ(r.rowToken, (std::vector<int64_t>{0, 1, 0, 2, 2, -1}));
  EXPECT_EQ(r.rowWeight, (std::vector<float>{2, 3, 1, 5, 6, 0}));
  EXPECT_EQ(r.inverse, (std::vector<int64_t>{2, 0, 1, -1, 3, 4}));
  EXPECT_EQ(r.rows(), 6);
  EXPECT_EQ(r.liveRows(), 5);
}

TEST(Routing, AgainstNaiveSort) {
  auto random = seeded();
  for (int round = 0; round < 300; ++round) {
    int64_t tokens = random() % 60, topK = 1 + random() % 9, experts = 1 + random() % 40;
    std::vector<int64_t> ids(tokens * topK);
    std::vector<float> weights(tokens * topK);
    for (auto &id : ids) id = int64_t(random() % (experts + 6)) - 3;
    for (auto &w : weights) w = std::bit_cast<float>(uint32_t(random())); // NaNs of any payload among them
    Routing expected = naive(ids, weights, tokens, topK, experts);
    expectSame(route(ids, weights, tokens, topK, experts), expected);
    std::vector<int32_t> narrow(ids.begin(), ids.end());
    expectSame(
        routeFromIds(narrow.data(), 4, topK, 1, weights.data(), DType::F32, topK, 1, tokens, topK, experts),
        expected);
  }
}

TEST(Routing, IdsOfAnyValueAreSkipped) {
  int64_t low = std::numeric_limits<int64_t>::min(), high = std::numeric_limits<int64_t>::max();
  std::vector<int64_t> ids{low, high, -1, 4, int64_t(1) << 32, (int64_t(1) << 32) + 1, 3, -int64_t(1) << 32};
  Routing r = route(ids, std::vector<float>(8, 1), 4, 2, 4);
  EXPECT_EQ(r.offsets, (std::vector<int64_t>{0, 0, 0, 0, 1}));
  EXPECT_EQ(r.inverse, (std::vector<int64_t>{-1, -1, -1, -1, -1, -1, 0, -1}));
  int32_t extremes[] = {std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()};
  EXPECT_EQ(routeFromIds(extremes, 4, 1, 1, nullptr, DType::F32, 0, 0, 2, 1, 4).liveRows(), 0);
}

TEST(Routing, Strides) {
  auto random = seeded();
  int64_t tokens = 13, topK = 3, experts = 5;
  std::vector<int64_t> ids(tokens * topK);
  std::vector<float> weights(tokens * topK);
  for (auto &id : ids) id = int64_t(random() % experts);
  for (auto &w : weights) w = float(random() % 1000) / 256;
  Routing expected = naive(ids, weights, tokens, topK, experts);
  // ids transposed, weights backwards in both dimensions with gaps, in f16.
  std::vector<int32_t> transposed(tokens * topK);
  std::vector<uint16_t> backwards(tokens * topK * 2, 0x7e00);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < topK; ++c) {
      transposed[c * tokens + t] = int32_t(ids[t * topK + c]);
      backwards[((tokens - 1 - t) * topK + (topK - 1 - c)) * 2] = toF16(weights[t * topK + c]);
    }
  const uint16_t *first = &backwards[(tokens * topK - 1) * 2];
  expectSame(
      routeFromIds(transposed.data(), 4, 1, tokens, first, DType::F16, -2 * topK, -2, tokens, topK, experts),
      expected);
  // A stride of zero: all tokens choose alike.
  int64_t one[] = {1, 0};
  Routing same = routeFromIds(one, 8, 0, 1, nullptr, DType::F32, 0, 0, 3, 2, 2);
  EXPECT_EQ(same.offsets, (std::vector<int64_t>{0, 3, 6}));
  EXPECT_EQ(same.rowToken, (std::vector<int64_t>{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(same.rowWeight, (std::vector<float>(6, 1.0f)));
}

TEST(Routing, Empty) {
  Routing none = route({}, {}, 0, 4, 8);
  EXPECT_EQ(none.offsets, (std::vector<int64_t>(9, 0)));
  EXPECT_EQ(none.rows(), 0);
  EXPECT_EQ(none.liveRows(), 0);
  Routing skipped = route({-1, 7}, {1, 1}, 2, 1, 1);
  EXPECT_EQ(skipped.offsets, (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(skipped.rowToken, (std::vector<int64_t>{-1, -1}));
  EXPECT_EQ(skipped.rowWeight, (std::vector<float>{0, 0}));
  Routing single = route({0, 0, 0}, {1, 2, 3}, 3, 1, 1);
  EXPECT_EQ(single.rowToken, (std::vector<int64_t>{0, 1, 2}));
}

TEST(Routing, ManyTokensGiveTheSameBitsOnAnyThreadCount) {
  auto random = seeded();
  int64_t tokens = 100000, topK = 4, experts = 33;
  std::vector<int64_t> ids(tokens * topK);
  std::vector<float> weights(tokens * topK);
  for (auto &id : ids) id = int64_t(random() % (random() % experts + 1)) - 1; // skewed, with sentinels
  for (auto &w : weights) w = float(random() % 4096);
  Routing expected = naive(ids, weights, tokens, topK, experts);
  for (int threads : {1, 2, 3, 7}) {
    setNumThreads(threads);
    expectSame(route(ids, weights, tokens, topK, experts), expected);
  }
  setNumThreads(0);
}

TEST(RoutingFromScores, NonZeroMeansChosen) {
  float nan = std::numeric_limits<float>::quiet_NaN();
  float scores[] = {0, .5f, 0, .25f, /**/ -0.0f, 0, 0, 0, /**/ nan, 0, -1, 1e-45f};
  auto r = routeFromScores(scores, DType::F32, 4, 1, 3, 4, 0);
  ASSERT_TRUE(r);
  EXPECT_EQ(r->topK, 3);
  EXPECT_EQ(r->offsets, (std::vector<int64_t>{0, 1, 2, 3, 5}));
  EXPECT_EQ(r->rowToken, (std::vector<int64_t>{2, 0, 2, 0, 2, -1, -1, -1, -1}));
  EXPECT_TRUE(std::isnan(r->rowWeight[0]));
  EXPECT_EQ(r->rowWeight[1], .5f);
  EXPECT_EQ(r->rowWeight[4], 1e-45f);
  EXPECT_EQ(r->inverse, (std::vector<int64_t>{1, 3, -1, -1, -1, -1, 0, 2, 4}));
}

TEST(RoutingFromScores, FixedTopK) {
  float scores[] = {1, 0, 0, 1, 1, 1};
  auto wide = routeFromScores(scores, DType::F32, 3, 1, 2, 3, 5);
  ASSERT_TRUE(wide);
  EXPECT_EQ(wide->rows(), 10);
  EXPECT_EQ(wide->liveRows(), 4);
  auto narrow = routeFromScores(scores, DType::F32, 3, 1, 2, 3, 2);
  ASSERT_FALSE(narrow);
  EXPECT_EQ(narrow.error().str(),
            "argument 'scores': token 1 has 3 non-zero scores; expected at most top_k = 2");
  EXPECT_EQ(narrow.error().kind, ErrorKind::User);
}

TEST(RoutingFromScores, StridesDtypesAndEmpty) {
  uint16_t transposed[] = {toBF16(2), 0, 0, toBF16(3)}; // [E, T] in memory
  auto r = routeFromScores(transposed, DType::BF16, 1, 2, 2, 2, 0);
  ASSERT_TRUE(r);
  EXPECT_EQ(r->rowToken, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(r->rowWeight, (std::vector<float>{2, 3}));
  auto none = routeFromScores(nullptr, DType::F32, 4, 1, 0, 4, 0);
  ASSERT_TRUE(none);
  EXPECT_EQ(none->offsets, (std::vector<int64_t>(5, 0)));
  float zeros[8] = {};
  auto unused = routeFromScores(zeros, DType::F32, 4, 1, 2, 4, 0);
  ASSERT_TRUE(unused);
  EXPECT_EQ(unused->rows(), 0);
}

} // namespace
