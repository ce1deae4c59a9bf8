// The two tiled blocks of Layout.h. Loops have fixed counts of 16 and touch bytes only, so that compilers
// turn them into shuffles.
#include "runtime/packing/Tiles.h"
#include <algorithm>
#include <cstring>

namespace quern {
namespace {

template <bool HighFirst> uint8_t firstNibble(uint8_t byte) { return HighFirst ? byte >> 4 : byte & 15; }
template <bool HighFirst> uint8_t secondNibble(uint8_t byte) { return HighFirst ? byte & 15 : byte >> 4; }
template <bool HighFirst> uint8_t joinNibbles(uint8_t first, uint8_t second) {
  return HighFirst ? uint8_t(first << 4 | second) : uint8_t(second << 4 | first);
}

/// Cpu line: rows a and b (32 bytes each) to 64 bytes. Byte i of a row holds columns 2i, 2i+1; byte 16+i
/// columns 32+2i, 33+2i.
template <bool HighFirst>
void cpuLineToTile(const uint8_t *__restrict a, const uint8_t *__restrict b, uint8_t *__restrict out) {
  for (int i = 0; i < 16; ++i) {
    out[4 * i + 0] = uint8_t(firstNibble<HighFirst>(a[i]) | firstNibble<HighFirst>(a[16 + i]) << 4);
    out[4 * i + 1] = uint8_t(firstNibble<HighFirst>(b[i]) | firstNibble<HighFirst>(b[16 + i]) << 4);
    out[4 * i + 2] = uint8_t(secondNibble<HighFirst>(a[i]) | secondNibble<HighFirst>(a[16 + i]) << 4);
    out[4 * i + 3] = uint8_t(secondNibble<HighFirst>(b[i]) | secondNibble<HighFirst>(b[16 + i]) << 4);
  }
}

template <bool HighFirst>
void cpuLineToRows(const uint8_t *__restrict in, uint8_t *__restrict a, uint8_t *__restrict b) {
  for (int i = 0; i < 16; ++i) {
    uint8_t a0 = in[4 * i], b0 = in[4 * i + 1], a1 = in[4 * i + 2], b1 = in[4 * i + 3];
    a[i] = joinNibbles<HighFirst>(a0 & 15, a1 & 15);
    a[16 + i] = joinNibbles<HighFirst>(a0 >> 4, a1 >> 4);
    b[i] = joinNibbles<HighFirst>(b0 & 15, b1 & 15);
    b[16 + i] = joinNibbles<HighFirst>(b0 >> 4, b1 >> 4);
  }
}

/// Gpu: half a row pair (16 bytes of rows a and b, units (c, j) with k/2 = c + 4j) to 32 bytes ordered by (c,
/// j). A unit's low byte is the row's byte with its first code low.
template <bool HighFirst> uint8_t lowFirst(uint8_t byte) {
  return HighFirst ? uint8_t(byte >> 4 | byte << 4) : byte;
}

template <bool HighFirst>
void gpuHalfToTile(const uint8_t *__restrict a, const uint8_t *__restrict b, uint8_t *__restrict out) {
  for (int c = 0; c < 4; ++c)
    for (int j = 0; j < 4; ++j) {
      out[8 * c + 2 * j] = lowFirst<HighFirst>(a[4 * j + c]);
      out[8 * c + 2 * j + 1] = lowFirst<HighFirst>(b[4 * j + c]);
    }
}

template <bool HighFirst>
void gpuHalfToRows(const uint8_t *__restrict in, uint8_t *__restrict a, uint8_t *__restrict b) {
  for (int j = 0; j < 4; ++j)
    for (int c = 0; c < 4; ++c) {
      a[4 * j + c] = lowFirst<HighFirst>(in[8 * c + 2 * j]);
      b[4 * j + c] = lowFirst<HighFirst>(in[8 * c + 2 * j + 1]);
    }
}

template <bool HighFirst> void cpuToTile(const uint8_t *rows, int64_t rowBytes, uint8_t *tile) {
  for (int l = 0; l < 16; ++l)
    cpuLineToTile<HighFirst>(rows + 2 * l * rowBytes, rows + (2 * l + 1) * rowBytes, tile + 64 * l);
}
template <bool HighFirst> void cpuToRows(const uint8_t *tile, uint8_t *rows, int64_t rowBytes) {
  for (int l = 0; l < 16; ++l)
    cpuLineToRows<HighFirst>(tile + 64 * l, rows + 2 * l * rowBytes, rows + (2 * l + 1) * rowBytes);
}
template <bool HighFirst> void gpuToTile(const uint8_t *rows, int64_t rowBytes, uint8_t *tile) {
  for (int pair = 0; pair < 32; ++pair) // pair = 8w + g
    for (int half = 0; half < 2; ++half) {
      const uint8_t *a = rows + 2 * pair * rowBytes + 16 * half;
      gpuHalfToTile<HighFirst>(a, a + rowBytes, tile + 1024 * half + 32 * pair);
    }
}
template <bool HighFirst> void gpuToRows(const uint8_t *tile, uint8_t *rows, int64_t rowBytes) {
  for (int pair = 0; pair < 32; ++pair)
    for (int half = 0; half < 2; ++half) {
      uint8_t *a = rows + 2 * pair * rowBytes + 16 * half;
      gpuHalfToRows<HighFirst>(tile + 1024 * half + 32 * pair, a, a + rowBytes);
    }
}

} // namespace

const TileCodec cpuTile = {
    32,
    [](const uint8_t *rows, int64_t rowBytes, bool highFirst, uint8_t *tile) {
      highFirst ? cpuToTile<true>(rows, rowBytes, tile) : cpuToTile<false>(rows, rowBytes, tile);
    },
    [](const uint8_t *tile, bool highFirst, uint8_t *rows, int64_t rowBytes) {
      highFirst ? cpuToRows<true>(tile, rows, rowBytes) : cpuToRows<false>(tile, rows, rowBytes);
    }};

const TileCodec gpuTile = {
    64,
    [](const uint8_t *rows, int64_t rowBytes, bool highFirst, uint8_t *tile) {
      highFirst ? gpuToTile<true>(rows, rowBytes, tile) : gpuToTile<false>(rows, rowBytes, tile);
    },
    [](const uint8_t *tile, bool highFirst, uint8_t *rows, int64_t rowBytes) {
      highFirst ? gpuToRows<true>(tile, rows, rowBytes) : gpuToRows<false>(tile, rows, rowBytes);
    }};

const TileCodec *tileCodec(Layout layout) {
  return layout == Layout::Cpu ? &cpuTile : layout == Layout::Gpu ? &gpuTile : nullptr;
}

void readRows(const uint8_t *codes, const WeightShape &shape, bool highFirst, Layout layout, int64_t row0,
              int64_t count, uint8_t *out) {
  int64_t rowBytes = shape.k / 2;
  const TileCodec *tile = tileCodec(layout);
  int64_t mainRows = tile ? shape.n / tile->rows * tile->rows : 0;
  int64_t mainBytes = shape.k / 64 * 32, tailBytes = rowBytes - mainBytes; // of one row
  int64_t tiled = std::max<int64_t>(0, std::min(count, mainRows - row0));
  for (int64_t r = 0; r < tiled; r += tile->rows) {
    const uint8_t *blocks = codes + (row0 + r) * mainBytes;
    for (int64_t b = 0; b < shape.k / 64; ++b)
      tile->toRows(blocks + b * tile->rows * 32, highFirst, out + r * rowBytes + b * 32, rowBytes);
  }
  for (int64_t r = 0; r < tiled && tailBytes; ++r)
    std::memcpy(out + r * rowBytes + mainBytes, codes + mainRows * mainBytes + (row0 + r) * tailBytes,
                tailBytes);
  std::memcpy(out + tiled * rowBytes, codes + (row0 + tiled) * rowBytes, (count - tiled) * rowBytes);
}

int64_t scaleIndex(const WeightShape &shape, Layout layout, int64_t i) {
  if (layout == Layout::Bnb || shape.k % shape.block) return i;
  int64_t perRow = shape.k / shape.block, row = i / perRow, b = i % perRow;
  if (layout == Layout::Gpu) return shape.block == 64 ? b * shape.n + row : i;
  return row >= shape.n / 32 * 32 ? i : row / 32 * 32 * perRow + b * 32 + row % 32;
}

} // namespace quern
