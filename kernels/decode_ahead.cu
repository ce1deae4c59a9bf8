// Decoded weights as a matmul reads them, before it runs (decode=ahead): the values of dequantize.cu, in the
// order of wgmma's A fragments, for the experts that have rows.
#include "kernels/scales.cuh"

namespace quern_device {
namespace {
// A block of 64 weight rows and 64 columns at a time: what a warpgroup multiplies in a step.
constexpr int aheadThreads = 128;

/// One expert's arrays, and where the block at hand lies.
struct AheadBlock {
  const uint8 *codes; // gpu layout
  ScaleArray scales;
  int n, k, highFirst;
  int row0, row1; // weight rows of this thread's MMA rows g and g + 8
  int column;     // first of the block
  bool inside;    // of the weight, by its rows
};

/// Codes (n, k) and (n, k + 1), low nibble first, from wherever the gpu layout keeps them; 0 beyond K.
QUERN_DEVICE uint32 aheadByte(const AheadBlock &b, int n, int k) {
  if (k >= b.k) return 0;
  int n64 = b.n & ~63, k64 = b.k & ~63; // rows and columns in whole blocks
  if (n < n64 && k < k64) {
    int pair = (k & 63) / 2, unit = (n & 63) / 2;
    return b.codes[int64(n >> 6) * (k64 * 32ll) + (k >> 6) * 2048ll + pair / 16 * 1024 +
                   (unit * 4 + pair % 4) * 8 + pair / 4 % 4 * 2 + (n & 1)];
  }
  // The strips behind the blocks: columns of the rows above n64, then the rows below.
  int64 at = n < n64 ? n64 * (k64 / 2ll) + n * ((b.k - k64) / 2ll) + (k - k64) / 2 : n * (b.k / 2ll) + k / 2;
  return decodeLowFirst(b.codes[at], b.highFirst);
}

/// The codes of four slices: bytes are the pairs of A registers 0 to 3 (row g, row g + 8, twice).
QUERN_DEVICE void aheadGather(const AheadBlock &b, uint32 (&words)[4]) {
#pragma unroll 1
  for (int slice = 0; slice < 4; ++slice) {
    int k = b.column + 16 * slice + 2 * (threadIndex() & 3);
    uint32 word = aheadByte(b, b.row0, k) | aheadByte(b, b.row1, k) << 8;
    word |= aheadByte(b, b.row0, k + 8) << 16 | aheadByte(b, b.row1, k + 8) << 24;
    // Shifted in: an index that is not a constant would put the array in memory.
    words[0] = words[1], words[1] = words[2], words[2] = words[3], words[3] = word;
  }
}

/// 16 bytes of a whole block, as the gpu layout has them for place `at` of 128.
QUERN_DEVICE void aheadLoad(const uint8 *block, int at, uint32 (&words)[4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint64 eight = *reinterpret_cast<const uint64 *>(block + 1024 * half + 8 * at);
    words[2 * half] = uint32(eight), words[2 * half + 1] = uint32(eight >> 32);
  }
}

/// The scale of 32 columns of a row; 0 beyond K, so that those columns are zero.
QUERN_DEVICE Scale aheadScale(const AheadBlock &b, int row, int half) {
  int column = b.column + 32 * half;
  if (!b.inside || column >= b.k) return {0, 0};
  if (b.scales.tiled) return scaleAt(b.scales, int64(b.column >> 6) * b.n + row);
  return scaleAt(b.scales, (int64(row) * b.k + column) >> b.scales.blockShift);
}

/// The four A registers of each slice, 2048 bytes apart.
template <int outType, bool twoRoundings>
QUERN_DEVICE void aheadStore(const AheadBlock &b, const uint32 (&words)[4], const float *table, int stateType,
                             uint8 *out) {
  bool two = !b.scales.tiled; // scales of a row
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Scale first = aheadScale(b, b.row0, two ? half : 0), second = aheadScale(b, b.row1, two ? half : 0);
#pragma unroll
    for (int slice = 2 * half; slice < 2 * half + 2; ++slice) {
      Vector16 a;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Scale &scale = i % 2 ? second : first;
        uint32 codes = words[slice] >> 8 * i;
        float low = table[codes & 15], high = table[codes >> 4 & 15];
        if (b.scales.zeros) low -= scale.zero, high -= scale.zero;
        low *= scale.scale, high *= scale.scale;
        if (twoRoundings) low = roundTo(stateType, low), high = roundTo(stateType, high);
        a.words[i] = toHalfPair(outType, low, high);
      }
      *reinterpret_cast<Vector16 *>(out + 2048 * slice) = a;
    }
  }
}
} // namespace
} // namespace quern_device

using namespace quern_device;

/// codes, scales, zeros (null: none): tables of each expert's arrays in the gpu layout, of one expert when
/// not byExpert. offsets [experts + 1]: experts without rows are left out. table: f32 [16]. [n, k],
/// blockShift, scaleType, highFirst, stateType: as in dequantize. out: jit::DecodeStep of
/// runtime/jit/GpuImage.h, bf16 or f16 (outType), 16-byte aligned; rows beyond n are 0. tileRows: of a weight
/// tile, a multiple of 64. halved: tileRows is 128, and MMA row g + 8 is row n/2 behind row g. Blocks of 128
/// threads, any number.
extern "C" __global__ void __launch_bounds__(aheadThreads)
    decode_ahead(const uint8 *const *codes, const void *const *scales, const uint8 *const *zeros,
                 const float *table, const int *offsets, int experts, int byExpert, int n, int k,
                 int blockShift, int scaleType, int highFirst, int stateType, int tileRows, int halved,
                 uint8 *out, int outType) {
  letNextStart();
  __shared__ float shared[16];
  if (threadIndex() < 16) shared[threadIndex()] = table[threadIndex()];
  syncBlock();
  int groups = tileRows / 64, steps = (k + 63) / 64, tiles = (n + tileRows - 1) / tileRows;
  int g = laneIndex() >> 2, place = threadIndex(); // where a thread's codes lie in a whole block
  if (halved) place = 16 * warpIndex() + (g >> 1) * 4 + (laneIndex() & 3); // and 64 for each group
  bool tiled = blockShift == 6 && k % 64 == 0, whole = !halved || n / 2 % 64 == 0;
  bool rounded = stateType != F32 && stateType != outType;
  int perExpert = tiles * steps * groups;
  int64 next = blockIndex(), before = 0;
  // Blocks are dealt out over the experts that have rows, as if these were one.
  for (int e = 0; e < (byExpert ? experts : 1); ++e) {
    if (offsets[byExpert ? e + 1 : experts] == offsets[e]) continue;
    AheadBlock b{codes[e],  {scales[e], zeros ? zeros[e] : nullptr, n, 0, scaleType, blockShift, tiled},
                 n,         k,
                 highFirst, 0,
                 0,         0,
                 false};
    for (; next < before + perExpert; next += gridSize()) {
      int item = int(next - before), group = item % groups, step = item / groups % steps;
      int tile = item / groups / steps, first = halved ? tile : tile * groups + group; // first: of 64 rows
      b.column = 64 * step;
      b.row0 = halved ? 64 * tile + 32 * group + 8 * warpIndex() + g : 64 * first + 16 * warpIndex() + 2 * g;
      b.row1 = b.row0 + (halved ? n / 2 : 1);
      b.inside = b.row0 < (halved ? n / 2 : n);
      uint32 words[4] = {0, 0, 0, 0};
      if (whole && step < k / 64 && first < n / 64) {
        const uint8 *block = b.codes + (int64(first) * (k / 64) + step) * 2048;
        aheadLoad(block, halved ? place + 64 * group : place, words);
        if (halved) { // of both rows of a unit the odd or the even one, from both blocks
          uint32 up[4];
          aheadLoad(block + int64(n / 128) * (k / 64) * 2048, place + 64 * group, up);
#pragma unroll
          for (int i = 0; i < 4; ++i)
            words[i] = (words[i] >> 8 * (g & 1) & 0x00ff00ffu) | (up[i] >> 8 * (g & 1) & 0x00ff00ffu) << 8;
        }
      } else if (b.inside) {
        aheadGather(b, words);
      }
      uint8 *to = out + (int64(e) * perExpert + item) * 8192 + 16 * threadIndex();
      if (outType == BF16 && !rounded)
        aheadStore<BF16, false>(b, words, shared, stateType, to);
      else if (outType == BF16)
        aheadStore<BF16, true>(b, words, shared, stateType, to);
      else if (!rounded)
        aheadStore<F16, false>(b, words, shared, stateType, to);
      else
        aheadStore<F16, true>(b, words, shared, stateType, to);
    }
    before += perExpert;
  }
  // Whoever waits for this kernel waits for the one before it too, of which nothing is read here.
  waitForPrevious();
}
