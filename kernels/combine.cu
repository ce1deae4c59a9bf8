// The fp32 combine: many rows of a routing meet in one token and are added in one fixed order, so the same
// input gives the same bits in every run.
#include "kernels/device.cuh"

namespace quern_device {
namespace {
constexpr int combineThreads = 256, combineTopK = 1024;
constexpr int noRow = 0x7fffffff; // sorts behind every row

/// Up to K rows of one token, ascending; unused places hold noRow. Every thread sorts for itself: the indices
/// come from one cache line, and nobody waits for anybody.
template <int K> QUERN_DEVICE void combineSort(const int *rows, int topK, int sorted[K]) {
#pragma unroll
  for (int i = 0; i < K; ++i) {
    int row = i < topK ? rows[i] : noRow;
    sorted[i] = row < 0 ? noRow : row;
  }
#pragma unroll
  for (int i = 1; i < K; ++i)
#pragma unroll
    for (int j = i; j > 0; --j) {
      int a = sorted[j - 1], b = sorted[j];
      sorted[j - 1] = a < b ? a : b, sorted[j] = a < b ? b : a;
    }
}

/// Four columns at a time; all rows of a token are in flight together.
template <int K>
QUERN_DEVICE void combineFew(const float *partial, const int *inverse, float *out, int64 outStride,
                             int tokens, int topK, int64 columns) {
  int perToken = int((columns / 4 + combineThreads - 1) / combineThreads); // blocks' worth of a token
  int64 items = int64(tokens) * perToken;
  for (int64 item = blockIndex(); item < items; item += gridSize()) {
    int64 token = item / perToken, n = ((item - token * perToken) * combineThreads + threadIndex()) * 4;
    if (n >= columns) continue;
    int sorted[K];
    combineSort<K>(inverse + token * topK, topK, sorted);
    Vector16 v[K];
#pragma unroll
    for (int i = 0; i < K; ++i)
      if (sorted[i] != noRow) v[i] = *reinterpret_cast<const Vector16 *>(partial + sorted[i] * columns + n);
    float sum[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < K; ++i)
      if (sorted[i] != noRow)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[j] += asFloat(v[i].words[j]);
    Vector16 total;
#pragma unroll
    for (int j = 0; j < 4; ++j) total.words[j] = asBits(sum[j]);
    *reinterpret_cast<Vector16 *>(out + token * outStride + n) = total;
  }
}
} // namespace
} // namespace quern_device

using namespace quern_device;

/// out[t, n] = sum over the rows r of token t, ascending, of partial[r, n], starting from +0.
/// partial: f32 [rows, columns], contiguous. inverse: int32 [tokens, topK], -1 where a choice has no row; the
/// rows of one token are distinct; topK <= 8. out: f32 [tokens, columns], `outStride` between rows. columns
/// and outStride are multiples of 4 and both pointers are 16-byte aligned. Blocks of 256 threads, 1024
/// columns of a token in turn.
extern "C" __global__ void __launch_bounds__(combineThreads)
    combine_few(const float *partial, const int *inverse, float *out, int64 outStride, int tokens, int topK,
                int64 columns) {
  letNextStart();
  waitForPrevious();
  if (topK <= 2)
    combineFew<2>(partial, inverse, out, outStride, tokens, topK, columns);
  else if (topK <= 4)
    combineFew<4>(partial, inverse, out, outStride, tokens, topK, columns);
  else
    combineFew<8>(partial, inverse, out, outStride, tokens, topK, columns);
}

/// The same for any topK <= 1024 and any shape. Blocks of 256 threads, tokens in turn.
extern "C" __global__ void __launch_bounds__(combineThreads)
    combine_rows(const float *partial, const int *inverse, float *out, int64 outStride, int tokens, int topK,
                 int64 columns) {
  __shared__ int sorted[combineTopK], live;
  letNextStart();
  waitForPrevious();
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
    for (int64 n = threadIndex(); n < columns; n += combineThreads) {
      float sum = 0;
      for (int i = 0; i < count; ++i) sum += partial[sorted[i] * columns + n];
      to[n] = sum;
    }
    syncBlock(); // `sorted` is written anew for the next token
  }
}
