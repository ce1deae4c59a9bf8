// Re-tiling: every layout holds each code and scale where the documentation says, and every move can be
// undone to the same bytes.
#include "packing_reference.h"
#include <algorithm>
#include <gtest/gtest.h>
#include <set>

using namespace quern;
using namespace quern::reference;

namespace {

constexpr Layout layouts[] = {Layout::Bnb, Layout::Cpu, Layout::Gpu};
constexpr uint8_t guard = 0xa5;
constexpr int64_t guardBytes = 256;

/// Random bytes with a guard behind them, in an allocation of their exact size.
std::vector<uint8_t> randomBytes(int64_t count, std::mt19937_64 &random) {
  std::vector<uint8_t> bytes(count + guardBytes, guard);
  for (int64_t i = 0; i < count; ++i) bytes[i] = uint8_t(random() >> 32);
  return bytes;
}

bool guarded(const std::vector<uint8_t> &bytes) {
  return std::all_of(bytes.end() - guardBytes, bytes.end(), [](uint8_t b) { return b == guard; });
}

int64_t countWrongCodes(const std::vector<uint8_t> &bnb, const std::vector<uint8_t> &tiled,
                        const WeightShape &s, bool highFirst, Layout layout) {
  int64_t wrong = 0;
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t k = 0; k < s.k; ++k)
      wrong += codeAt(tiled.data(), s, highFirst, layout, n, k) !=
               codeAt(bnb.data(), s, highFirst, Layout::Bnb, n, k);
  return wrong;
}

void checkCodes(const WeightShape &s, bool highFirst, std::mt19937_64 &random) {
  SCOPED_TRACE(testing::Message() << "N " << s.n << " K " << s.k << " highFirst " << highFirst);
  auto bnb = randomBytes(s.codeBytes(), random);
  for (Layout from : layouts)
    for (Layout to : layouts) {
      auto bytes = bnb;
      retileCodes(bytes.data(), s, highFirst, Layout::Bnb, from);
      auto start = bytes;
      retileCodes(bytes.data(), s, highFirst, from, to);
      EXPECT_EQ(countWrongCodes(bnb, bytes, s, highFirst, to), 0) << name(from) << " to " << name(to);
      EXPECT_TRUE(guarded(bytes));
      retileCodes(bytes.data(), s, highFirst, to, from);
      EXPECT_EQ(bytes, start) << name(to) << " back to " << name(from);
    }
}

TEST(PackingLayout, CodesLieWhereDocumented) {
  auto random = seeded();
  for (int64_t n : {1, 2, 31, 32, 33, 63, 64, 65, 96, 101, 128, 160})
    for (int64_t k : {2, 34, 62, 64, 66, 96, 126, 128, 130, 320})
      for (bool highFirst : {false, true}) checkCodes({n, k, 64}, highFirst, random);
}

TEST(PackingLayout, CodesOfRealShapes) {
  auto random = seeded();
  for (bool highFirst : {false, true}) {
    checkCodes({160, 2880, 64}, highFirst, random);
    checkCodes({97, 2882, 128}, highFirst, random);
    checkCodes({64, 704, 64}, highFirst, random);
  }
}

TEST(PackingLayout, AllByteValuesInEveryPlaceOfABlock) {
  // Byte p of the block takes all 256 values over 256 rounds.
  WeightShape s{64, 64, 64};
  std::set<int> seen;
  for (int round = 0; round < 256; ++round) {
    std::vector<uint8_t> bnb(s.codeBytes());
    for (size_t p = 0; p < bnb.size(); ++p) bnb[p] = uint8_t(round + p * 7);
    seen.insert(bnb[100]);
    for (Layout layout : {Layout::Cpu, Layout::Gpu})
      for (bool highFirst : {false, true}) {
        auto bytes = bnb;
        retileCodes(bytes.data(), s, highFirst, Layout::Bnb, layout);
        ASSERT_EQ(countWrongCodes(bnb, bytes, s, highFirst, layout), 0) << name(layout) << " round " << round;
        retileCodes(bytes.data(), s, highFirst, layout, Layout::Bnb);
        ASSERT_EQ(bytes, bnb);
      }
  }
  EXPECT_EQ(seen.size(), 256u);
}

TEST(PackingLayout, CpuLineByHand) {
  // Row 0 holds 1, 2, 3, ... and row 1 holds 15, 14, 13, ...; word j = (0,j) (0,32+j) (1,j) (1,32+j) from the
  // lowest nibble up.
  WeightShape s{32, 64, 64};
  std::vector<uint8_t> bytes(s.codeBytes(), 0);
  for (int k = 0; k < 64; k += 2) {
    bytes[k / 2] = uint8_t(((k + 1) & 15) << 4 | ((k + 2) & 15));
    bytes[32 + k / 2] = uint8_t(((15 - k) & 15) << 4 | ((14 - k) & 15));
  }
  retileCodes(bytes.data(), s, true, Layout::Bnb, Layout::Cpu);
  EXPECT_EQ(bytes[0], 0x11); // (0,32) = 33 & 15 = 1, (0,0) = 1
  EXPECT_EQ(bytes[1], 0xff); // (1,32), (1,0)
  EXPECT_EQ(bytes[2], 0x22);
  EXPECT_EQ(bytes[3], 0xee);
  EXPECT_EQ(bytes[62], 0x00); // (0,63) = 64 & 15, (0,31) = 32 & 15
  EXPECT_EQ(bytes[64], 0x00); // rows 2 and 3 are zero
}

template <class T> void checkScales(const WeightShape &s, std::mt19937_64 &random) {
  SCOPED_TRACE(testing::Message() << "N " << s.n << " K " << s.k << " block " << s.block << " bytes "
                                  << sizeof(T));
  std::vector<T> bnb(s.scaleCount() + 8, T(0xa5a5a5a5));
  for (int64_t i = 0; i < s.scaleCount(); ++i) bnb[i] = sizeof(T) == 4 ? T(i) : T(random());
  for (Layout from : layouts)
    for (Layout to : layouts) {
      auto scales = bnb;
      retileScales(scales.data(), sizeof(T), s, Layout::Bnb, from);
      auto start = scales;
      retileScales(scales.data(), sizeof(T), s, from, to);
      int64_t wrong = 0;
      for (int64_t n = 0; n < s.n; ++n)
        for (int64_t k = 0; k < s.k; k += 2)
          wrong += scales[scaleAt(s, to, n, k)] != bnb[(n * s.k + k) / s.block];
      EXPECT_EQ(wrong, 0) << name(from) << " to " << name(to);
      EXPECT_TRUE(std::equal(scales.end() - 8, scales.end(), bnb.end() - 8));
      retileScales(scales.data(), sizeof(T), s, to, from);
      EXPECT_EQ(scales, start) << name(to) << " back to " << name(from);
    }
}

TEST(PackingLayout, ScalesLieWhereDocumented) {
  auto random = seeded();
  for (int64_t block : {32, 64, 128, 256, 512, 1024, 2048, 4096})
    for (int64_t n : {1, 31, 32, 33, 64, 70, 96})
      for (int64_t k : std::vector<int64_t>{2, 32, 34, 64, 66, 96, 128, 130, 192, 512, block, 3 * block}) {
        checkScales<uint32_t>({n, k, block}, random);
        checkScales<uint16_t>({n, k, block}, random);
        checkScales<uint8_t>({n, k, block}, random);
      }
  for (int64_t block : {32, 64, 128, 4096}) checkScales<uint32_t>({161, 2880, block}, random);
}

TEST(PackingLayout, Names) {
  EXPECT_EQ(name(Layout::Bnb), "bnb");
  EXPECT_EQ(name(Layout::Cpu), "cpu");
  EXPECT_EQ(name(Layout::Gpu), "gpu");
}

} // namespace
