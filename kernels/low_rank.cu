// The first factor of a low-rank contraction (LoRA): out[r, p] = sum(k) lhs[row(r), k] * rhs[(e,) p, k], fp32
// accumulation, small P. Two forms: low_rank_tiles shares rows of one expert in shared memory, for experts
// with many rows; low_rank_rows gives each row a block of its own, for few.
//
// Common parameters. lhs: any float dtype (quern::DType), strides in elements; row(r) is rowToken[r], or r
// when rowToken is null. rhs: any float dtype, strides of expert (0: shared by all), p and k. offsets: int32
// [experts + 1], rows of the experts; rows from offsets[experts] on are neither read nor written. out: f32
// [rows, columns].
#include "kernels/device.cuh"

namespace quern_device {
namespace {
constexpr int lowRankThreads = 128, lowRankRows = 64, lowRankStep = 32; // rows and k of a tile
constexpr int lowRankPitch =
    lowRankStep + 4; // words between rows in shared memory: other banks, 16-byte aligned

/// The expert whose rows hold `row` (row < offsets[experts]).
QUERN_DEVICE int lowRankExpert(const int *offsets, int experts, int row) {
  int low = 0, high = experts; // offsets[low] <= row < offsets[high]
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (offsets[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}
} // namespace
} // namespace quern_device

using namespace quern_device;

/// One row for each block of 128 threads, rows in turn; a warp forms one column at a time.
extern "C" __global__ void __launch_bounds__(lowRankThreads)
    low_rank_rows(const void *lhs, int lhsType, int64 lhsStride0, int64 lhsStride1, const int *rowToken,
                  const void *rhs, int rhsType, int64 rhsStrideE, int64 rhsStrideP, int64 rhsStrideK,
                  const int *offsets, int experts, int columns, int64 reduced, float *out) {
  letNextStart();
  int live = offsets[experts];
  for (int row = blockIndex(); row < live; row += gridSize()) {
    int64 from = int64(rowToken ? rowToken[row] : row) * lhsStride0;
    int64 weights = lowRankExpert(offsets, experts, row) * rhsStrideE;
    for (int p = warpIndex(); p < columns; p += lowRankThreads / 32) {
      float sum = 0;
      for (int64 k = laneIndex(); k < reduced; k += 32)
        sum = multiplyAdd(loadAs(lhsType, lhs, from + k * lhsStride1),
                          loadAs(rhsType, rhs, weights + p * rhsStrideP + k * rhsStrideK), sum);
#pragma unroll
      for (int mask = 16; mask; mask /= 2) sum += asFloat(uint32(warpShuffleXor(int(asBits(sum)), mask)));
      if (laneIndex() == 0) out[int64(row) * columns + p] = sum;
    }
  }
}

/// 64 rows and 32 columns for each block of 128 threads; block b takes rows [64 b', 64 b' + 64), b' = b /
/// column tiles, and walks the experts that meet them. A thread owns 4 rows x 4 columns. Grid: ceil(rows /
/// 64) * ceil(columns / 32).
extern "C" __global__ void __launch_bounds__(lowRankThreads)
    low_rank_tiles(const void *lhs, int lhsType, int64 lhsStride0, int64 lhsStride1, const int *rowToken,
                   const void *rhs, int rhsType, int64 rhsStrideE, int64 rhsStrideP, int64 rhsStrideK,
                   const int *offsets, int experts, int columns, int64 reduced, float *out) {
  __shared__ alignas(16) float left[lowRankRows * lowRankPitch], right[32 * lowRankPitch];
  letNextStart();
  int columnTiles = (columns + 31) / 32, live = offsets[experts];
  int row0 = blockIndex() / columnTiles * lowRankRows, column0 = blockIndex() % columnTiles * 32;
  int end = row0 + lowRankRows < live ? row0 + lowRankRows : live;
  int group = threadIndex() / 8, column = threadIndex() % 8; // rows group + 16 i, columns column + 8 j
  for (int row = row0; row < end;) {
    int expert = lowRankExpert(offsets, experts, row);
    int stop = offsets[expert + 1] < end ? offsets[expert + 1] : end; // rows [row, stop) are this expert's
    float sum[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] = 0;
    for (int64 k0 = 0; k0 < reduced; k0 += lowRankStep) {
      int64 k = k0 + laneIndex();
      for (int r = warpIndex(); r < lowRankRows; r += lowRankThreads / 32) {
        bool inside = row0 + r >= row && row0 + r < stop && k < reduced;
        int64 from = inside ? int64(rowToken ? rowToken[row0 + r] : row0 + r) * lhsStride0 : 0;
        left[r * lowRankPitch + laneIndex()] = inside ? loadAs(lhsType, lhs, from + k * lhsStride1) : 0;
      }
      for (int p = warpIndex(); p < 32; p += lowRankThreads / 32) {
        bool inside = column0 + p < columns && k < reduced;
        right[p * lowRankPitch + laneIndex()] =
            inside ? loadAs(rhsType, rhs, expert * rhsStrideE + (column0 + p) * rhsStrideP + k * rhsStrideK)
                   : 0;
      }
      syncBlock();
#pragma unroll
      for (int step = 0; step < lowRankStep; step += 4) {
        Vector16 a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          a[i] = *reinterpret_cast<const Vector16 *>(left + (group + 16 * i) * lowRankPitch + step);
#pragma unroll
        for (int j = 0; j < 4; ++j)
          b[j] = *reinterpret_cast<const Vector16 *>(right + (column + 8 * j) * lowRankPitch + step);
#pragma unroll
        for (int word = 0; word < 4; ++word)
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
              sum[i][j] = multiplyAdd(asFloat(a[i].words[word]), asFloat(b[j].words[word]), sum[i][j]);
      }
      syncBlock();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        int r = row0 + group + 16 * i, p = column0 + column + 8 * j;
        if (r >= row && r < stop && p < columns) out[int64(r) * columns + p] = sum[i][j];
      }
    row = stop;
  }
}
