// See DeviceCode.h.
#include "runtime/gpu/DeviceCode.h"
#include "runtime/gpu/LaunchCall.h"
#include "runtime/gpu/Memory.h"
#include <bit>
#include <fmt/format.h>

namespace quern::gpu {
namespace {

constexpr int64_t divideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
bool aligned16(const void *p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

void readsTensor(LaunchCall &call, const char *name, const TensorView &t) {
  Range range = rangeOf(name, t, false);
  call.reads(name, range.data, int64_t(range.bytes));
}

void readsSource(LaunchCall &call, const RowSource &source) {
  call.reads("offsets", source.offsets, (source.experts + 1) * 4);
  call.reads("rowToken", source.rowToken, source.rows * 4);
}

int64_t scaleBytesOf(const syntax::Codec &codec) {
  return codec.scale == syntax::ScaleType::F32 ? 4 : codec.scale == syntax::ScaleType::BF16 ? 2 : 1;
}

/// Enough blocks of 256 threads for `items` of one thread each.
unsigned gridOfThreads(const LaunchCall &call, int64_t items) { return call.gridFor(divideUp(items, 256)); }

} // namespace

Status gatherRows(Backend &backend, Stream stream, const TensorView &x, const RowSource &source, void *out,
                  DType outType, int64_t outStride) {
  if (!source.rows) return {};
  int64_t columns = x.shape[1], stride0 = x.strides[0], stride1 = x.strides[1], width = byteSize(x.dtype);
  bool vector = (stride1 == 1 || columns <= 1) && stride0 * width % 16 == 0 && aligned16(x.data);
  LaunchCall call{backend, stream};
  readsTensor(call, "x", x);
  readsSource(call, source);
  call.writes("gathered", out, source.rows * outStride * byteSize(outType));
  return call("gather_rows", call.gridFor(source.rows), 128, x.data, int(x.dtype), stride0, stride1,
              source.rowToken, source.offsets, int(source.experts), int(source.rows), columns, out,
              int(outType), outStride, int(vector));
}

Status lowRank(Backend &backend, Stream stream, const TensorView &lhs, const TensorView &rhs,
               const RowSource &source, float *out) {
  if (!source.rows) return {};
  bool byExpert = rhs.shape.size() == 3;
  int64_t columns = rhs.shape[byExpert], reduced = lhs.shape[1];
  LaunchCall call{backend, stream};
  readsTensor(call, "lhs", lhs), readsTensor(call, "rhs", rhs);
  readsSource(call, source);
  call.writes("lowRank", out, source.rows * columns * 4);
  // Tiles share an expert's weights between 64 rows; they pay once an expert has a good part of that.
  bool tiles = source.rows >= 16 * source.experts;
  int64_t grid = divideUp(source.rows, 64) * divideUp(columns, 32);
  return call(tiles ? "low_rank_tiles" : "low_rank_rows", tiles ? unsigned(grid) : call.gridFor(source.rows),
              128, lhs.data, int(lhs.dtype), lhs.strides[0], lhs.strides[1], source.rowToken, rhs.data,
              int(rhs.dtype), byExpert ? rhs.strides[0] : int64_t(0), rhs.strides[byExpert],
              rhs.strides[byExpert + 1], source.offsets, int(source.experts), int(columns), reduced, out);
}

Expected<PackedTables> packedTables(Backend &backend, Stream stream, const PackedView &view,
                                    const std::string &kernel) {
  auto codes = pointerTable(backend, stream, view.codes, kernel);
  if (!codes) return codes.takeError();
  auto scales = pointerTable(backend, stream, view.scales, kernel);
  if (!scales) return scales.takeError();
  auto values = deviceConstant(backend, stream, std::as_bytes(std::span(view.codec->table)), kernel);
  if (!values) return values.takeError();
  PackedTables tables{*codes, *scales, nullptr, *values};
  if (!view.codec->hasZero) return tables;
  auto zeros = pointerTable(backend, stream, view.zeros, kernel);
  if (!zeros) return zeros.takeError();
  tables.zeros = *zeros;
  return tables;
}

Status decodeAhead(Backend &backend, Stream stream, const PackedView &view, const PackedTables &tables,
                   const jit::DecodeStep &step, const RowSource &source, void *out, bool afterOurs) {
  if (view.layout != Layout::Gpu) return Error::internal("weights to be decoded are not in the gpu layout");
  const WeightShape &s = view.shape;
  const syntax::Codec &codec = *view.codec;
  int64_t experts = step.byExpert ? source.experts : 1;
  LaunchCall call{backend, stream, afterOurs};
  call.reads("offsets", source.offsets, (source.experts + 1) * 4);
  call.reads("values", tables.values, 64);
  call.reads("codes (table)", tables.codes, experts * 8);
  call.reads("scales (table)", tables.scales, experts * 8);
  call.reads("zeros (table)", tables.zeros, experts * 8);
  if (backend.checksRanges())
    for (int64_t e = 0; e < experts; ++e) {
      call.reads("codes", view.codes[e], s.codeBytes());
      call.reads("scales", view.scales[e], s.scaleCount() * scaleBytesOf(codec));
      if (codec.hasZero) call.reads("zeros", view.zeros[e], s.scaleCount());
    }
  call.writes("decoded", out, experts * step.bytesPerExpert());
  return call("decode_ahead", call.gridFor(experts * step.bytesPerExpert() / 8192), 128, tables.codes,
              tables.scales, tables.zeros, tables.values, source.offsets, int(source.experts),
              int(step.byExpert), int(s.n), int(s.k), int(std::countr_zero(uint64_t(s.block))),
              int(codec.scale), int(codec.highFirst), int(view.dtype), int(step.tileRows), int(step.halved),
              out, int(step.dtype));
}

Status combineRows(Backend &backend, Stream stream, const float *partial, const int32_t *inverse,
                   int64_t rows, int64_t topK, const TensorView &out, bool afterOurs) {
  int64_t tokens = out.shape[0], columns = out.shape[1], stride = tokens > 1 ? out.strides[0] : columns;
  if (!tokens || !columns) return {};
  if (topK > maxTopK)
    return Error::user(fmt::format("top_k is {}; expected at most {} on a GPU", topK, maxTopK), "routing");
  bool few = topK <= 8 && columns % 4 == 0 && stride % 4 == 0 && aligned16(partial) && aligned16(out.data);
  LaunchCall call{backend, stream};
  call.dependent = afterOurs;
  call.reads("partial", partial, rows * columns * 4);
  call.reads("inverse", inverse, tokens * topK * 4);
  call.writes("out", out.data, ((tokens - 1) * stride + columns) * 4);
  return call(few ? "combine_few" : "combine_rows",
              call.gridFor(few ? tokens * divideUp(columns, 1024) : tokens), 256, partial, inverse,
              static_cast<float *>(out.data), stride, int(tokens), int(topK), columns);
}

Status retileCodes(Backend &backend, Stream stream, const uint8_t *codes, uint8_t *out,
                   const WeightShape &shape, bool highFirst, Layout from, Layout to) {
  LaunchCall call{backend, stream};
  call.reads("codes", codes, shape.codeBytes());
  call.writes("retiled", out, shape.codeBytes());
  if (from == to)
    return call("copy_bytes", gridOfThreads(call, divideUp(shape.codeBytes(), 16)), 256, codes, out,
                shape.codeBytes());
  if (from == Layout::Cpu || to == Layout::Cpu) return Error::internal("the cpu layout is made on the host");
  return call("retile_codes", gridOfThreads(call, divideUp(shape.codeBytes(), 32)), 256, codes, out, shape.n,
              shape.k, int(highFirst), int(to == Layout::Gpu));
}

Status retileScales(Backend &backend, Stream stream, const void *scales, void *out, int64_t elementBytes,
                    const WeightShape &shape, Layout from, Layout to) {
  int64_t bytes = shape.scaleCount() * elementBytes;
  LaunchCall call{backend, stream};
  call.reads("scales", scales, bytes);
  call.writes("retiled", out, bytes);
  if (from == to)
    return call("copy_bytes", gridOfThreads(call, divideUp(bytes, 16)), 256,
                static_cast<const uint8_t *>(scales), static_cast<uint8_t *>(out), bytes);
  if (from == Layout::Cpu || to == Layout::Cpu) return Error::internal("the cpu layout is made on the host");
  return call("retile_scales", gridOfThreads(call, shape.scaleCount()), 256, scales, out, shape.n, shape.k,
              shape.block, int(elementBytes), int(to == Layout::Gpu));
}

Status retileInPlace(Backend &backend, Stream stream, const PackedView &view, Layout to) {
  if (view.layout == to) return {};
  const WeightShape &s = view.shape;
  int64_t scaleBytes = scaleBytesOf(*view.codec);
  auto scratch =
      DeviceMemory::allocate(backend, std::max(s.codeBytes(), s.scaleCount() * scaleBytes), stream);
  if (!scratch) return scratch.takeError();
  auto *temporary = static_cast<uint8_t *>(scratch->data());
  // The re-tiled bytes go to the scratch buffer and are copied back, one array at a time.
  auto copyBack = [&](void *array, int64_t bytes) {
    LaunchCall call{backend, stream};
    call.reads("retiled", temporary, bytes);
    call.writes("operand", array, bytes);
    return call("copy_bytes", gridOfThreads(call, divideUp(bytes, 16)), 256,
                static_cast<const uint8_t *>(temporary), static_cast<uint8_t *>(array), bytes);
  };
  auto move = [&](void *array, int64_t elementBytes) -> Status { // 0: codes
    Status ok = elementBytes
                    ? retileScales(backend, stream, array, temporary, elementBytes, s, view.layout, to)
                    : retileCodes(backend, stream, static_cast<uint8_t *>(array), temporary, s,
                                  view.codec->highFirst, view.layout, to);
    if (!ok) return ok;
    return copyBack(array, elementBytes ? s.scaleCount() * elementBytes : s.codeBytes());
  };
  for (int64_t e = 0; e < view.experts; ++e) {
    if (Status ok = move(view.codes[e], 0); !ok) return ok;
    if (Status ok = move(view.scales[e], scaleBytes); !ok) return ok;
    if (view.codec->hasZero)
      if (Status ok = move(view.zeros[e], 1); !ok) return ok;
  }
  return {};
}

Status dequantize(Backend &backend, Stream stream, const PackedView &view, int64_t e, DType type, void *out) {
  if (view.layout == Layout::Cpu) return Error::internal("a device does not read the cpu layout");
  const WeightShape &s = view.shape;
  const syntax::Codec &codec = *view.codec;
  auto table = deviceConstant(backend, stream, std::as_bytes(std::span(codec.table)), "dequantize");
  if (!table) return table.takeError();
  const uint8_t *zeros = codec.hasZero ? view.zeros[e] : nullptr;
  LaunchCall call{backend, stream};
  call.reads("table", *table, 64);
  call.reads("codes", view.codes[e], s.codeBytes());
  call.reads("scales", view.scales[e], s.scaleCount() * scaleBytesOf(codec));
  call.reads("zeros", zeros, s.scaleCount());
  call.writes("out", out, s.n * s.k * byteSize(type));
  return call("dequantize", gridOfThreads(call, divideUp(s.codeBytes(), 32)), 256,
              static_cast<const uint8_t *>(view.codes[e]), static_cast<const void *>(view.scales[e]), zeros,
              static_cast<const float *>(*table), s.n, s.k, int(std::countr_zero(uint64_t(s.block))),
              int(codec.scale), int(codec.highFirst), int(view.layout == Layout::Gpu), int(view.dtype), out,
              int(type));
}

} // namespace quern::gpu
