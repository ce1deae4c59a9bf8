// Gather, combine and low-rank factors on the device, against loops on the host.
#include "tests/unit/gpu_support.h"
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

using namespace quern;
using namespace quern::gputest;

namespace {

constexpr DType types[] = {DType::F32, DType::BF16, DType::F16};

Elements randomElements(DType type, size_t count, std::mt19937_64 &random) {
  Elements e(type, count);
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < count; ++i) e.set(i, normal(random));
  return e;
}

/// The bits of `value` as an element of `type`, 16 bits wide.
uint16_t halfBits(DType type, float value) { return type == DType::BF16 ? toBF16(value) : toF16(value); }

struct GatherCase {
  DType type, outType;
  int64_t tokens, columns;
  int64_t stride0, stride1; // elements; 0, 0: contiguous
  size_t offset = 0;        // bytes of misalignment
};

void checkGather(const GatherCase &c, bool byToken, bool liveOnly, std::mt19937_64 &random) {
  SCOPED_TRACE(testing::Message() << name(c.type) << " to " << name(c.outType) << " [" << c.tokens << ", "
                                  << c.columns << "] strides " << c.stride0 << ", " << c.stride1 << " offset "
                                  << c.offset << (byToken ? " by token" : "") << (liveOnly ? " live" : ""));
  int64_t stride0 = c.stride0 ? c.stride0 : c.columns, stride1 = c.stride1 ? c.stride1 : 1;
  gpu::Span span = gpu::spanOf({c.tokens, c.columns}, {stride0, stride1});
  Elements x = randomElements(c.type, size_t(span.count), random);
  x.set(0, std::numeric_limits<float>::infinity());
  if (x.count() > 2) x.set(1, 65520.0f), x.set(2, 3e-8f);
  int64_t rows = byToken ? 2 * c.tokens + 3 : c.tokens, live = liveOnly ? rows - 2 : rows;
  std::vector<int32_t> rowToken(size_t(rows), -1), offsets = { 0, int32_t(live / 2), int32_t(live) };
  for (int64_t r = 0; r < live; ++r) rowToken[size_t(r)] = int32_t(random() % uint64_t(c.tokens));
  int64_t outStride = (c.columns + 7) / 8 * 8;
  DeviceArray<uint8_t> deviceX(x.bytes, c.offset);
  DeviceArray<int32_t> deviceToken(rowToken), deviceOffsets(offsets);
  auto out = DeviceArray<uint16_t>::fresh(size_t(rows * outStride));
  TensorView view{
      deviceX.data() - span.lowest * byteSize(c.type), c.type, {c.tokens, c.columns}, {stride0, stride1}};
  gpu::RowSource source{liveOnly ? deviceOffsets.data() : nullptr, byToken ? deviceToken.data() : nullptr,
                        rows, 2};
  ASSERT_TRUE(
      succeeded(gpu::gatherRows(*backend(), nullptr, view, source, out.data(), c.outType, outStride)));
  auto found = out.values();
  int64_t wrong = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < outStride; ++k) {
      uint16_t expected = 0;
      if (r >= live)
        expected = 0xffff; // not written
      else if (k < c.columns)
        expected = halfBits(
            c.outType,
            x.at(size_t(-span.lowest + (byToken ? rowToken[size_t(r)] : r) * stride0 + k * stride1)));
      wrong += found[size_t(r * outStride + k)] != expected;
    }
  EXPECT_EQ(wrong, 0);
}

} // namespace

TEST(GpuRows, GatherConvertsAnyLayout) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(11);
  for (DType type : types)
    for (DType outType : {DType::BF16, DType::F16}) {
      checkGather({type, outType, 9, 64, 0, 0}, true, true, random);      // 16 bytes at a time
      checkGather({type, outType, 5, 43, 0, 0}, true, true, random);      // rows start anywhere
      checkGather({type, outType, 4, 72, 80, 1, 4}, false, true, random); // the first element is not aligned
      checkGather({type, outType, 6, 24, 1, 6}, false, false, random);    // transposed
      checkGather({type, outType, 6, 24, -24, 1}, true, false, random);   // rows run backwards
      checkGather({type, outType, 3, 16, 16, -1}, false, false, random);
      checkGather({type, outType, 5, 8, 8, 1}, false, true, random);
      checkGather({type, outType, 40, 1, 1, 1}, true, true, random);
    }
  checkGather({DType::BF16, DType::BF16, 7, 2880, 0, 0}, true, true, random);
}

TEST(GpuRows, GatherTakesAllBitPatterns) {
  QUERN_NEEDS_DEVICE();
  for (DType type : {DType::BF16, DType::F16}) {
    std::vector<uint16_t> x(1 << 16);
    std::iota(x.begin(), x.end(), 0);
    DeviceArray<uint16_t> device(x);
    TensorView view{device.data(), type, {64, 1024}, {1024, 1}};
    for (DType outType : {DType::BF16, DType::F16}) {
      auto out = DeviceArray<uint16_t>::fresh(x.size());
      ASSERT_TRUE(succeeded(
          gpu::gatherRows(*backend(), nullptr, view, {nullptr, nullptr, 64, 1}, out.data(), outType, 1024)));
      auto found = out.values();
      for (size_t i = 0; i < x.size(); ++i) {
        float value = type == DType::BF16 ? fromBF16(x[i]) : fromF16(x[i]);
        uint16_t expected = type == outType ? x[i] : halfBits(outType, value);
        if (std::isnan(value) && type != outType)
          ASSERT_TRUE(std::isnan(outType == DType::BF16 ? fromBF16(found[i]) : fromF16(found[i]))) << i;
        else
          ASSERT_EQ(found[i], expected) << name(type) << " " << i << " to " << name(outType);
      }
    }
  }
}

TEST(GpuRows, Fp32RoundsToNearestEven) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(12);
  std::vector<float> x;
  for (uint32_t exponent = 0; exponent < 256;
       ++exponent) // every exponent: ties, just below, just above, random
    for (uint32_t low : {0u, 0x1000u, 0x0fffu, 0x1001u, 0x3000u, 0x8000u, 0x7fffu, 0x8001u, 0x18000u,
                         0x7fffffu, uint32_t(random()) & 0x7fffff, uint32_t(random()) & 0x7fffff})
      for (uint32_t sign : {0u, 1u}) x.push_back(std::bit_cast<float>(sign << 31 | exponent << 23 | low));
  int64_t columns = int64_t(x.size());
  DeviceArray<float> device(x);
  TensorView view{device.data(), DType::F32, {1, columns}, {columns, 1}};
  for (DType outType : {DType::BF16, DType::F16}) {
    auto out = DeviceArray<uint16_t>::fresh(x.size());
    ASSERT_TRUE(succeeded(
        gpu::gatherRows(*backend(), nullptr, view, {nullptr, nullptr, 1, 1}, out.data(), outType, columns)));
    auto found = out.values();
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i]))
        ASSERT_TRUE(std::isnan(outType == DType::BF16 ? fromBF16(found[i]) : fromF16(found[i]))) << i;
      else
        ASSERT_EQ(found[i], halfBits(outType, x[i]))
            << std::bit_cast<uint32_t>(x[i]) << " to " << name(outType);
    }
  }
}

namespace {

/// Rows of 9 tokens in random order, some choices without a row.
std::vector<int32_t> randomInverse(int64_t tokens, int64_t topK, std::mt19937_64 &random) {
  std::vector<int32_t> rows(size_t(tokens * topK));
  std::iota(rows.begin(), rows.end(), 0);
  std::shuffle(rows.begin(), rows.end(), random);
  for (int32_t &r : rows)
    if (random() % 4 == 0) r = -1;
  if (tokens > 1) std::fill(rows.begin(), rows.begin() + topK, -1); // a token without rows
  return rows;
}

} // namespace

TEST(GpuRows, CombineAddsInAscendingRowOrder) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(13);
  for (auto [tokens, topK, columns, pitch] : {std::tuple{9, 1, 64, 64},
                                              {9, 4, 64, 64},
                                              {70, 8, 36, 40},
                                              {9, 4, 43, 43},
                                              {3, 33, 4, 4},
                                              {2, 600, 12, 12},
                                              {5, 2, 1, 3},
                                              {6, 0, 8, 8}}) {
    SCOPED_TRACE(testing::Message() << tokens << " tokens, top_k " << topK << ", " << columns << " columns");
    auto inverse = randomInverse(tokens, topK, random);
    // Magnitudes far apart: another order of additions gives other bits.
    std::vector<float> partial(size_t(tokens * topK * columns));
    for (float &p : partial) p = std::ldexp(float(int(random() % 2001) - 1000), int(random() % 40) - 20);
    if (!partial.empty()) partial[0] = -0.0f;
    DeviceArray<float> devicePartial(partial);
    DeviceArray<int32_t> deviceInverse(inverse);
    auto out = DeviceArray<float>::fresh(size_t(tokens * pitch));
    TensorView view{out.data(), DType::F32, {tokens, columns}, {pitch, 1}};
    ASSERT_TRUE(succeeded(gpu::combineRows(*backend(), nullptr, devicePartial.data(), deviceInverse.data(),
                                           tokens * topK, topK, view)));
    auto found = out.values();
    for (int t = 0; t < tokens; ++t) {
      std::vector<int32_t> rows(inverse.begin() + t * topK, inverse.begin() + (t + 1) * topK);
      std::sort(rows.begin(), rows.end());
      for (int n = 0; n < columns; ++n) {
        float sum = 0;
        for (int32_t r : rows)
          if (r >= 0) sum += partial[size_t(r * columns + n)];
        ASSERT_EQ(std::bit_cast<uint32_t>(found[size_t(t * pitch + n)]), std::bit_cast<uint32_t>(sum))
            << t << ", " << n;
      }
    }
  }
}

TEST(GpuRows, CombineRefusesManyChoices) {
  QUERN_NEEDS_DEVICE();
  TensorView out{nullptr, DType::F32, {1, 4}, {4, 1}};
  Status status = gpu::combineRows(*backend(), nullptr, nullptr, nullptr, 1025, 1025, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().str(), "routing: top_k is 1025; expected at most 1024 on a GPU");
}

namespace {

struct LowRankCase {
  int64_t rows, columns, reduced;
  std::vector<int32_t> offsets; // rows of the experts
  bool byToken = false, byExpert = true;
};

void checkLowRank(const LowRankCase &c, DType type, std::mt19937_64 &random) {
  SCOPED_TRACE(testing::Message() << c.rows << " rows, P " << c.columns << ", K " << c.reduced << ", "
                                  << c.offsets.size() - 1 << " experts, " << name(type));
  int64_t experts = int64_t(c.offsets.size()) - 1, tokens = c.byToken ? 7 : c.rows, live = c.offsets.back();
  // Small integers: every sum is exact, in any order.
  auto integers = [&](size_t count) {
    Elements e(type, count);
    for (size_t i = 0; i < count; ++i) e.set(i, float(int(random() % 9) - 4));
    return e;
  };
  Elements lhs = integers(size_t(tokens * c.reduced)),
           rhs = integers(size_t((c.byExpert ? experts : 1) * c.columns * c.reduced));
  std::vector<int32_t> rowToken(size_t(c.rows), -1);
  for (int64_t r = 0; r < live; ++r) rowToken[size_t(r)] = int32_t(random() % uint64_t(tokens));
  DeviceArray<uint8_t> deviceLhs(lhs.bytes), deviceRhs(rhs.bytes);
  DeviceArray<int32_t> deviceToken(rowToken), deviceOffsets(c.offsets);
  auto out = DeviceArray<float>::fresh(size_t(c.rows * c.columns));
  TensorView left{deviceLhs.data(), type, {tokens, c.reduced}, {c.reduced, 1}};
  TensorView right{deviceRhs.data(), type, {c.columns, c.reduced}, {c.reduced, 1}};
  if (c.byExpert)
    right.shape.insert(right.shape.begin(), experts),
        right.strides.insert(right.strides.begin(), c.columns * c.reduced);
  gpu::RowSource source{deviceOffsets.data(), c.byToken ? deviceToken.data() : nullptr, c.rows, experts};
  ASSERT_TRUE(succeeded(gpu::lowRank(*backend(), nullptr, left, right, source, out.data())));
  auto found = out.values();
  for (int64_t e = 0; e < experts; ++e)
    for (int64_t r = c.offsets[size_t(e)]; r < c.offsets[size_t(e + 1)]; ++r)
      for (int64_t p = 0; p < c.columns; ++p) {
        float sum = 0;
        int64_t row = c.byToken ? rowToken[size_t(r)] : r,
                weights = ((c.byExpert ? e : 0) * c.columns + p) * c.reduced;
        for (int64_t k = 0; k < c.reduced; ++k)
          sum += lhs.at(size_t(row * c.reduced + k)) * rhs.at(size_t(weights + k));
        ASSERT_EQ(found[size_t(r * c.columns + p)], sum) << "row " << r << " column " << p;
      }
  for (int64_t i = live * c.columns; i < c.rows * c.columns; ++i) ASSERT_TRUE(std::isnan(found[size_t(i)]));
}

} // namespace

TEST(GpuRows, LowRankFactors) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(14);
  for (DType type : types) {
    checkLowRank({9, 4, 64, {0, 3, 3, 4, 8}, true}, type, random);   // a block for each row
    checkLowRank({100, 8, 70, {0, 37, 37, 98}, true}, type, random); // tiles
    checkLowRank({150, 40, 33, {0, 1, 65, 149}, false}, type, random);
    checkLowRank({70, 16, 96, {0, 70}, false, false}, type, random);
    checkLowRank({3, 16, 96, {0, 3}, false, false}, type, random);
    checkLowRank({64, 1, 1, {0, 0, 64, 64}, true}, type, random);
  }
}
