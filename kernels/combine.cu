// The fp32 combine: many rows of a routing meet in one token and are added in one fixed order, so the same
// input gives the same bits in every run.
#include "kernels/device.cuh"

namespace quern_device {
namespace {
constexpr int combineThreads = 256, combineTopK = 1024;
}
} // namespace quern_device

using namespace quern_device;

/// out[t, n] = sum over the rows r of token t, ascending, of partial[r, n], starting from +0.
/// partial: f32 [rows, columns], contiguous. inverse: int32 [tokens, topK], -1 where a choice has no row; the
/// rows of one token are distinct; topK <= 1024. out: f32 [tokens, columns], `outStride` between rows.
/// `vector`: columns and outStride are multiples of 4 and both pointers are 16-byte aligned. Blocks of 256
/// threads, tokens in turn.
extern "C" __global__ void __launch_bounds__(combineThreads)
    combine_rows(const float *partial, const int *inverse, float *out, int64 outStride, int tokens, int topK,
                 int64 columns, int vector) {
  __shared__ int sorted[combineTopK], live;
  for (int token = blockIndex(); token < tokens; token += gridSize()) {
    const int *rows = inverse + int64(token) * topK;
    if (threadIndex() == 0) live = 0;
    syncBlock();
    for (int c = threadIndex(); c < topK; c += combineThreads) {
      int row = rows[c], place = 0, more = 0;
      if (row < 0) continue;
      for (int other = 0; other < topK; ++other) {
        place += rows[other] >= 0 && rows[other] < row;
        more += rows[other] > row;
      }
      sorted[place] = row;
      if (!more) live = place + 1; // the largest row: one thread
    }
    syncBlock();
    int count = live;
    float *to = out + token * outStride;
    if (vector) {
      for (int64 n = threadIndex() * 4; n < columns; n += combineThreads * 4) {
        float sum[4] = {0, 0, 0, 0};
        for (int i = 0; i < count; ++i) {
          Vector16 v = *reinterpret_cast<const Vector16 *>(partial + sorted[i] * columns + n);
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[j] += asFloat(v.words[j]);
        }
        Vector16 v;
#pragma unroll
        for (int j = 0; j < 4; ++j) v.words[j] = asBits(sum[j]);
        *reinterpret_cast<Vector16 *>(to + n) = v;
      }
    } else {
      for (int64 n = threadIndex(); n < columns; n += combineThreads) {
        float sum = 0;
        for (int i = 0; i < count; ++i) sum += partial[sorted[i] * columns + n];
        to[n] = sum;
      }
    }
    syncBlock(); // `sorted` is written anew for the next token
  }
}
