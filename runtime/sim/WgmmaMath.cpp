// The arithmetic of m64nNk16: fp32 accumulation of exact products. (The tensor core adds the 16 products in
// an order and a width of its own; sums of integers below 2^24 are equal bit for bit.)
#include "runtime/sim/Multiversion.h"
#include "runtime/sim/Wgmma.h"
#include <cstring>

namespace quern::sim {

QSIM_MULTIVERSION void multiplyAccumulate(const float (*a)[16], const float (*b)[maxN], float *c,
                                          uint32_t n) {
  typedef float Vector __attribute__((vector_size(32), aligned(4)));
  constexpr uint32_t width = 8, rows = 4;
  for (uint32_t row = 0; row < 64; row += rows)
    for (uint32_t column = 0; column < n; column += width) {
      Vector sum[rows] = {};
      for (uint32_t k = 0; k < 16; ++k) {
        const Vector bv = *reinterpret_cast<const Vector *>(&b[k][column]);
        for (uint32_t r = 0; r < rows; ++r) sum[r] += a[row + r][k] * bv;
      }
      for (uint32_t r = 0; r < rows; ++r) *reinterpret_cast<Vector *>(c + (row + r) * n + column) += sum[r];
    }
}

QSIM_MULTIVERSION static void widenBf16(const uint16_t *from, uint32_t *to, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) to[i] = uint32_t(from[i]) << 16;
}

// Multiplying by 2^112 moves the exponent from f16's bias to fp32's and is exact, subnormals included.
QSIM_MULTIVERSION static void widenF16(const uint16_t *from, float *to, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t magnitude = (from[i] & 0x7fffu) << 13;
    float value;
    std::memcpy(&value, &magnitude, 4);
    value *= 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits |= magnitude >= 0x7c00u << 13 ? 0x7f800000u : 0u; // infinities and NaNs
    bits |= (from[i] & 0x8000u) << 16;
    std::memcpy(to + i, &bits, 4);
  }
}

void widen(const uint16_t *from, float *to, uint32_t count, bool isF16) {
  if (isF16)
    widenF16(from, to, count);
  else
    widenBf16(from, reinterpret_cast<uint32_t *>(to), count);
}

} // namespace quern::sim
