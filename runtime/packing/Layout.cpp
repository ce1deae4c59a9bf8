// In-place re-tiling. Every move goes through bitsandbytes' order, one row panel at a time.
//
// A panel of P rows has P*K/2 bytes; its full blocks take P*K64/2 bytes at P*K64/2 * index, its tail columns
// go behind all full blocks. Towards the tiles, panels are taken in ascending order: where a panel's blocks
// go, only panels that were already taken lay (K64 <= K). Back, in descending order for the same reason.
// Tails wait in a buffer of their own meanwhile (at most 31 bytes a row).
#include "runtime/packing/Layout.h"
#include "runtime/packing/Tiles.h"
#include <algorithm>
#include <cstring>
#include <memory>

namespace quern {
namespace {

/// Sizes of the tiled region of a layout.
struct Region {
  int64_t panelRows, panels, blocks;      // blocks: in a panel
  int64_t rowBytes, mainBytes, tailBytes; // of one row; rowBytes = mainBytes + tailBytes
  Region(const WeightShape &shape, const TileCodec &tile)
      : panelRows(tile.rows), panels(shape.n / tile.rows), blocks(shape.k / 64), rowBytes(shape.k / 2),
        mainBytes(blocks * 32), tailBytes(rowBytes - mainBytes) {}
  bool empty() const { return panels == 0 || blocks == 0; } // then both orders are the same
  int64_t tailsBytes() const { return panels * panelRows * tailBytes; }
};

std::unique_ptr<uint8_t[]> buffer(int64_t bytes) { return std::make_unique_for_overwrite<uint8_t[]>(bytes); }

void toTiles(uint8_t *codes, const WeightShape &shape, bool highFirst, const TileCodec &tile) {
  Region g(shape, tile);
  if (g.empty()) return;
  auto panel = buffer(g.panelRows * g.rowBytes), tails = buffer(g.tailsBytes());
  for (int64_t p = 0; p < g.panels; ++p) {
    std::memcpy(panel.get(), codes + p * g.panelRows * g.rowBytes, g.panelRows * g.rowBytes);
    uint8_t *out = codes + p * g.panelRows * g.mainBytes;
    for (int64_t b = 0; b < g.blocks; ++b)
      tile.toTile(panel.get() + b * 32, g.rowBytes, highFirst, out + b * g.panelRows * 32);
    for (int64_t r = 0; r < g.panelRows && g.tailBytes; ++r)
      std::memcpy(tails.get() + (p * g.panelRows + r) * g.tailBytes,
                  panel.get() + r * g.rowBytes + g.mainBytes, g.tailBytes);
  }
  std::memcpy(codes + g.panels * g.panelRows * g.mainBytes, tails.get(), g.tailsBytes());
}

void fromTiles(uint8_t *codes, const WeightShape &shape, bool highFirst, const TileCodec &tile) {
  Region g(shape, tile);
  if (g.empty()) return;
  auto panel = buffer(g.panelRows * g.mainBytes), tails = buffer(g.tailsBytes());
  std::memcpy(tails.get(), codes + g.panels * g.panelRows * g.mainBytes, g.tailsBytes());
  for (int64_t p = g.panels; p-- > 0;) {
    std::memcpy(panel.get(), codes + p * g.panelRows * g.mainBytes, g.panelRows * g.mainBytes);
    uint8_t *out = codes + p * g.panelRows * g.rowBytes;
    for (int64_t b = 0; b < g.blocks; ++b)
      tile.toRows(panel.get() + b * g.panelRows * 32, highFirst, out + b * 32, g.rowBytes);
    for (int64_t r = 0; r < g.panelRows && g.tailBytes; ++r)
      std::memcpy(out + r * g.rowBytes + g.mainBytes, tails.get() + (p * g.panelRows + r) * g.tailBytes,
                  g.tailBytes);
  }
}

/// out[c][r] = in[r][c].
template <class T> void transpose(const T *in, int64_t rows, int64_t columns, T *out) {
  constexpr int64_t step = 16; // square pieces, so that neither side strides through memory
  for (int64_t r0 = 0; r0 < rows; r0 += step)
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t r = r0; r < std::min(r0 + step, rows); ++r) out[c * rows + r] = in[r * columns + c];
}

/// Transposes a rows x columns matrix of T in its own place, by way of a copy.
template <class T> void transposeInPlace(T *data, int64_t rows, int64_t columns, T *copy) {
  std::memcpy(copy, data, rows * columns * sizeof(T));
  transpose(copy, rows, columns, data);
}

/// Between bitsandbytes' order and `layout`; `forward` is towards the layout. Indices: see scaleIndex.
template <class T> void moveScales(T *scales, const WeightShape &shape, Layout layout, bool forward) {
  if (layout == Layout::Bnb || shape.k % shape.block || (layout == Layout::Gpu && shape.block != 64)) return;
  int64_t perRow = shape.k / shape.block;
  int64_t panelRows = layout == Layout::Cpu ? 32 : shape.n;
  auto copy = std::make_unique_for_overwrite<T[]>(panelRows * perRow);
  for (int64_t row = 0; row + panelRows <= shape.n; row += panelRows)
    transposeInPlace(scales + row * perRow, forward ? panelRows : perRow, forward ? perRow : panelRows,
                     copy.get());
}

} // namespace

void retileCodes(uint8_t *codes, const WeightShape &shape, bool highFirst, Layout from, Layout to) {
  if (from == to) return;
  if (const TileCodec *tile = tileCodec(from)) fromTiles(codes, shape, highFirst, *tile);
  if (const TileCodec *tile = tileCodec(to)) toTiles(codes, shape, highFirst, *tile);
}

void retileScales(void *scales, int64_t elementBytes, const WeightShape &shape, Layout from, Layout to) {
  if (from == to) return;
  auto move = [&](auto *typed) {
    moveScales(typed, shape, from, false);
    moveScales(typed, shape, to, true);
  };
  if (elementBytes == 4)
    move(static_cast<uint32_t *>(scales));
  else if (elementBytes == 2)
    move(static_cast<uint16_t *>(scales));
  else
    move(static_cast<uint8_t *>(scales));
}

} // namespace quern
