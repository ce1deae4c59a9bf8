// Decoded weights in memory: bit-identical to decodeExpert of runtime/packing (fp32 (table[code] - zero) *
// scale, one rounding to the quantization state's dtype, then to the output's; subnormals are kept). For
// quern.dequantize, and for the tuner's candidate that decodes first.
#include "kernels/device.cuh"

namespace quern_device {
namespace {
constexpr int decodeThreads = 256;

struct DecodeBlock {
  const void *scales;
  const uint8 *zeros; // null: none
  const float *table; // shared, 16 entries
  int64 n, k, perRow;
  int scaleType, blockShift, stateType, outType;
  bool tiledScales;

  int64 index = -1; // the block whose scale is held, in bitsandbytes' order
  float scale = 0, zero = 0;
};

QUERN_DEVICE float decodeOne(DecodeBlock &d, int64 element, uint32 code) {
  int64 block = element >> d.blockShift;
  if (block != d.index) {
    d.index = block;
    int64 at = d.tiledScales ? block % d.perRow * d.n + block / d.perRow : block;
    d.scale = d.scaleType == ScaleF32    ? static_cast<const float *>(d.scales)[at]
              : d.scaleType == ScaleBF16 ? fromBF16(static_cast<const uint16 *>(d.scales)[at])
                                         : fromE8M0(static_cast<const uint8 *>(d.scales)[at]);
    d.zero = d.zeros ? float(d.zeros[at]) : 0;
  }
  float value = d.table[code];
  if (d.zeros) value -= d.zero;
  return roundTo(d.stateType, value * d.scale);
}

/// Elements [element, element + 2 * bytes) from `bytes` bytes, the first code of each in the low nibble.
template <int bytes>
QUERN_DEVICE void decodeRun(DecodeBlock &d, int64 element, const uint8 (&codes)[bytes], void *out) {
  if (d.outType == F32) {
    float *to = static_cast<float *>(out) + element;
#pragma unroll
    for (int i = 0; i < bytes; ++i) {
      to[2 * i] = decodeOne(d, element + 2 * i, codes[i] & 15);
      to[2 * i + 1] = decodeOne(d, element + 2 * i + 1, codes[i] >> 4);
    }
    return;
  }
  uint32 *to = reinterpret_cast<uint32 *>(static_cast<uint16 *>(out) + element); // element is even
#pragma unroll
  for (int i = 0; i < bytes; ++i) {
    uint32 low = toHalfWord(d.outType, decodeOne(d, element + 2 * i, codes[i] & 15));
    uint32 high = toHalfWord(d.outType, decodeOne(d, element + 2 * i + 1, codes[i] >> 4));
    to[i] = low | high << 16;
  }
}

QUERN_DEVICE uint8 decodeLowFirst(uint8 byte, int highFirst) {
  return highFirst ? uint8(byte >> 4 | byte << 4) : byte;
}
} // namespace
} // namespace quern_device

using namespace quern_device;

/// One expert [n, k], k even, to out [n, k] of outType (quern::DType), contiguous and 4-byte aligned. codes,
/// scales, zeros (null: none): the expert's arrays in layout `gpuLayout` (1: gpu, 0: bnb). table: f32 [16].
/// scaleType: syntax::ScaleType. blockShift: log2 of the block size. stateType: dtype of the quantization
/// state. Blocks of 256 threads, any number.
extern "C" __global__ void __launch_bounds__(decodeThreads)
    dequantize(const uint8 *codes, const void *scales, const uint8 *zeros, const float *table, int64 n,
               int64 k, int blockShift, int scaleType, int highFirst, int gpuLayout, int stateType, void *out,
               int outType) {
  __shared__ float shared[16];
  if (threadIndex() < 16) shared[threadIndex()] = table[threadIndex()];
  syncBlock();
  DecodeBlock d{scales,
                zeros,
                shared,
                n,
                k,
                k >> blockShift,
                scaleType,
                blockShift,
                stateType,
                outType,
                gpuLayout && blockShift == 6 && k % 64 == 0};
  int64 rowBytes = k / 2, blocks = k / 64, mainBytes = blocks * 32, tailBytes = rowBytes - mainBytes;
  int64 mainRows = gpuLayout && blocks ? n / 64 * 64 : 0;
  int64 first = int64(blockIndex()) * decodeThreads + threadIndex(), step = int64(gridSize()) * decodeThreads;
  // One item: 32 columns of two rows (32 bytes of a block).
  for (int64 item = first; item < mainRows * blocks; item += step) {
    int64 block = item / 64, half = item % 64 / 32, pair = item % 32;
    const uint8 *tile = codes + block * 2048 + 1024 * half + 32 * pair;
    for (int side = 0; side < 2; ++side) {
      uint8 row[16];
#pragma unroll
      for (int c = 0; c < 4; ++c)
#pragma unroll
        for (int j = 0; j < 4; ++j) row[4 * j + c] = tile[8 * c + 2 * j + side];
      decodeRun(d, (block / blocks * 64 + 2 * pair + side) * k + block % blocks * 64 + 32 * half, row, out);
    }
  }
  for (int64 i = first; i < mainRows * tailBytes; i += step) {
    uint8 byte[1] = {decodeLowFirst(codes[mainRows * mainBytes + i], highFirst)};
    decodeRun(d, i / tailBytes * k + blocks * 64 + i % tailBytes * 2, byte, out);
  }
  // Rows in bitsandbytes' order: 4 bytes at a time.
  int64 rest = mainRows * rowBytes, end = n * rowBytes;
  for (int64 i = rest + first * 4; i < end; i += step * 4) {
    if (end - i >= 4) {
      uint8 bytes[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) bytes[j] = decodeLowFirst(codes[i + j], highFirst);
      decodeRun(d, i * 2, bytes, out);
    } else {
      for (int64 at = i; at < end; ++at) {
        uint8 byte[1] = {decodeLowFirst(codes[at], highFirst)};
        decodeRun(d, at * 2, byte, out);
      }
    }
  }
}
