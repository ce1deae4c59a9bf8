// AmxDot: the arithmetic of tdpbf16ps, in the order of the Intel SDM vol. 2, "TDPBF16PS", Operation.
//
// For each row m the SDM keeps two running sums per column, one over the even and one over the odd element of
// each pair; every step is an fp32 FMA with one rounding. Only after the last pair are the two added, and
// that sum is then added to C:
//   temp[2n+i] = fma(A[m].bf16[2k+i], B[k].bf16[2n+i], temp[2n+i])   for k = 0, 1, ...; i = 0, 1
//   C[m][n]    = C[m][n] + (temp[2n] + temp[2n+1])
// Note that the intrinsics guide's shorter text (both products straight into C) gives other bits.
#include "AmxTiles.h"
#include <bit>
#include <cstring>

namespace quern::amx {
namespace {

// Rows are always 16 columns wide here: columns beyond the tile's own hold zeros and are cleared again at the
// end.
[[gnu::always_inline]] inline void dotRows(uint8_t (*c)[64], const uint8_t (*a)[64], const uint8_t (*b)[64],
                                           int rows, int pairs, int columns) {
  for (int m = 0; m < rows; ++m) {
    float even[16] = {}, odd[16] = {}, sum[16];
    for (int k = 0; k < pairs; ++k) {
      uint32_t pair, bRow[16];
      std::memcpy(&pair, a[m] + 4 * k, sizeof pair);
      std::memcpy(bRow, b[k], sizeof bRow);
      const float aEven = std::bit_cast<float>(pair << 16), aOdd = std::bit_cast<float>(pair & 0xFFFF0000u);
      for (int n = 0; n < 16; ++n) {
        even[n] = __builtin_fmaf(aEven, std::bit_cast<float>(bRow[n] << 16), even[n]);
        odd[n] = __builtin_fmaf(aOdd, std::bit_cast<float>(bRow[n] & 0xFFFF0000u), odd[n]);
      }
    }
    std::memcpy(sum, c[m], sizeof sum);
    for (int n = 0; n < 16; ++n) sum[n] = n < columns ? sum[n] + (even[n] + odd[n]) : 0.0f;
    std::memcpy(c[m], sum, sizeof sum);
  }
}

} // namespace

[[gnu::target("avx2,fma")]] void dotBf16Avx2(uint8_t (*c)[64], const uint8_t (*a)[64], const uint8_t (*b)[64],
                                             int rows, int pairs, int columns) {
  dotRows(c, a, b, rows, pairs, columns);
}

[[gnu::target("avx512f,fma")]] void dotBf16Avx512(uint8_t (*c)[64], const uint8_t (*a)[64],
                                                  const uint8_t (*b)[64], int rows, int pairs, int columns) {
  dotRows(c, a, b, rows, pairs, columns);
}

} // namespace quern::amx
