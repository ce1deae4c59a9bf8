// decodeExpert against the definition, one element at a time, and the checks of a packed operand with their
// texts.
#include "packing_reference.h"
#include <bit>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

using namespace quern;
using namespace quern::reference;
using syntax::Codec;
using syntax::ScaleType;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr DType dtypes[] = {DType::F32, DType::BF16, DType::F16};

/// One or more experts with random codes and scales of every kind, in bitsandbytes' order.
struct Operand {
  Codec codec;
  PackedView view;
  std::vector<std::vector<uint8_t>> codes, scales, zeros;

  Operand(int64_t experts, WeightShape shape, bool highFirst, ScaleType scaleType, bool hasZero,
          std::mt19937_64 &random) {
    codec.name = "test";
    codec.highFirst = highFirst, codec.scale = scaleType, codec.hasZero = hasZero;
    for (float &v : codec.table)
      v = hasZero ? float(random() % 16) : float(int64_t(random() % 2001) - 1000) / 999;
    view.experts = experts, view.shape = shape;
    int64_t scaleBytes = scaleType == ScaleType::F32 ? 4 : scaleType == ScaleType::BF16 ? 2 : 1;
    codes.resize(experts), scales.resize(experts), zeros.resize(experts);
    for (int64_t e = 0; e < experts; ++e) {
      for (int64_t i = 0; i < shape.codeBytes(); ++i) codes[e].push_back(uint8_t(random() >> 40));
      scales[e].resize(shape.scaleCount() * scaleBytes);
      for (int64_t i = 0; i < shape.scaleCount(); ++i) setScale(e, i, randomScale(random), uint8_t(random()));
      for (int64_t i = 0; i < shape.scaleCount(); ++i) zeros[e].push_back(random() % 16);
    }
    point();
  }
  static float randomScale(std::mt19937_64 &random) {
    switch (random() % 8) {
    case 0: return std::bit_cast<float>(uint32_t(random()));              // anything: NaN, subnormal, huge
    case 1: return std::bit_cast<float>(uint32_t(random() & 0x807fffff)); // subnormal or zero
    case 2: return random() % 2 ? inf : 0.0f;
    default: return float(random() % 100000) / 65536;
    }
  }
  void setScale(int64_t e, int64_t i, float value, uint8_t byte) {
    if (codec.scale == ScaleType::F32)
      std::memcpy(&scales[e][i * 4], &value, 4);
    else if (codec.scale == ScaleType::BF16)
      storeAs(DType::BF16, scales[e].data(), i, value);
    else
      scales[e][i] = byte;
  }
  void point() {
    view.codec = &codec;
    view.codes.clear(), view.scales.clear(), view.zeros.clear();
    for (auto &c : codes) view.codes.push_back(c.data());
    for (auto &s : scales) view.scales.push_back(s.data());
    if (codec.hasZero)
      for (auto &z : zeros) view.zeros.push_back(z.data());
  }
  void retile(Layout to) {
    int64_t scaleBytes = codec.scale == ScaleType::F32 ? 4 : codec.scale == ScaleType::BF16 ? 2 : 1;
    for (int64_t e = 0; e < view.experts; ++e) {
      retileCodes(codes[e].data(), view.shape, codec.highFirst, view.layout, to);
      retileScales(scales[e].data(), scaleBytes, view.shape, view.layout, to);
      retileScales(zeros[e].data(), 1, view.shape, view.layout, to);
    }
    view.layout = to;
  }
  /// From bitsandbytes' order, by the definition.
  float value(int64_t e, int64_t flat) const {
    int64_t block = flat / view.shape.block;
    float scale;
    if (codec.scale == ScaleType::F32)
      std::memcpy(&scale, &scales[e][block * 4], 4);
    else if (codec.scale == ScaleType::BF16)
      scale = loadAs(DType::BF16, scales[e].data(), block);
    else
      scale = scales[e][block] == 255 ? std::nanf("") : std::ldexp(1.0f, scales[e][block] - 127);
    float entry = codec.table[bnbNibble(codes[e].data(), flat, codec.highFirst)];
    if (codec.hasZero) entry -= float(zeros[e][block]);
    return roundTo(view.dtype, entry * scale);
  }
};

int64_t countWrong(const std::vector<float> &expected, DType out, const void *data) {
  int64_t wrong = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    float found = loadAs(out, data, i), want = roundTo(out, expected[i]);
    bool same = std::bit_cast<uint32_t>(found) == std::bit_cast<uint32_t>(want);
    wrong += !(same || (std::isnan(found) && std::isnan(want)));
  }
  return wrong;
}

void checkDecode(Operand &operand) {
  const WeightShape &s = operand.view.shape;
  SCOPED_TRACE(testing::Message() << "N " << s.n << " K " << s.k << " block " << s.block << " highFirst "
                                  << operand.codec.highFirst << " scale " << int(operand.codec.scale)
                                  << " zero " << operand.codec.hasZero << " dtype "
                                  << name(operand.view.dtype));
  ASSERT_TRUE(checkPacked(operand.view, "w"));
  int64_t last = operand.view.experts - 1;
  std::vector<float> expected(s.n * s.k);
  for (int64_t i = 0; i < s.n * s.k; ++i) expected[i] = operand.value(last, i);
  for (Layout layout : {Layout::Bnb, Layout::Cpu, Layout::Gpu}) {
    operand.retile(layout);
    for (DType out : dtypes) {
      std::vector<uint8_t> data(s.n * s.k * byteSize(out) + 16, 0xff); // NaN before the call
      decodeExpert(operand.view, last, out, data.data());
      EXPECT_EQ(countWrong(expected, out, data.data()), 0) << name(layout) << " to " << name(out);
      for (int i = 0; i < 16; ++i) EXPECT_EQ(data[data.size() - 16 + i], 0xff) << "written past the end";
    }
  }
  operand.retile(Layout::Bnb);
}

TEST(PackingDecode, AgainstTheDefinition) {
  auto random = seeded();
  for (int64_t block : {32, 64, 128, 256, 4096})
    for (auto [n, k] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 2}, {3, 34}, {32, 64}, {33, 66}, {64, 96}, {65, 130}, {100, 192}, {129, 320}})
      for (int variant = 0; variant < 12; ++variant) {
        Operand operand(1, {n, k, block}, variant % 2, ScaleType(variant / 2 % 3), variant / 6, random);
        operand.view.dtype = dtypes[random() % 3];
        checkDecode(operand);
      }
}

TEST(PackingDecode, RealShapes) {
  auto random = seeded();
  for (int64_t block : {32, 64, 128, 4096}) {
    Operand operand(1, {96, 2880, block}, true, ScaleType::F32, false, random);
    checkDecode(operand);
  }
  Operand stack(3, {64, 2880, 64}, false, ScaleType::E8M0, false, random);
  checkDecode(stack);
}

TEST(PackingDecode, TwoRoundings) {
  // 1.0043 in f16 is 1.00390625, halfway between the bf16 neighbours, so 1.0; straight to bf16 it would
  // be 1.0078125.
  Codec codec;
  codec.table.fill(1.0f);
  float scale = 1.0043f;
  uint8_t code = 0;
  PackedView view;
  view.codec = &codec, view.shape = {1, 2, 64}, view.dtype = DType::F16;
  view.codes = {&code}, view.scales = {&scale};
  uint16_t out[2];
  decodeExpert(view, 0, DType::BF16, out);
  EXPECT_EQ(fromBF16(out[0]), 1.0f);
  EXPECT_EQ(fromBF16(toBF16(scale)), 1.0078125f);
}

#if defined(__x86_64__)
TEST(PackingDecode, KeepsSubnormalsInAFlushingThread) {
  Codec codec;
  codec.table.fill(0.5f);
  float scale = 1e-38f, out[2];
  uint8_t code = 0;
  PackedView view;
  view.codec = &codec, view.shape = {1, 2, 64}, view.dtype = DType::F32;
  view.codes = {&code}, view.scales = {&scale};
  unsigned before = _mm_getcsr();
  _mm_setcsr(0x9fc0);
  decodeExpert(view, 0, DType::F32, out);
  _mm_setcsr(before);
  EXPECT_EQ(out[0], 5e-39f);
}
#endif

std::string messageOf(const PackedView &view) {
  Status status = checkPacked(view, "w");
  return status ? "no error" : status.error().str();
}

TEST(PackedChecks, Messages) {
  auto random = seeded();
  Operand good(2, {32, 64, 64}, true, ScaleType::F32, false, random);
  EXPECT_EQ(messageOf(good.view), "no error");
  auto with = [&](auto change) {
    PackedView view = good.view;
    change(view);
    return messageOf(view);
  };
  EXPECT_EQ(with([](auto &v) { v.shape.k = 63; }),
            "argument 'w': K is 63; expected an even K (two codes per byte)");
  EXPECT_EQ(with([](auto &v) { v.shape.n = 0; }),
            "argument 'w': a weight of N = 0, K = 64; expected at least one row and column");
  EXPECT_EQ(with([](auto &v) { v.shape.block = 16; }),
            "argument 'w': block size is 16; expected a power of two in 32..4096");
  EXPECT_EQ(with([](auto &v) { v.shape.block = 8192; }),
            "argument 'w': block size is 8192; expected a power of two in 32..4096");
  EXPECT_EQ(with([](auto &v) { v.shape.block = 96; }),
            "argument 'w': block size is 96; expected a power of two in 32..4096");
  EXPECT_EQ(with([](auto &v) { v.shape.block = -64; }),
            "argument 'w': block size is -64; expected a power of two in 32..4096");
  EXPECT_EQ(
      with([](auto &v) { v.shape.n = int64_t(1) << 40, v.shape.k = int64_t(1) << 40; }),
      "argument 'w': a weight of N = 1099511627776, K = 1099511627776; expected fewer than 2^60 elements");
  EXPECT_EQ(with([](auto &v) { v.experts = 0; }), "argument 'w': 0 experts; expected at least one");
  EXPECT_EQ(with([](auto &v) { v.hasExpertDim = false; }),
            "argument 'w': 2 experts in an operand without expert dimension; expected one");
  EXPECT_EQ(with([](auto &v) { v.codes.pop_back(); }),
            "argument 'w': 1 codes arrays; expected one for each of 2 experts");
  EXPECT_EQ(with([](auto &v) { v.codes[1] = nullptr; }), "argument 'w': expert 1 has no codes");
  EXPECT_EQ(with([](auto &v) { v.scales[0] = nullptr; }), "argument 'w': expert 0 has no scales");
  EXPECT_EQ(with([](auto &v) { v.scales.clear(); }),
            "argument 'w': 0 scales arrays; expected one for each of 2 experts");
  uint8_t zero = 0;
  EXPECT_EQ(with([&](auto &v) { v.zeros = {&zero}; }),
            "argument 'w': 1 zeros arrays; expected none: codec 'test' has no zero");
  EXPECT_EQ(
      with([](auto &v) { v.codec = nullptr; }),
      "argument 'w': internal error: a packed operand without codec\nPlease report this with the input.");
  Operand zeros(2, {32, 64, 64}, true, ScaleType::F32, true, random);
  zeros.view.zeros.pop_back();
  EXPECT_EQ(messageOf(zeros.view), "argument 'w': 1 zeros arrays; expected one for each of 2 experts");
  // One expert may end inside a block.
  Operand single(1, {3, 34, 64}, true, ScaleType::F32, false, random);
  EXPECT_EQ(messageOf(single.view), "no error");
}

} // namespace
