// Where the 4-bit codes and scales of one expert's [N, K] weight lie, and the in-place, reversible moves
// between layouts.
//
// Sizes never change: codes are N*K/2 bytes (K is even), scales are ceil(N*K/block) elements.
//
// Bnb: bitsandbytes' own order. Codes flattened row-major, two per byte; element 2j is the high nibble
//   of byte j when the codec says first = high, else the low one. Scale i belongs to flat elements
//   [i*block, (i+1)*block).
//
// Cpu: codes [N/32][K/64][1024 B] for the rows below N32 = N/32*32 and columns below K64 = K/64*64. In a 1 KB
//   block, line l (64 bytes, l = 0..15) holds rows 2l and 2l+1 of the 32; its little-endian 16-bit word j
//   (j = 0..31) holds, from the lowest nibble up, the codes of (2l, j), (2l, 32+j), (2l+1, j), (2l+1, 32+j).
//   Then the edge strips, in Bnb order and nibble order: columns K64..K of rows 0..N32 row by row ((K-K64)/2
//   bytes each), then rows N32..N whole (K/2 bytes each).
//   Scales: when K % block == 0, [N/32][K/block][32] for rows below N32, then the rows N32..N in Bnb order;
//   else Bnb order.
//
// Gpu: codes [N/64][K/64][2048 B] of 2x2 units (in each slab of 16 rows, MMA rows g and g+8 are logical
//   rows 2g and 2g+1): unit (w,g,c,j) is 16 bits = codes (n,k)(n,k+1)(n+1,k)(n+1,k+1), low nibble first,
//   n = 2(8w+g), k = 2(c+4j), at byte (j>>2)*1024 + (32w+4g+c)*8 + (j&3)*2 of its block; edge strips after
//   the full blocks as above with 64 for 32.
//   Scales: when block == 64 and K % 64 == 0, [K/64][N]; else Bnb order.
#pragma once
#include "compiler/support/DType.h"
#include "compiler/support/Error.h"
#include <cstdint>

namespace quern {

enum class Layout : uint8_t { Bnb = 0, Cpu = 1, Gpu = 2 };
constexpr std::string_view name(Layout l) {
  return l == Layout::Bnb ? "bnb" : l == Layout::Cpu ? "cpu" : "gpu";
}

/// Geometry of one expert.
struct WeightShape {
  int64_t n = 0, k = 0, block = 64;
  int64_t codeBytes() const { return n * k / 2; }
  int64_t scaleCount() const { return (n * k + block - 1) / block; }
};

/// Moves `codes` (shape.codeBytes() bytes) from one layout to another in place. Scratch is one panel of 32 or
/// 64 rows, and the columns K64..K (31 bytes a row at most). `highFirst`: nibble order of the Bnb form.
/// Thread safe on distinct buffers.
void retileCodes(uint8_t *codes, const WeightShape &shape, bool highFirst, Layout from, Layout to);
/// The same for scales (or zeros); `elementBytes` is 4 (f32), 2 (bf16) or 1 (e8m0, u4 zero). Scratch is a
/// panel's scales, for Gpu the expert's.
void retileScales(void *scales, int64_t elementBytes, const WeightShape &shape, Layout from, Layout to);

} // namespace quern
