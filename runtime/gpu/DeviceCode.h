// Quern's own device code (kernels/*.cu) as functions: each launches one kernel or a few on the stream and
// returns. All pointers are device addresses. Shapes and dtypes: see the kernels' comments.
#pragma once
#include "runtime/gpu/Backend.h"
#include "runtime/launch/Kernel.h"
#include "runtime/routing/DeviceRouting.h"

namespace quern::gpu {

constexpr int64_t maxExperts = 1024, maxTopK = 1024;

/// ids [tokens, topK] int32 or int64, weights [tokens, topK] of any float dtype or null (all ones); strides
/// in elements.
struct RouteIds {
  const void *ids = nullptr;
  int idBytes = 8;
  int64_t idStrides[2] = {0, 1};
  const void *weights = nullptr;
  DType weightType = DType::F32;
  int64_t weightStrides[2] = {0, 1};
  int64_t tokens = 0, topK = 0, experts = 0;
};
/// As routeFromIds. User errors: more than 1024 experts, 2^31 pairs or more.
Status routeFromIds(Backend &backend, Stream stream, const RouteIds &source, const DeviceRouting &out);

/// Dense scores [tokens, experts]; non-zero means chosen. As routeFromScores with topK > 0, except that a
/// token with more than topK non-zero scores cannot be reported without waiting for the device: its weights
/// are NaN.
struct RouteScores {
  const void *scores = nullptr;
  DType type = DType::F32;
  int64_t strides[2] = {0, 1};
  int64_t tokens = 0, topK = 0, experts = 0;
};
Status routeFromScores(Backend &backend, Stream stream, const RouteScores &source, const DeviceRouting &out);

/// Which rows of a routing a row-wise kernel takes.
struct RowSource {
  const int32_t *offsets = nullptr;  // [experts + 1]: live rows only; null: all
  const int32_t *rowToken = nullptr; // gathers by token; null: row r itself
  int64_t rows = 0, experts = 1;     // allocated rows
};

/// An operand's tables of device addresses: each expert's arrays (zeros null: none), and the codec's values.
struct PackedTables {
  const void *codes = nullptr, *scales = nullptr, *zeros = nullptr, *values = nullptr;
};
/// The tables of `view`, uploaded where they are new (deviceConstant), for `kernel`.
Expected<PackedTables> packedTables(Backend &backend, Stream stream, const PackedView &view,
                                    const std::string &kernel);
/// Decoded weights of the experts that have rows, in the order that `step` says; `view`: layout gpu. out:
/// 16-byte aligned. `afterOurs`: the work before this on the stream is a kernel of the same call.
Status decodeAhead(Backend &backend, Stream stream, const PackedView &view, const PackedTables &tables,
                   const jit::DecodeStep &step, const RowSource &source, void *out, bool afterOurs);

/// out [rows, outStride] bf16 or f16 from x [*, columns]; outStride a multiple of 8, out 16-byte aligned.
Status gatherRows(Backend &backend, Stream stream, const TensorView &x, const RowSource &source, void *out,
                  DType outType, int64_t outStride);

/// out f32 [rows, columns] = x[row] . rhs[(expert,) column, :]; rhs [E, P, K] or [P, K]. offsets must be
/// given.
Status lowRank(Backend &backend, Stream stream, const TensorView &lhs, const TensorView &rhs,
               const RowSource &source, float *out);

/// out[t, n] = sum over t's rows, ascending, of partial[r, n]; out f32 [tokens, columns]. `afterOurs`: the
/// work before this on the stream is the kernel that wrote `partial` (LaunchConfig::dependent).
Status combineRows(Backend &backend, Stream stream, const float *partial, const int32_t *inverse,
                   int64_t rows, int64_t topK, const TensorView &out, bool afterOurs = false);

/// One expert's codes and scales (or zeros) from one order to the other, out of place; `from` and `to` are
/// Bnb and Gpu or the reverse.
Status retileCodes(Backend &backend, Stream stream, const uint8_t *codes, uint8_t *out,
                   const WeightShape &shape, bool highFirst, Layout from, Layout to);
Status retileScales(Backend &backend, Stream stream, const void *scales, void *out, int64_t elementBytes,
                    const WeightShape &shape, Layout from, Layout to);
/// Re-tiles an operand in its own storage through a scratch buffer of one expert. View: layout `from`.
Status retileInPlace(Backend &backend, Stream stream, const PackedView &view, Layout to);

/// Expert `e` of `view` (layout Bnb or Gpu) decoded to out [N, K] of dtype `type`, as decodeExpert.
Status dequantize(Backend &backend, Stream stream, const PackedView &view, int64_t e, DType type, void *out);

} // namespace quern::gpu
