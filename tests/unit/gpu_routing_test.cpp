// The device's routing against runtime/routing, bit for bit.
#include "tests/unit/gpu_support.h"
#include <algorithm>
#include <cmath>
#include <limits>

using namespace quern;
using namespace quern::gputest;

namespace {

struct Found {
  DeviceArray<int32_t> offsets, rowToken, inverse;
  DeviceArray<float> rowWeight;
  Found(int64_t pairs, int64_t experts)
      : offsets(DeviceArray<int32_t>::fresh(size_t(experts + 1))),
        rowToken(DeviceArray<int32_t>::fresh(size_t(pairs))),
        inverse(DeviceArray<int32_t>::fresh(size_t(pairs))),
        rowWeight(DeviceArray<float>::fresh(size_t(pairs))) {}
  DeviceRouting view() const { return {offsets.data(), rowToken.data(), rowWeight.data(), inverse.data()}; }
};

std::vector<uint32_t> bits(const std::vector<float> &values) {
  std::vector<uint32_t> out(values.size());
  if (!values.empty()) std::memcpy(out.data(), values.data(), values.size() * 4);
  return out;
}

void expectSame(const Found &found, const Routing &expected) {
  auto narrow = [](const std::vector<int64_t> &v) { return std::vector<int32_t>(v.begin(), v.end()); };
  EXPECT_EQ(found.offsets.values(), narrow(expected.offsets));
  EXPECT_EQ(found.rowToken.values(), narrow(expected.rowToken));
  EXPECT_EQ(found.inverse.values(), narrow(expected.inverse));
  EXPECT_EQ(bits(found.rowWeight.values()), bits(expected.rowWeight));
}

/// Ids and weights of a call; `transposed`: [topK, tokens] in memory.
struct Call {
  int64_t tokens, topK, experts;
  std::vector<int64_t> ids;
  std::vector<float> weights;
  bool transposed = false;

  Call(int64_t tokens, int64_t topK, int64_t experts, std::mt19937_64 &random)
      : tokens(tokens), topK(topK), experts(experts) {
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < tokens * topK; ++i) {
      ids.push_back(experts ? int64_t(random() % uint64_t(experts)) : 0);
      weights.push_back(normal(random));
    }
  }

  template <class Id> void check(DType weightType, bool withWeights = true) const {
    SCOPED_TRACE(testing::Message() << "T " << tokens << " top_k " << topK << " E " << experts << " id bytes "
                                    << sizeof(Id) << " weights " << (withWeights ? name(weightType) : "none")
                                    << (transposed ? " transposed" : ""));
    size_t pairs = size_t(tokens * topK);
    std::vector<Id> own(pairs);
    Elements w(weightType, pairs);
    int64_t strides[2] = {transposed ? 1 : topK, transposed ? tokens : 1};
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t c = 0; c < topK; ++c) {
        size_t at = size_t(t * strides[0] + c * strides[1]);
        own[at] = Id(std::clamp<int64_t>(ids[size_t(t * topK + c)], std::numeric_limits<Id>::min(),
                                         std::numeric_limits<Id>::max()));
        w.set(at, weights[size_t(t * topK + c)]);
      }
    Routing expected =
        routeFromIds(own.data(), sizeof(Id), strides[0], strides[1], withWeights ? w.bytes.data() : nullptr,
                     weightType, strides[0], strides[1], tokens, topK, experts);
    DeviceArray<Id> deviceIds(own);
    DeviceArray<uint8_t> deviceWeights(w.bytes);
    Found found(tokens * topK, experts);
    gpu::RouteIds source{deviceIds.data(),
                         int(sizeof(Id)),
                         {strides[0], strides[1]},
                         withWeights ? deviceWeights.data() : nullptr,
                         weightType,
                         {strides[0], strides[1]},
                         tokens,
                         topK,
                         experts};
    ASSERT_TRUE(succeeded(gpu::routeFromIds(*backend(), nullptr, source, found.view())));
    expectSame(found, expected);
  }
};

} // namespace

TEST(GpuRouting, AnySizes) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(1);
  for (auto [tokens, topK, experts] : {std::tuple{1, 1, 1},
                                       {1, 1, 1024},
                                       {7, 3, 5},
                                       {64, 4, 32},
                                       {255, 8, 33},
                                       {512, 4, 31},
                                       {2047, 1, 128},
                                       {2048, 1, 3}}) // one launch
    Call(tokens, topK, experts, random).check<int64_t>(DType::F32);
  for (auto [tokens, topK, experts] : {std::tuple{2049, 1, 3},
                                       {683, 3, 1},
                                       {513, 8, 128},
                                       {1025, 4, 1024},
                                       {5000, 2, 257}}) // three launches
    Call(tokens, topK, experts, random).check<int32_t>(DType::BF16);
}

TEST(GpuRouting, NoRows) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(2);
  Call(0, 4, 8, random).check<int64_t>(DType::F32);
  Call(5, 0, 8, random).check<int64_t>(DType::F32);
  for (int64_t tokens : {9, 3000}) {
    Call none(tokens, 2, 4, random);
    std::fill(none.ids.begin(), none.ids.end(), -1);
    none.check<int32_t>(DType::F32);
    Call(tokens, 2, 0, random).check<int64_t>(DType::F32); // no experts
  }
}

TEST(GpuRouting, SentinelsAndEmptyExperts) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(3);
  for (int64_t tokens : {100, 1500}) {
    Call call(tokens, 3, 40, random);
    const int64_t outside[] = {-1, 40, 41, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, int64_t(1) << 32};
    for (int64_t &id : call.ids) {
      if (id % 3 == 0) id = 7; // many experts without rows, one with a third of them
      if (random() % 3 == 0) id = outside[random() % 8];
    }
    call.check<int64_t>(DType::F16);
    call.check<int32_t>(DType::F16);
  }
}

TEST(GpuRouting, OneExpertAndOneRow) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(4);
  for (int64_t tokens : {33, 2500}) {
    Call call(tokens, 1, 16, random);
    std::fill(call.ids.begin(), call.ids.end(), 15);
    call.check<int64_t>(DType::F32);
    std::fill(call.ids.begin(), call.ids.end(), -1);
    call.ids[size_t(tokens / 2)] = 3;
    call.check<int64_t>(DType::F32);
  }
}

TEST(GpuRouting, Zipf) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(5);
  Call call(1200, 4, 64, random);
  for (int64_t &id : call.ids)
    id = int64_t(64 / std::pow(64.0, std::uniform_real_distribution<>()(random))) - 1;
  call.check<int32_t>(DType::F32);
}

TEST(GpuRouting, StridesAndWeights) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(6);
  for (int64_t tokens : {50, 900}) {
    Call call(tokens, 4, 9, random);
    for (DType type : {DType::F32, DType::BF16, DType::F16})
      for (bool transposed : {false, true}) {
        call.transposed = transposed;
        call.check<int64_t>(type);
      }
    call.check<int32_t>(DType::F32, false);
    call.weights[3] = std::numeric_limits<float>::infinity(), call.weights[4] = -0.0f,
    call.weights[5] = 1e-42f;
    call.check<int32_t>(DType::F32);
    call.check<int32_t>(DType::F16);
  }
}

TEST(GpuRouting, NaNWeightsPassThrough) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(7);
  Call call(20, 2, 4, random);
  uint32_t payload = 0x7fc12345;
  std::memcpy(&call.weights[9], &payload, 4);
  call.check<int64_t>(DType::F32);
}

namespace {

void checkScores(int64_t tokens, int64_t experts, int64_t topK, DType type, bool transposed,
                 std::mt19937_64 &random) {
  SCOPED_TRACE(testing::Message() << "T " << tokens << " E " << experts << " top_k " << topK << " "
                                  << name(type) << (transposed ? " transposed" : ""));
  Elements scores(type, size_t(tokens * experts));
  int64_t strides[2] = {transposed ? 1 : experts, transposed ? tokens : 1};
  const float special[] = {-0.0f, std::nanf(""), type == DType::F16 ? 6e-8f : 1e-39f, -2.0f};
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0, count = int64_t(random() % uint64_t(topK + 1)); c < count; ++c) {
      size_t at = size_t(t * strides[0] + int64_t(random() % uint64_t(experts)) * strides[1]);
      scores.set(at, random() % 4 ? float(random() % 1000 + 1) / 64 : special[random() % 4]);
    }
  auto expected = routeFromScores(scores.bytes.data(), type, strides[0], strides[1], tokens, experts, topK);
  ASSERT_TRUE(expected) << expected.error().str();
  DeviceArray<uint8_t> device(scores.bytes);
  Found found(tokens * topK, experts);
  gpu::RouteScores source{device.data(), type, {strides[0], strides[1]}, tokens, topK, experts};
  ASSERT_TRUE(succeeded(gpu::routeFromScores(*backend(), nullptr, source, found.view())));
  expectSame(found, *expected);
}

} // namespace

TEST(GpuRouting, DenseScores) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(8);
  for (DType type : {DType::F32, DType::BF16, DType::F16}) {
    checkScores(37, 40, 4, type, false, random);
    checkScores(600, 33, 4, type, true, random);
  }
  checkScores(0, 8, 2, DType::F32, false, random);
  checkScores(5, 1, 1, DType::F32, false, random);
  checkScores(9, 1024, 8, DType::BF16, false, random);
}

TEST(GpuRouting, TooManyScoresBecomeNaN) {
  QUERN_NEEDS_DEVICE();
  std::vector<float> scores = {1, 0, 2, 0, /**/ 0, 0, 0, 5, /**/ 1, 2, 3, 0}; // the last token has three
  DeviceArray<float> device(scores);
  Found found(6, 4);
  gpu::RouteScores source{device.data(), DType::F32, {4, 1}, 3, 2, 4};
  ASSERT_TRUE(succeeded(gpu::routeFromScores(*backend(), nullptr, source, found.view())));
  EXPECT_EQ(found.offsets.values(), (std::vector<int32_t>{0, 2, 3, 4, 5}));
  EXPECT_EQ(found.rowToken.values(), (std::vector<int32_t>{0, 2, 2, 0, 1, -1}));
  auto weights = found.rowWeight.values();
  EXPECT_TRUE(std::isnan(weights[1]) && std::isnan(weights[2]));
  weights[1] = weights[2] = 0;
  EXPECT_EQ(weights, (std::vector<float>{1, 0, 0, 2, 5, 0}));
}

TEST(GpuRouting, Refusals) {
  QUERN_NEEDS_DEVICE();
  auto text = [](const Status &status) { return status ? "no error" : status.error().str(); };
  gpu::RouteIds many{nullptr, 8, {1, 1}, nullptr, DType::F32, {1, 1}, 1, 1, 1025};
  EXPECT_EQ(text(gpu::routeFromIds(*backend(), nullptr, many, {})),
            "routing: 1025 experts; expected at most 1024 on a GPU");
  gpu::RouteIds large{nullptr, 8, {1, 1}, nullptr, DType::F32, {1, 1}, 1 << 30, 2, 8};
  EXPECT_EQ(text(gpu::routeFromIds(*backend(), nullptr, large, {})),
            "routing: 1073741824 tokens with top_k 2 and 8 experts; expected fewer than 2^31 pairs on a GPU");
  gpu::RouteScores scores{nullptr, DType::F32, {1, 1}, 4, 0, 8};
  EXPECT_EQ(text(gpu::routeFromScores(*backend(), nullptr, scores, {})),
            "argument 'scores': dense scores need top_k on a GPU");
}
