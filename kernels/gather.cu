// Activations into the form that a kernel reads: rows by token, a 16-bit dtype, 16-byte aligned rows.
#include "kernels/device.cuh"

namespace quern_device {
namespace {
// Four vectors of a thread in flight: a row of 4096 columns in one go.
constexpr int gatherThreads = 128, gatherUnroll = 4;

/// 8 elements as 16-bit words.
QUERN_DEVICE Vector16 gatherVector(const void *x, int type, int outType, int64 at) {
  if (type == outType) return *reinterpret_cast<const Vector16 *>(static_cast<const uint16 *>(x) + at);
  uint16 words[8];
  if (type == F32) {
    const Vector16 *from = reinterpret_cast<const Vector16 *>(static_cast<const float *>(x) + at);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Vector16 v = from[half];
#pragma unroll
      for (int i = 0; i < 4; ++i) words[half * 4 + i] = toHalfWord(outType, asFloat(v.words[i]));
    }
  } else {
    Vector16 v = *reinterpret_cast<const Vector16 *>(static_cast<const uint16 *>(x) + at);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      words[i] = toHalfWord(outType, fromHalfWord(type, uint16(v.words[i / 2] >> i % 2 * 16)));
  }
  Vector16 out;
#pragma unroll
  for (int i = 0; i < 4; ++i) out.words[i] = uint32(words[2 * i]) | uint32(words[2 * i + 1]) << 16;
  return out;
}
} // namespace
} // namespace quern_device

using namespace quern_device;

/// out[r, :] = x[rowToken[r], :] converted to outType, for r below offsets[experts]; rows beyond are neither
/// read nor written. rowToken null: out[r, :] = x[r, :]; offsets null: all `rows`. x: any float dtype
/// (quern::DType), strides in elements. out: bf16 or f16 [rows, outStride], outStride a multiple of 8 and
/// 16-byte aligned; columns beyond the last become zero. `vector`: stride1 is 1, x and its rows are 16-byte
/// aligned. Blocks of 128 threads, rows in turn.
extern "C" __global__ void __launch_bounds__(gatherThreads)
    gather_rows(const void *x, int type, int64 stride0, int64 stride1, const int *rowToken,
                const int *offsets, int experts, int rows, int64 columns, void *out, int outType,
                int64 outStride, int vector) {
  letNextStart();
  int live = offsets ? offsets[experts] : rows;
  uint16 *to = static_cast<uint16 *>(out);
  for (int row = blockIndex(); row < live; row += gridSize()) {
    int64 from = int64(rowToken ? rowToken[row] : row) * stride0, base = row * outStride;
    int64 whole = vector ? columns / 8 * 8 : 0;
    for (int64 first = threadIndex() * 8; first < whole; first += gatherUnroll * gatherThreads * 8) {
      Vector16 vectors[gatherUnroll];
#pragma unroll
      for (int i = 0; i < gatherUnroll; ++i)
        if (int64 k = first + i * gatherThreads * 8; k < whole)
          vectors[i] = gatherVector(x, type, outType, from + k);
#pragma unroll
      for (int i = 0; i < gatherUnroll; ++i)
        if (int64 k = first + i * gatherThreads * 8; k < whole)
          *reinterpret_cast<Vector16 *>(to + base + k) = vectors[i];
    }
    for (int64 k = whole + threadIndex(); k < outStride; k += gatherThreads) {
      if (k >= columns)
        to[base + k] = 0;
      else if (type == outType)
        to[base + k] = static_cast<const uint16 *>(x)[from + k * stride1];
      else
        to[base + k] = toHalfWord(outType, loadAs(type, x, from + k * stride1));
    }
  }
}
