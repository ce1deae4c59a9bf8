// See Execute.h. A call is: activations into the form that the kernel reads, low-rank factors, decoded
// weights, the kernel, then combines and the rows that no pair owns.
#include "runtime/gpu/Execute.h"
#include "runtime/gpu/DeviceCode.h"
#include "runtime/gpu/Memory.h"
#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace quern::gpu {
namespace {

using jit::GpuImage;
using jit::GpuParam;

constexpr int64_t roundUp(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

int64_t scaleBytes(const syntax::Codec &codec) {
  return codec.scale == syntax::ScaleType::F32 ? 4 : codec.scale == syntax::ScaleType::BF16 ? 2 : 1;
}

/// Persistent CTAs: as many as fit, no more than there can be tiles, in whole clusters.
unsigned gridOf(const Backend &backend, const GpuImage &image, int64_t rows, int64_t experts) {
  int64_t fit = std::max<int64_t>(1, int64_t(backend.multiprocessors()) * image.ctasPerSm);
  int64_t tokenTiles = std::min(rows, experts + rows / 8); // a tile has 8 rows or ends an expert
  int64_t tiles = std::max<int64_t>(image.tiles, 1) * std::max<int64_t>(tokenTiles, 1);
  int64_t cluster = std::max(image.cluster, 1);
  // A cluster takes at least one tile at a time (a split tile takes a whole one).
  return unsigned(std::max<int64_t>(std::min(fit / cluster, tiles), 1) * cluster);
}

struct Call {
  const Plan &plan;
  Stream stream;
  const std::vector<Arg> &args;
  const std::vector<TensorView> &outputs;
  Backend &backend = *plan.backend;
  const GpuImage &image = *plan.image;
  const syntax::Kernel &kernel = *plan.kernel;

  RowSource rows = {}; // offsets and number of rows; rowToken of the routing
  DeviceRouting routing = {};
  int64_t tokens = 0, topK = 0;
  TensorView x = {}; // the activations as the kernel reads them
  // Where they come from when they must be gathered, converted or copied.
  TensorView given = {};
  RowSource source = {};
  std::vector<DeviceMemory> lowRanks = {}, partials = {};
  DeviceMemory gathered = {}, decoded = {};
  // The kernel's predecessor on the stream is one of this call's, which lets it start early and which it
  // waits for (kernels/device.cuh); before the first of a call lies work that knows nothing of this.
  bool afterOurs = false;
  struct alignas(64) Param {
    unsigned char bytes[128];
  };
  std::vector<Param> values = {};
  std::vector<void *> params = {};
  std::vector<Range> ranges = {};

  bool routed() const { return kernel.routing >= 0; }

  // Operands count parameters, then outputs.
  const TensorView *tensor(int operand) const {
    if (operand >= int(args.size())) return &outputs[operand - args.size()];
    return std::get_if<TensorView>(&args[operand]);
  }
  const std::string &nameOf(int operand) const {
    return operand >= int(args.size()) ? kernel.outputs[operand - args.size()].name
                                       : kernel.params[operand].name;
  }

  void touches(std::string name, const void *data, int64_t bytes, bool writable) {
    if (backend.checksRanges()) ranges.push_back({std::move(name), data, uint64_t(bytes), writable});
  }

  Status prepareRows() {
    rows = {plan.denseOffsets, nullptr, plan.rows, plan.experts};
    if (!routed()) return {};
    const auto &view = std::get<RoutingView>(args[kernel.routing]);
    if (!view.onDevice())
      return Error::internal("a routing on the host",
                             fmt::format("argument '{}'", kernel.params[kernel.routing].name));
    routing = view.device, tokens = view.tokens, topK = view.topK;
    rows.offsets = routing.offsets, rows.rowToken = routing.rowToken;
    return {};
  }

  /// Whether the kernel can read the activations where they are.
  bool readable(const TensorView &t) const {
    if (image.x.sorted && image.x.byToken) return false; // rows must be gathered
    if (t.dtype != image.x.dtype || (t.strides[1] != 1 && t.shape[1] > 1)) return false;
    if (reinterpret_cast<uintptr_t>(t.data) % 16) return false;
    int64_t stride = t.strides[0];
    if (t.shape[0] <= 1) return true;
    if (stride * byteSize(t.dtype) % 16) return false;
    if (stride < 0 || stride > INT32_MAX) return false; // kernels that gather hold it in 32 bits
    return !image.x.sorted || stride >= t.shape[1];     // a tensor map takes no other
  }

  Status prepareActivations() {
    if (image.x.operand < 0) return {};
    const TensorView *matrix = tensor(image.x.operand);
    if (!matrix || matrix->shape.size() != 2)
      return Error::internal("activations that are not a matrix", nameOf(image.x.operand));
    x = *matrix;
    if (!rows.rows || readable(x)) {
      if (x.shape[0] <= 1) x.strides[0] = roundUp(x.shape[1], 8);
      return {};
    }
    bool gather = image.x.sorted && image.x.byToken;
    source = rows;
    if (!gather) source.rowToken = nullptr;
    if (!gather && image.x.byToken) source.offsets = nullptr, source.rows = x.shape[0]; // tokens, not rows
    int64_t stride = roundUp(x.shape[1], 8);
    if (Status ok = workspace(gathered, source.rows * stride * byteSize(image.x.dtype)); !ok) return ok;
    given = x;
    x = {gathered.data(), image.x.dtype, {source.rows, x.shape[1]}, {stride, 1}};
    return {};
  }

  Status workspace(DeviceMemory &memory, int64_t bytes) {
    auto allocated = DeviceMemory::allocate(backend, bytes, stream);
    if (!allocated) return allocated.takeError();
    memory = std::move(*allocated);
    return {};
  }

  /// All of a call's memory, before its first launch: nothing then stands between its kernels.
  Status allocate() {
    if (rows.rows) {
      if (Status ok = prepareActivations(); !ok) return ok;
      for (const jit::LowRankStep &step : image.lowRank)
        if (Status ok = workspace(lowRanks.emplace_back(), rows.rows * step.columns * 4); !ok) return ok;
      if (plan.decodedBytes)
        if (Status ok = workspace(decoded, plan.decodedBytes); !ok) return ok;
    }
    for (const jit::CombineStep &step : image.combine)
      if (Status ok = workspace(partials.emplace_back(), rows.rows * step.columns * 4); !ok) return ok;
    return {};
  }

  /// Gathered activations, first low-rank factors, decoded weights.
  Status launchBefore() {
    if (gathered.data()) {
      if (Status ok =
              gatherRows(backend, stream, given, source, gathered.data(), image.x.dtype, x.strides[0]);
          !ok)
        return ok;
      afterOurs = true;
    }
    for (size_t i = 0; i < image.lowRank.size(); ++i) {
      const jit::LowRankStep &step = image.lowRank[i];
      const TensorView *lhs = tensor(step.lhs), *rhs = tensor(step.rhs);
      if (!lhs || !rhs) return Error::internal("a low-rank factor that is not a tensor", kernel.name);
      RowSource from = rows;
      if (!step.byToken) from.rowToken = nullptr;
      if (Status ok = lowRank(backend, stream, *lhs, *rhs, from, static_cast<float *>(lowRanks[i].data()));
          !ok)
        return ok;
      afterOurs = true;
    }
    for (const jit::DecodeStep &step : image.decode) {
      const auto *w = std::get_if<PackedView>(&args[step.packed]);
      if (!w) return Error::internal("decoded weights of what is not packed", kernel.name);
      if (Status ok =
              decodeAhead(backend, stream, *w, plan.decodeTables, step, rows, decoded.data(), afterOurs);
          !ok)
        return ok;
      afterOurs = true;
    }
    return {};
  }

  template <class T> void param(const T &value) {
    static_assert(sizeof(T) <= sizeof(Param));
    std::memcpy(values.emplace_back().bytes, &value, sizeof value);
    params.push_back(values.back().bytes);
  }

  template <class T>
  void touchesEach(const std::string &name, const std::vector<T *> &pointers, int64_t bytesEach,
                   const void *table) {
    touches(name + " (table)", table, int64_t(pointers.size()) * 8, false);
    for (size_t e = 0; e < pointers.size(); ++e)
      touches(fmt::format("{}[{}]", name, e), pointers[e], bytesEach, false);
  }
  void touchesTable(const GpuParam &p, const PackedView &w, const void *table) {
    const std::string &name = nameOf(p.operand);
    if (p.kind == GpuParam::Codes)
      touchesEach(name + ".codes", w.codes, w.shape.codeBytes(), table);
    else if (p.kind == GpuParam::Scales)
      touchesEach(name + ".scales", w.scales, w.shape.scaleCount() * scaleBytes(*w.codec), table);
    else
      touchesEach(name + ".zeros", w.zeros, w.shape.scaleCount(), table);
  }

  Status paramOf(const GpuParam &p) {
    bool isX = p.operand >= 0 && p.operand == image.x.operand;
    switch (p.kind) {
    case GpuParam::TensorMap: {
      Param map{};
      if (Status ok = backend.encodeTensorMap(map.bytes, x.data, x.dtype, x.shape[1], x.shape[0],
                                              x.strides[0], image.x.boxRows);
          !ok)
        return ok;
      param(map);
      if (backend.checksRanges()) ranges.push_back(rangeOf(nameOf(image.x.operand), x, false));
      return {};
    }
    case GpuParam::Pointer: {
      // A kernel that gathers reads the prepared activations; one with a tensor map has that for them.
      const TensorView *t = isX && !image.x.sorted ? &x : tensor(p.operand);
      if (!t) break;
      param(t->data);
      if (backend.checksRanges())
        ranges.push_back(rangeOf(nameOf(p.operand), *t, p.operand >= int(args.size())));
      return {};
    }
    case GpuParam::Stride: {
      const TensorView *t = isX && !image.x.sorted ? &x : tensor(p.operand);
      if (!t || p.index >= int(t->strides.size())) break;
      param(t->strides[p.index]);
      return {};
    }
    case GpuParam::Codes:
    case GpuParam::Scales:
    case GpuParam::Zeros: {
      const auto *w = std::get_if<PackedView>(&args[p.operand]);
      const void *table = plan.tables[size_t(&p - image.params.data())];
      if (!w || !table) break;
      param(table);
      if (backend.checksRanges()) touchesTable(p, *w, table);
      return {};
    }
    case GpuParam::Offsets:
      param(rows.offsets);
      touches("offsets", rows.offsets, (rows.experts + 1) * 4, false);
      return {};
    case GpuParam::RowToken:
      param(routing.rowToken);
      touches("rowToken", routing.rowToken, rows.rows * 4, false);
      return {};
    case GpuParam::RowWeight:
      param(routing.rowWeight);
      touches("rowWeight", routing.rowWeight, rows.rows * 4, false);
      return {};
    case GpuParam::Scalar:
      if (const auto *value = std::get_if<double>(&args[p.operand])) return param(float(*value)), Status();
      break;
    case GpuParam::Rows: return param(int32_t(rows.rows)), Status();
    case GpuParam::Experts: return param(int32_t(rows.experts)), Status();
    case GpuParam::Decoded:
      if (!decoded.data()) break;
      param(decoded.data());
      touches("decoded", decoded.data(), decoded.bytes(), false);
      return {};
    case GpuParam::Partial:
    case GpuParam::LowRank: {
      bool partial = p.kind == GpuParam::Partial;
      auto &memory = partial ? partials : lowRanks;
      if (p.index < 0 || p.index >= int(memory.size())) break;
      param(memory[p.index].data());
      touches(fmt::format("{} {}", partial ? "partial" : "lowRank", p.index), memory[p.index].data(),
              memory[p.index].bytes(), partial);
      return {};
    }
    }
    return Error::internal(
        fmt::format("parameter {} of the image (kind {}, operand {}, index {}) does not match "
                    "the kernel",
                    params.size(), int(p.kind), p.operand, p.index),
        kernel.name);
  }

  Status finish() {
    for (size_t i = 0; i < image.combine.size(); ++i)
      if (Status ok =
              combineRows(backend, stream, static_cast<const float *>(partials[i].data()), routing.inverse,
                          rows.rows, topK, *tensor(image.combine[i].output), rows.rows != 0);
          !ok)
        return ok;
    return {};
  }

  Status run(bool &launched) {
    launched = false;
    if (Status ok = prepareRows(); !ok) return ok;
    if (Status ok = allocate(); !ok) return ok;
    launched = true;
    if (rows.rows) {
      if (Status ok = launchBefore(); !ok) return ok;
      values.reserve(image.params.size()), params.reserve(image.params.size());
      for (const GpuParam &p : image.params)
        if (Status ok = paramOf(p); !ok) return ok;
      LaunchConfig config = plan.config;
      config.dependent = afterOurs;
      if (Status ok = backend.launch(plan.loaded, config, params.data(), ranges, stream); !ok) return ok;
    }
    return finish();
  }
};

/// The table of addresses that a parameter is, or null.
Expected<const void *> tableOf(Backend &backend, Stream stream, const GpuParam &p,
                               const std::vector<Arg> &args, const std::string &kernel) {
  const PackedView *w = nullptr;
  if (p.operand >= 0 && p.operand < int(args.size())) w = std::get_if<PackedView>(&args[p.operand]);
  if (!w) return static_cast<const void *>(nullptr);
  if (p.kind == GpuParam::Codes) return pointerTable(backend, stream, w->codes, kernel);
  if (p.kind == GpuParam::Scales) return pointerTable(backend, stream, w->scales, kernel);
  if (p.kind == GpuParam::Zeros) return pointerTable(backend, stream, w->zeros, kernel);
  return static_cast<const void *>(nullptr);
}

} // namespace

Expected<Plan> makePlan(Backend &backend, Stream stream, const GpuImage &image, LoadedKernel *loaded,
                        const syntax::Kernel &kernel, const Binding &binding, const std::vector<Arg> &args) {
  Plan plan;
  plan.backend = &backend, plan.image = &image, plan.loaded = loaded, plan.kernel = &kernel;
  if (kernel.routing >= 0) {
    const auto &view = std::get<RoutingView>(args[kernel.routing]);
    plan.rows = view.tokens * view.topK, plan.experts = view.experts;
  } else {
    plan.rows = binding.dims.count(kernel.rows.sym)
                    ? binding.dims.at(kernel.rows.sym) * kernel.rows.mul / kernel.rows.div
                    : kernel.rows.mul;
  }
  // Padding of tiles must stay below 2^31 too.
  if (plan.rows > INT32_MAX - 4096)
    return Error::user(fmt::format("{} rows; expected fewer than 2^31 on a GPU", plan.rows));
  if (kernel.routing < 0) {
    int32_t offsets[2] = {0, int32_t(plan.rows)};
    auto table = deviceConstant(backend, stream, std::as_bytes(std::span(offsets)), kernel.name);
    if (!table) return table.takeError();
    plan.denseOffsets = static_cast<const int32_t *>(*table);
  }
  for (const GpuParam &p : image.params) {
    auto table = tableOf(backend, stream, p, args, kernel.name);
    if (!table) return table.takeError();
    plan.tables.push_back(*table);
  }
  for (const jit::DecodeStep &step : image.decode) {
    const auto *w = step.packed < int(args.size()) ? std::get_if<PackedView>(&args[step.packed]) : nullptr;
    if (!w || w->shape.n != step.rows || w->shape.k != step.columns)
      return Error::internal("the image decodes weights of another shape", kernel.name);
    auto tables = packedTables(backend, stream, *w, kernel.name);
    if (!tables) return tables.takeError();
    plan.decodeTables = *tables;
    plan.decodedBytes = step.bytesPerExpert() * (step.byExpert ? plan.experts : 1);
  }
  plan.config = {gridOf(backend, image, plan.rows, plan.experts), unsigned(image.threads),
                 unsigned(image.cluster), uint64_t(image.smemBytes), false};
  return plan;
}

Status hasRoom(const Plan &plan, Stream stream) {
  if (!plan.decodedBytes || !plan.backend->mayLoad(plan.kernel->name, stream)) return {};
  auto memory = DeviceMemory::allocate(*plan.backend, plan.decodedBytes, stream);
  if (!memory) return memory.takeError();
  return {};
}

Status execute(const Plan &plan, Stream stream, const std::vector<Arg> &args,
               const std::vector<TensorView> &outputs, bool *launched) {
  bool unasked;
  return Call{plan, stream, args, outputs}.run(launched ? *launched : unasked);
}

} // namespace quern::gpu
