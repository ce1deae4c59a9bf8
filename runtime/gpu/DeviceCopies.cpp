// See DeviceCopies.h.
#include "runtime/gpu/DeviceCopies.h"
#include "runtime/gpu/DeviceCode.h"
#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace quern::gpu {
namespace {

constexpr int64_t guardBytes = 4096;
constexpr std::byte freshByte{0xff}; // NaN in every float dtype

/// The pairs of a routing as ids and weights [T, topK], and the inverse that goes with them. Choices of a
/// token are numbered in row order, which is the order of any sort when the rows of an expert are in token
/// order.
struct Pairs {
  std::vector<int64_t> ids;
  std::vector<float> weights;
  std::vector<int32_t> inverse;
  bool sorted = true; // rows of each expert in token order

  explicit Pairs(const RoutingView &r) {
    size_t pairs = size_t(r.tokens * r.topK);
    ids.assign(pairs, -1), weights.assign(pairs, 0), inverse.assign(pairs, -1);
    std::vector<int64_t> next(size_t(r.tokens), 0);
    for (int64_t e = 0; e < r.experts; ++e)
      for (int64_t row = r.offsets[e]; row < r.offsets[e + 1]; ++row) {
        int64_t token = r.rowToken[row], choice = next[token]++;
        if (choice >= r.topK) { // more rows than choices: no ids give this routing
          sorted = false;
          continue;
        }
        sorted &= row == r.offsets[e] || r.rowToken[row - 1] <= token;
        size_t pair = size_t(token * r.topK + choice);
        ids[pair] = e, weights[pair] = r.rowWeight[row], inverse[pair] = int32_t(row);
      }
  }
};

} // namespace

Expected<void *> DeviceCopies::copy(const void *data, int64_t bytes) {
  auto allocated = DeviceMemory::allocate(backend, bytes, stream);
  if (!allocated) return allocated.takeError();
  memory.push_back(std::move(*allocated));
  if (bytes)
    if (Status ok = backend.upload(memory.back().data(), data, uint64_t(bytes), stream); !ok)
      return ok.takeError();
  return memory.back().data();
}
Expected<Arg> DeviceCopies::tensor(const TensorView &t) {
  Span span = spanOf(t.shape, t.strides);
  int64_t width = byteSize(t.dtype);
  auto data = copy(static_cast<const char *>(t.data) + span.lowest * width, span.count * width);
  if (!data) return data.takeError();
  TensorView out = t;
  out.data = static_cast<char *>(*data) - span.lowest * width;
  return Arg(out);
}

Expected<Arg> DeviceCopies::packed(const PackedView &w) {
  PackedView out = w;
  int64_t scaleSize = w.codec->scale == syntax::ScaleType::F32    ? 4
                      : w.codec->scale == syntax::ScaleType::BF16 ? 2
                                                                  : 1;
  Layout sent = w.layout == Layout::Gpu ? Layout::Gpu : Layout::Bnb;
  std::vector<uint8_t> bytes;
  auto send = [&](const void *array, int64_t elementBytes) -> Expected<void *> { // 0: codes
    int64_t size = elementBytes ? w.shape.scaleCount() * elementBytes : w.shape.codeBytes();
    bytes.resize(size_t(size));
    std::memcpy(bytes.data(), array, size_t(size));
    if (elementBytes)
      quern::retileScales(bytes.data(), elementBytes, w.shape, w.layout, sent);
    else
      quern::retileCodes(bytes.data(), w.shape, w.codec->highFirst, w.layout, sent);
    return copy(bytes);
  };
  for (int64_t e = 0; e < w.experts; ++e) {
    auto codes = send(w.codes[e], 0), scales = codes ? send(w.scales[e], scaleSize) : codes;
    if (!scales) return scales.takeError();
    out.codes[e] = static_cast<uint8_t *>(*codes), out.scales[e] = *scales;
    if (!w.codec->hasZero) continue;
    auto zeros = send(w.zeros[e], 1);
    if (!zeros) return zeros.takeError();
    out.zeros[e] = static_cast<uint8_t *>(*zeros);
  }
  out.layout = sent;
  if (Status ok = retileInPlace(backend, stream, out, Layout::Gpu); !ok) return ok.takeError();
  out.layout = Layout::Gpu;
  return Arg(out);
}

/// A routing that no ids give is copied; any other is sorted on the device and must come out the same.
Expected<Arg> DeviceCopies::routing(const RoutingView &r) {
  int64_t rows = r.tokens * r.topK, live = r.offsets[r.experts];
  Pairs pairs(r);
  std::vector<int32_t> offsets(r.offsets, r.offsets + r.experts + 1);
  std::vector<int32_t> rowToken(size_t(rows), -1);
  std::vector<float> rowWeight(size_t(rows), 0.0f);
  std::copy(r.rowToken, r.rowToken + live, rowToken.begin());
  std::copy(r.rowWeight, r.rowWeight + live, rowWeight.begin());
  // Fresh memory first: what the device does not write is found below.
  auto o = copy(pairs.sorted ? std::vector<int32_t>(offsets.size(), -7) : offsets);
  auto t = copy(pairs.sorted ? std::vector<int32_t>(rowToken.size(), -7) : rowToken);
  auto w = copy(pairs.sorted ? std::vector<float>(rowWeight.size(), -7) : rowWeight);
  auto i = copy(pairs.sorted ? std::vector<int32_t>(pairs.inverse.size(), -7) : pairs.inverse);
  for (auto *p : {&o, &t, &w, &i})
    if (!*p) return p->takeError();
  RoutingView out{r.tokens, r.experts, r.topK};
  out.device = {static_cast<int32_t *>(*o), static_cast<int32_t *>(*t), static_cast<float *>(*w),
                static_cast<int32_t *>(*i)};
  if (!pairs.sorted) return Arg(out);
  auto ids = copy(pairs.ids), weights = copy(pairs.weights);
  if (!ids || !weights) return (ids ? weights : ids).takeError();
  RouteIds source{*ids, 8, {r.topK, 1}, *weights, DType::F32, {r.topK, 1}, r.tokens, r.topK, r.experts};
  if (Status ok = routeFromIds(backend, stream, source, out.device); !ok) return ok.takeError();
  auto same = [&](const auto &expected, const void *device, const char *what) -> Status {
    auto found = expected;
    size_t bytes = expected.size() * sizeof(expected[0]);
    if (Status ok = backend.download(found.data(), device, bytes, stream); !ok) return ok;
    if (Status ok = backend.synchronize(stream); !ok) return ok;
    if (!bytes || !std::memcmp(found.data(), expected.data(), bytes)) return {};
    return Error::internal(fmt::format("the device's {} differ from the host's", what), "routing");
  };
  if (Status ok = same(offsets, *o, "offsets"); !ok) return ok.takeError();
  if (Status ok = same(rowToken, *t, "row tokens"); !ok) return ok.takeError();
  if (Status ok = same(rowWeight, *w, "row weights"); !ok) return ok.takeError();
  if (Status ok = same(pairs.inverse, *i, "inverse"); !ok) return ok.takeError();
  return Arg(out);
}

Expected<Arg> DeviceCopies::send(const Arg &arg) {
  if (auto *t = std::get_if<TensorView>(&arg)) return tensor(*t);
  if (auto *w = std::get_if<PackedView>(&arg)) return packed(*w);
  if (auto *r = std::get_if<RoutingView>(&arg)) return routing(*r);
  return arg;
}

Status DeviceCopies::allocateOutputs(const std::vector<TensorView> &shapes) {
  for (const TensorView &o : shapes) {
    Output result;
    result.size = byteSize(o.dtype);
    for (int64_t d : o.shape) result.size *= d;
    result.bytes.resize(size_t(result.size + 2 * guardBytes));
    auto allocated = DeviceMemory::allocate(backend, int64_t(result.bytes.size()), stream);
    if (!allocated) return allocated.takeError();
    memory.push_back(std::move(*allocated));
    result.data = static_cast<char *>(memory.back().data()) + guardBytes;
    TensorView view = o;
    view.data = result.data;
    outputs.push_back(view);
    results.push_back(std::move(result));
  }
  return {};
}
Status DeviceCopies::freshOutputs() {
  for (Output &r : results) {
    std::fill(r.bytes.begin(), r.bytes.end(), freshByte);
    if (Status ok =
            backend.upload(static_cast<char *>(r.data) - guardBytes, r.bytes.data(), r.bytes.size(), stream);
        !ok)
      return ok;
  }
  return {};
}
Status DeviceCopies::fetchOutputs(const std::vector<TensorView> &to) {
  for (Output &r : results)
    if (Status ok = backend.download(r.bytes.data(), static_cast<char *>(r.data) - guardBytes, r.bytes.size(),
                                     stream);
        !ok)
      return ok;
  if (Status ok = backend.synchronize(stream); !ok) return ok;
  for (size_t i = 0; i < results.size(); ++i) {
    const Output &r = results[i];
    auto fresh = [](std::byte b) { return b == freshByte; };
    if (!std::all_of(r.bytes.begin(), r.bytes.begin() + guardBytes, fresh) ||
        !std::all_of(r.bytes.end() - guardBytes, r.bytes.end(), fresh))
      return Error::internal("memory beside the output was written",
                             fmt::format("output '{}'", kernel.outputs[i].name));
    if (r.size) std::memcpy(to[i].data, r.bytes.data() + guardBytes, size_t(r.size));
  }
  return {};
}

} // namespace quern::gpu
