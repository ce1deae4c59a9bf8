// What Layout.h's comment says, written as one address per code and per scale: slow, and independent of the
// code under test.
#pragma once
#include "runtime/packing/Packed.h"
#include <iostream>
#include <random>
#include <vector>

namespace quern::reference {

inline std::mt19937_64 seeded() {
  uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return std::mt19937_64(seed);
}

inline uint8_t bnbNibble(const uint8_t *bytes, int64_t flat, bool highFirst) {
  bool high = (flat % 2 == 0) == highFirst;
  return high ? bytes[flat / 2] >> 4 : bytes[flat / 2] & 15;
}

/// Code (n, k) of an expert in `layout`.
inline uint8_t codeAt(const uint8_t *codes, const WeightShape &s, bool highFirst, Layout layout, int64_t n,
                      int64_t k) {
  if (layout == Layout::Bnb) return bnbNibble(codes, n * s.k + k, highFirst);
  int64_t rows = layout == Layout::Cpu ? 32 : 64;
  int64_t mainN = s.n / rows * rows, mainK = s.k / 64 * 64;
  if (n >= mainN) return bnbNibble(codes + mainN * s.k / 2, (n - mainN) * s.k + k, highFirst);
  if (k >= mainK) return bnbNibble(codes + mainN * mainK / 2, n * (s.k - mainK) + k - mainK, highFirst);
  const uint8_t *block = codes + ((n / rows) * (s.k / 64) + k / 64) * rows * 32;
  int64_t r = n % rows, column = k % 64;
  if (layout == Layout::Cpu) {
    int64_t line = r / 2, word = column % 32, nibble = (r % 2) * 2 + column / 32;
    uint16_t value = uint16_t(block[line * 64 + word * 2] | block[line * 64 + word * 2 + 1] << 8);
    return value >> (4 * nibble) & 15;
  }
  int64_t w = r / 16, g = r % 16 / 2, c = column / 2 % 4, j = column / 8;
  const uint8_t *unit = block + (j >> 2) * 1024 + (32 * w + 4 * g + c) * 8 + (j & 3) * 2;
  uint16_t value = uint16_t(unit[0] | unit[1] << 8);
  return value >> (4 * ((r % 2) * 2 + column % 2)) & 15;
}

/// Where the scale of element (n, k) lies in `layout`.
inline int64_t scaleAt(const WeightShape &s, Layout layout, int64_t n, int64_t k) {
  int64_t perRow = s.k / s.block;
  if (layout == Layout::Cpu && s.k % s.block == 0 && n < s.n / 32 * 32)
    return ((n / 32) * perRow + k / s.block) * 32 + n % 32;
  if (layout == Layout::Gpu && s.block == 64 && s.k % 64 == 0) return k / 64 * s.n + n;
  return (n * s.k + k) / s.block;
}

} // namespace quern::reference
