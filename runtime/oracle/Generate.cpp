// Dimensions first (given, or chosen), then one argument per parameter in declaration order.
#include "runtime/oracle/Generate.h"
#include "compiler/syntax/Syntax.h"
#include "runtime/oracle/Random.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <numeric>

namespace quern::oracle {
namespace {
using namespace syntax;

/// What a parameter is used for decides the spread of its values.
struct Roles {
  std::vector<bool> weights; // the right-hand side of a contraction: spread 1/sqrt(reduced)
  std::vector<Dim> reduced;
};

Roles findRoles(const Program &program, const Kernel &kernel) {
  Roles roles{std::vector<bool>(kernel.params.size()), std::vector<Dim>(kernel.params.size())};
  if (auto normal = normalize(program, kernel))
    for (const Contraction &c : normal->contractions)
      if (c.rhsParam >= 0) roles.weights[c.rhsParam] = true, roles.reduced[c.rhsParam] = c.reduced;
  return roles;
}

class Generator {
  const Program &program;
  const Kernel &kernel;
  const GenerateOptions &options;
  Arguments out;
  Roles roles;
  bool outOfMemory = false;

  /// Aligned to a cache line; 64 spare bytes allow that.
  void *allocate(int64_t bytes) {
    out.storage.emplace_back(new (std::nothrow) std::byte[size_t(bytes) + 64]);
    auto address = reinterpret_cast<uintptr_t>(out.storage.back().get());
    if (!address) outOfMemory = true;
    return reinterpret_cast<void *>((address + 63) / 64 * 64);
  }
  Expected<std::vector<int64_t>> shapeOf(const Param &p) const { return extents(p, out.dims); }

  Expected<Arg> tensor(const Param &p, int index) {
    auto shape = shapeOf(p);
    if (!shape) return shape.takeError();
    TensorView view;
    view.dtype = p.elem.kind == ElemType::Literal ? p.elem.literal : options.act;
    view.shape = *shape;
    view.strides.assign(shape->size(), 1);
    int64_t count = 1;
    for (size_t d = shape->size(); d-- > 0; count *= (*shape)[d]) view.strides[d] = count;
    view.data = allocate(count * byteSize(view.dtype));
    if (outOfMemory) return Arg(view);
    Random random(options.seed, p.name);
    double spread = 1;
    if (roles.weights[index])
      if (auto k = extent(roles.reduced[index], out.dims))
        spread = 1 / std::sqrt(double(std::max<int64_t>(*k, 1)));
    for (int64_t i = 0; i < count; ++i)
      storeAs(view.dtype, view.data, i,
              options.exact ? float(random.below(i, 5) - 2) : float(spread * random.normal(i)));
    return Arg(view);
  }

  /// Mean square of table[code] - zero over all codes, the scale's part left out.
  static double spreadOf(const Codec &codec) {
    double sum = 0;
    for (float t : codec.table)
      sum += std::isfinite(t) ? (t - (codec.hasZero ? 8 : 0)) * (t - (codec.hasZero ? 8 : 0)) : 0;
    return sum > 0 ? std::sqrt(sum / 16) : 1;
  }

  void fillCodes(uint8_t *codes, int64_t count, const Codec &codec, const Random &random) const {
    std::vector<uint8_t> exactCodes;
    for (int c = 0; c < 16; ++c)
      if (double t = codec.table[c] * 16.0; std::isfinite(t) && t == std::floor(t) && std::fabs(t) <= 256)
        exactCodes.push_back(uint8_t(c));
    if (options.exact && exactCodes.empty()) exactCodes.push_back(0);
    for (int64_t i = 0; i < count; ++i) {
      uint64_t bits = random.bits(i);
      if (options.exact)
        codes[i] = uint8_t(exactCodes[(bits >> 32) % exactCodes.size()] << 4 |
                           exactCodes[(bits & 0xffffffff) % exactCodes.size()]);
      else
        codes[i] = i < 256 ? uint8_t(i * 167 + 13)
                           : uint8_t(bits); // 167 is odd: the first 256 bytes take every value
    }
  }

  void fillScales(void *scales, int64_t count, const Codec &codec, double spread,
                  const Random &random) const {
    for (int64_t i = 0; i < count; ++i) {
      // Real absmax values of one layer lie within a factor of about two of each other.
      double value = options.exact ? std::ldexp(1.0, int(random.below(i, 3)) - 1)
                                   : spread * (0.6 + 0.8 * random.uniform(i));
      if (codec.scale == ScaleType::F32)
        static_cast<float *>(scales)[i] = float(value);
      else if (codec.scale == ScaleType::BF16)
        storeAs(DType::BF16, scales, i, float(value));
      else
        static_cast<uint8_t *>(scales)[i] =
            uint8_t(std::clamp<double>(127 + std::round(std::log2(value)), 0, 254));
    }
  }

  Expected<Arg> packed(const Param &p, int index) {
    auto shape = shapeOf(p);
    if (!shape) return shape.takeError();
    PackedView view;
    view.codec = program.findCodec(p.codec);
    view.hasExpertDim = shape->size() == 3;
    view.experts = view.hasExpertDim ? (*shape)[0] : 1;
    view.shape = {(*shape)[shape->size() - 2], shape->back(),
                  options.block ? options.block : view.codec->block};
    view.dtype = options.quant;
    view.layout = options.layout;
    const Codec &codec = *view.codec;
    // Before any allocation: block sizes and odd K are refused here.
    static uint8_t present;
    PackedView probe = view;
    probe.codes.assign(size_t(view.experts), &present);
    probe.scales.assign(size_t(view.experts), &present);
    if (codec.hasZero) probe.zeros = probe.codes;
    if (Status ok = checkPacked(probe, p.name); !ok) return ok.takeError();
    int64_t codeBytes = view.shape.codeBytes(), count = view.shape.scaleCount();
    int64_t scaleSize = codec.scale == ScaleType::F32 ? 4 : codec.scale == ScaleType::BF16 ? 2 : 1;
    for (int64_t e = 0; e < view.experts; ++e) {
      view.codes.push_back(static_cast<uint8_t *>(allocate(codeBytes)));
      view.scales.push_back(allocate(count * scaleSize));
      if (codec.hasZero) view.zeros.push_back(static_cast<uint8_t *>(allocate(count)));
    }
    if (outOfMemory) return Arg(view);
    int64_t k = view.shape.k;
    if (auto reduced = extent(roles.reduced[index], out.dims); reduced && roles.weights[index]) k = *reduced;
    double spread = 1 / (spreadOf(codec) * std::sqrt(double(std::max<int64_t>(k, 1))));
    for (int64_t e = 0; e < view.experts; ++e) {
      auto stream = [&](std::string_view part) {
        return Random(options.seed, fmt::format("{}.{}.{}", p.name, part, e));
      };
      fillCodes(view.codes[e], codeBytes, codec, stream("codes"));
      fillScales(view.scales[e], count, codec, spread, stream("scales"));
      retileCodes(view.codes[e], view.shape, codec.highFirst, Layout::Bnb, view.layout);
      retileScales(view.scales[e], scaleSize, view.shape, Layout::Bnb, view.layout);
      if (!codec.hasZero) continue;
      Random random = stream("zeros");
      for (int64_t i = 0; i < count; ++i) view.zeros[e][i] = uint8_t(5 + random.below(i, 6));
      retileScales(view.zeros[e], 1, view.shape, Layout::Bnb, view.layout);
    }
    return Arg(view);
  }

  /// top_k ids of one token, distinct: the experts with the largest popularity * exp(Gumbel noise).
  void chooseExperts(int64_t t, int64_t experts, int64_t topK, const std::vector<double> &popularity,
                     const Random &random, int64_t *ids) const {
    std::vector<std::pair<double, int64_t>> keys;
    for (int64_t e = 0; e < experts; ++e)
      keys.emplace_back(std::log(random.uniform(t * experts + e)) / popularity[e], e);
    std::partial_sort(keys.begin(), keys.begin() + topK, keys.end(), std::greater<>());
    for (int64_t c = 0; c < topK; ++c) ids[c] = keys[c].second;
  }

  Expected<Arg> route(const Param &p) {
    auto shape = shapeOf(p);
    if (!shape) return shape.takeError();
    int64_t tokens = (*shape)[0], experts = (*shape)[1], topK = out.dims["top_k"];
    Random random(options.seed, p.name), weightRandom(options.seed, p.name + ".weights");
    std::vector<int64_t> ids(size_t(tokens * topK), -1), rank(static_cast<size_t>(experts));
    std::vector<double> popularity(size_t(experts), 1.0);
    std::iota(rank.begin(), rank.end(), 0);
    Random shuffle(options.seed, p.name + ".ranks");
    for (int64_t e = experts - 1; e > 0; --e) std::swap(rank[e], rank[shuffle.below(e, e + 1)]);
    if (options.routing == RoutingKind::Zipf)
      for (int64_t e = 0; e < experts; ++e) popularity[e] = 1.0 / double(rank[e] + 1);
    if (experts > 0 && options.routing == RoutingKind::One) std::fill(ids.begin(), ids.end(), rank[0]);
    if (options.routing == RoutingKind::Uniform || options.routing == RoutingKind::Zipf)
      for (int64_t t = 0; t < tokens; ++t)
        chooseExperts(t, experts, topK, popularity, random, &ids[t * topK]);
    std::vector<float> weights(ids.size());
    for (int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (int64_t c = 0; c < topK; ++c) sum += std::exp(weightRandom.normal(t * topK + c));
      for (int64_t c = 0; c < topK; ++c) {
        int64_t i = t * topK + c;
        weights[i] = options.exact ? std::ldexp(1.0f, -int(weightRandom.below(i, 3)))
                                   : float(std::exp(weightRandom.normal(i)) / sum);
      }
    }
    out.routing = std::make_unique<Routing>(
        routeFromIds(ids.data(), 8, topK, 1, weights.data(), DType::F32, topK, 1, tokens, topK, experts));
    const Routing &r = *out.routing;
    return Arg(RoutingView{tokens, experts, topK, r.offsets.data(), r.rowToken.data(), r.rowWeight.data()});
  }

public:
  Generator(const Program &program, const Kernel &kernel, const GenerateOptions &options)
      : program(program), kernel(kernel), options(options), roles(findRoles(program, kernel)) {}

  Expected<Arguments> run() {
    auto dims = chooseDims(kernel, options.dims, options.routing);
    if (!dims) return dims.takeError();
    out.dims = std::move(dims->dims), out.chosen = std::move(dims->chosen);
    for (size_t i = 0; i < kernel.params.size(); ++i) {
      const Param &p = kernel.params[i];
      Random random(options.seed, p.name);
      double scalar = options.exact ? double(1 + random.below(0, 3)) : double(float(0.5 + random.uniform(0)));
      Expected<Arg> arg = p.kind == Param::Tensor    ? tensor(p, int(i))
                          : p.kind == Param::Packed  ? packed(p, int(i))
                          : p.kind == Param::Routing ? route(p)
                                                     : Expected<Arg>(Arg(scalar));
      if (!arg) return arg.takeError();
      if (outOfMemory) return Error::system(fmt::format("not enough memory for '{}'", p.name));
      out.args.push_back(std::move(*arg));
    }
    return std::move(out);
  }
};
} // namespace

Expected<Arguments> generate(const Program &program, const Kernel &kernel, const GenerateOptions &options) {
  return Generator(program, kernel, options).run();
}

} // namespace quern::oracle
