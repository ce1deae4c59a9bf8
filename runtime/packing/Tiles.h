// Inside the packing folder: one block of codes between bitsandbytes' rows and a tiled layout, and where
// scales and rows lie.
#pragma once
#include "runtime/packing/Layout.h"

namespace quern {

/// A full block of a tiled layout: `rows` x 64 codes. `toTile` reads the block's rows from `rows` (`rowBytes`
/// apart, 32 bytes of each) and writes rows * 32 contiguous bytes; `toRows` is its inverse. `highFirst`:
/// nibble order of the rows.
struct TileCodec {
  int64_t rows;
  void (*toTile)(const uint8_t *rows, int64_t rowBytes, bool highFirst, uint8_t *tile);
  void (*toRows)(const uint8_t *tile, bool highFirst, uint8_t *rows, int64_t rowBytes);
};
extern const TileCodec cpuTile, gpuTile;
/// Null for Bnb.
const TileCodec *tileCodec(Layout layout);

/// Copies rows [row0, row0 + count) to `out` as bitsandbytes' bytes (K/2 per row). row0 and count must be
/// multiples of the layout's panel (32 or 64 rows) except that count may end with the last row; any row0 and
/// count for Bnb.
void readRows(const uint8_t *codes, const WeightShape &shape, bool highFirst, Layout layout, int64_t row0,
              int64_t count, uint8_t *out);

/// Where the scale that has index `i` in bitsandbytes' order lies.
int64_t scaleIndex(const WeightShape &shape, Layout layout, int64_t i);

} // namespace quern
