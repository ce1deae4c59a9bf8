// Codes and scales between bitsandbytes' order and the gpu layout of runtime/packing/Layout.h, byte for byte
// what retileCodes and retileScales do. One expert per launch, out of place: the caller tiles into a scratch
// buffer of one expert and copies back, so that a weight keeps its own storage.
#include "kernels/device.cuh"

namespace quern_device {
namespace {
constexpr int packThreads = 256;

QUERN_DEVICE void packSwapNibbles(uint32 (&words)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = (words[i] >> 4 & 0x0f0f0f0fu) | (words[i] << 4 & 0xf0f0f0f0u);
}

/// Bytes as words, moved 16 at a time where `vector` says that the address allows it.
template <int count> QUERN_DEVICE void packLoad(const uint8 *from, uint32 (&words)[count], bool vector) {
#pragma unroll
  for (int i = 0; i < count; i += 4) {
    if (vector) {
      Vector16 v = *reinterpret_cast<const Vector16 *>(from + 4 * i);
#pragma unroll
      for (int j = 0; j < 4; ++j) words[i + j] = v.words[j];
    } else {
#pragma unroll
      for (int j = i; j < i + 4; ++j)
        words[j] = from[4 * j] | from[4 * j + 1] << 8 | from[4 * j + 2] << 16 | uint32(from[4 * j + 3]) << 24;
    }
  }
}
template <int count> QUERN_DEVICE void packStore(uint8 *to, const uint32 (&words)[count], bool vector) {
#pragma unroll
  for (int i = 0; i < count; i += 4) {
    if (vector) {
      Vector16 v;
#pragma unroll
      for (int j = 0; j < 4; ++j) v.words[j] = words[i + j];
      *reinterpret_cast<Vector16 *>(to + 4 * i) = v;
    } else {
#pragma unroll
      for (int byte = 4 * i; byte < 4 * i + 16; ++byte) to[byte] = uint8(words[byte / 4] >> byte % 4 * 8);
    }
  }
}

QUERN_DEVICE uint32 packByte(const uint32 *words, int i) { return words[i / 4] >> i % 4 * 8 & 255; }

template <class T>
QUERN_DEVICE void packScales(const void *from, void *to, int64 n, int64 perRow, bool tiled, bool toGpu) {
  const T *in = static_cast<const T *>(from);
  T *out = static_cast<T *>(to);
  int64 first = int64(blockIndex()) * packThreads + threadIndex(), count = n * perRow;
  for (int64 i = first; i < count; i += int64(gridSize()) * packThreads) { // i: place in the gpu layout
    int64 bnb = tiled ? i % n * perRow + i / n : i;
    out[toGpu ? i : bnb] = in[toGpu ? bnb : i];
  }
}
} // namespace
} // namespace quern_device

using namespace quern_device;

/// Codes of one expert [n, k], k even: n*k/2 bytes from `from` to `to`, which do not overlap. highFirst:
/// nibble order of the bitsandbytes form. toGpu 0: back. Blocks of 256 threads, any number.
extern "C" __global__ void __launch_bounds__(packThreads)
    retile_codes(const uint8 *from, uint8 *to, int64 n, int64 k, int highFirst, int toGpu) {
  int64 rowBytes = k / 2, blocks = k / 64, mainBytes = blocks * 32, tailBytes = rowBytes - mainBytes;
  int64 mainRows = blocks ? n / 64 * 64 : 0;
  int64 first = int64(blockIndex()) * packThreads + threadIndex(), step = int64(gridSize()) * packThreads;
  bool tileVector = aligned16(toGpu ? to : from),
       rowVector = aligned16(toGpu ? from : to) && rowBytes % 16 == 0;
  // One item: 16 bytes of two rows against 32 bytes of a block. Neighbouring threads take neighbouring pieces
  // of the tiled side.
  for (int64 item = first; item < mainRows * blocks; item += step) {
    int64 block = item / 64, place = item % 64, half = place / 32, pair = place % 32;
    int64 row = block / blocks * 64 + 2 * pair;
    int64 rows = row * rowBytes + block % blocks * 32 + 16 * half,
          tile = block * 2048 + 1024 * half + 32 * pair;
    uint32 a[4], b[4], units[8];
    if (toGpu) {
      packLoad(from + rows, a, rowVector), packLoad(from + rows + rowBytes, b, rowVector);
      if (highFirst) packSwapNibbles(a), packSwapNibbles(b);
#pragma unroll
      for (int c = 0; c < 4; ++c)
#pragma unroll
        for (int j = 0; j < 4; j += 2)
          units[2 * c + j / 2] = packByte(a, 4 * j + c) | packByte(b, 4 * j + c) << 8 |
                                 packByte(a, 4 * j + 4 + c) << 16 | packByte(b, 4 * j + 4 + c) << 24;
      packStore(to + tile, units, tileVector);
    } else {
      packLoad(from + tile, units, tileVector);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        a[j] = b[j] = 0;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          a[j] |= packByte(units, 8 * c + 2 * j) << 8 * c;
          b[j] |= packByte(units, 8 * c + 2 * j + 1) << 8 * c;
        }
      }
      if (highFirst) packSwapNibbles(a), packSwapNibbles(b);
      packStore(to + rows, a, rowVector), packStore(to + rows + rowBytes, b, rowVector);
    }
  }
  // The edge strips: columns behind the last full block, then the rows below the last full panel.
  int64 tails = mainRows * tailBytes;
  for (int64 i = first; i < tails; i += step) {
    int64 rows = i / tailBytes * rowBytes + mainBytes + i % tailBytes, strip = mainRows * mainBytes + i;
    to[toGpu ? strip : rows] = from[toGpu ? rows : strip];
  }
  for (int64 i = mainRows * rowBytes + first; i < n * rowBytes; i += step) to[i] = from[i];
}

/// Scales (or zeros) of one expert: `count` = ceil(n*k / block) elements of elementBytes 4, 2 or 1. Tiled as
/// [k/64] [n] when block is 64 and k a multiple of 64; otherwise both orders are the same. Blocks of 256
/// threads, any number.
extern "C" __global__ void __launch_bounds__(packThreads)
    retile_scales(const void *from, void *to, int64 n, int64 k, int64 block, int elementBytes, int toGpu) {
  bool tiled = block == 64 && k % 64 == 0;
  int64 rows = tiled ? n : 1, perRow = tiled ? k / 64 : (n * k + block - 1) / block;
  if (elementBytes == 4)
    packScales<uint32>(from, to, rows, perRow, tiled, toGpu);
  else if (elementBytes == 2)
    packScales<uint16>(from, to, rows, perRow, tiled, toGpu);
  else
    packScales<uint8>(from, to, rows, perRow, tiled, toGpu);
}

/// to[i] = from[i] for `bytes` bytes. Blocks of 256 threads, any number.
extern "C" __global__ void __launch_bounds__(packThreads)
    copy_bytes(const uint8 *from, uint8 *to, int64 bytes) {
  int64 first = int64(blockIndex()) * packThreads + threadIndex(), step = int64(gridSize()) * packThreads;
  int64 vectors = aligned16(from) && aligned16(to) ? bytes / 16 : 0;
  for (int64 i = first; i < vectors; i += step)
    reinterpret_cast<Vector16 *>(to)[i] = reinterpret_cast<const Vector16 *>(from)[i];
  for (int64 i = vectors * 16 + first; i < bytes; i += step) to[i] = from[i];
}
