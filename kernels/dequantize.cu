// Decoded weights in memory: bit-identical to decodeExpert of runtime/packing (fp32 (table[code] - zero) *
// scale, one rounding to the quantization state's dtype, then to the output's; subnormals are kept). For
// quern.dequantize; what a matmul reads is written by decode_ahead.cu.
#include "kernels/scales.cuh"

namespace quern_device {
namespace {
constexpr int decodeThreads = 256;

struct DecodeBlock {
  ScaleArray scales;
  const float *table; // shared, 16 entries
  int stateType, outType;
};

QUERN_DEVICE float decodeOne(const DecodeBlock &d, const Scale &s, uint32 code) {
  float value = d.table[code];
  if (d.scales.zeros) value -= s.zero;
  return roundTo(d.stateType, value * s.scale);
}

/// The scales of a run of `bytes` bytes from element `element` on. A run is no longer than the smallest block
/// (32 elements), so it lies in two blocks at most; and a byte lies in one: blocks and `element` are even.
/// Found once per run, because it takes 64-bit divisions.
struct RunScales {
  Scale first, second;
  int split; // bytes of the run that the first one is for
};
/// By value: a choice between two addresses would put them in memory.
QUERN_DEVICE Scale at(const RunScales &run, int byte) {
  bool first = byte < run.split;
  return {first ? run.first.scale : run.second.scale, first ? run.first.zero : run.second.zero};
}
QUERN_DEVICE RunScales scalesOf(const DecodeBlock &d, int64 element, int bytes) {
  int shift = d.scales.blockShift;
  int64 block = element >> shift, left = ((block + 1) << shift) - element;
  RunScales run{scaleOf(d.scales, block), {}, left < 2 * bytes ? int(left) / 2 : bytes};
  run.second = run.split < bytes ? scaleOf(d.scales, block + 1) : run.first;
  return run;
}

/// Elements `element` and `element` + 1, the first code in the low nibble. This is the only place that rounds
/// and stores: the conversions are long, and loops that are unrolled around them took NVRTC seconds.
QUERN_DEVICE void decodeByte(const DecodeBlock &d, const Scale &scale, int64 element, uint32 codes,
                             void *out) {
  float low = decodeOne(d, scale, codes & 15), high = decodeOne(d, scale, codes >> 4 & 15);
  if (d.outType == F32) {
    static_cast<float *>(out)[element] = low;
    static_cast<float *>(out)[element + 1] = high;
  } else { // element is even: 4-byte aligned
    reinterpret_cast<uint32 *>(static_cast<uint16 *>(out) + element)[0] =
        toHalfWord(d.outType, low) | uint32(toHalfWord(d.outType, high)) << 16;
  }
}

/// Four bytes, the `from`-th and later ones of a run.
QUERN_DEVICE void decodeWord(const DecodeBlock &d, const RunScales &run, int from, int64 element, uint32 word,
                             void *out) {
#pragma unroll 2
  for (int i = 0; i < 4; ++i) decodeByte(d, at(run, from + i), element + 2 * i, word >> 8 * i, out);
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
  DecodeBlock d{
      {scales, zeros, n, k >> blockShift, scaleType, blockShift, gpuLayout && blockShift == 6 && k % 64 == 0},
      shared,
      stateType,
      outType};
  int64 rowBytes = k / 2, blocks = k / 64, mainBytes = blocks * 32, tailBytes = rowBytes - mainBytes;
  int64 mainRows = gpuLayout && blocks ? n / 64 * 64 : 0;
  int64 first = int64(blockIndex()) * decodeThreads + threadIndex(), step = int64(gridSize()) * decodeThreads;
  // One item: 32 columns of two rows (32 bytes of a block).
  for (int64 item = first; item < mainRows * blocks; item += step) {
    int64 block = item / 64, half = item % 64 / 32, pair = item % 32;
    const uint8 *tile = codes + block * 2048 + 1024 * half + 32 * pair;
    // Byte `c` of word `j` of row `side` is tile[8 * c + 2 * j + side]. All loads first, so that they
    // overlap.
    uint32 words[8];
#pragma unroll
    for (int i = 0; i < 8; ++i)
      words[i] = tile[4 * i] | uint32(tile[4 * i + 1]) << 8 | uint32(tile[4 * i + 2]) << 16 |
                 uint32(tile[4 * i + 3]) << 24;
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
      int64 element = (block / blocks * 64 + 2 * pair + side) * k + block % blocks * 64 + 32 * half;
      RunScales run = scalesOf(d, element, 16);
#pragma unroll 1
      for (int j = 0; j < 4; ++j) {
        uint32 word = 0;
#pragma unroll
        for (int c = 0; c < 4; ++c)
          word |= ((j < 2 ? words[2 * c] : words[2 * c + 1]) >> (8 * (2 * (j & 1) + side)) & 255) << 8 * c;
        decodeWord(d, run, 4 * j, element + 8 * j, word, out);
      }
    }
  }
  for (int64 i = first; i < mainRows * tailBytes; i += step) {
    int64 element = i / tailBytes * k + blocks * 64 + i % tailBytes * 2;
    decodeByte(d, scaleOf(d.scales, element >> blockShift), element,
               decodeLowFirst(codes[mainRows * mainBytes + i], highFirst), out);
  }
  // Rows in bitsandbytes' order: 4 bytes at a time.
  int64 rest = mainRows * rowBytes, end = n * rowBytes;
  for (int64 i = rest + first * 4; i < end; i += step * 4) {
    int count = end - i < 4 ? int(end - i) : 4;
    RunScales run = scalesOf(d, i * 2, count);
    uint32 word = 0;
    for (int j = 0; j < count; ++j) word |= uint32(decodeLowFirst(codes[i + j], highFirst)) << 8 * j;
    if (count == 4) {
      decodeWord(d, run, 0, i * 2, word, out);
    } else {
#pragma unroll 1
      for (int j = 0; j < count; ++j) decodeByte(d, at(run, j), (i + j) * 2, word >> 8 * j, out);
    }
  }
}
