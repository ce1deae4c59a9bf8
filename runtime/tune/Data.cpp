// See Data.h.
#include "runtime/tune/Data.h"
#include "runtime/cache/Digest.h"
#include "runtime/oracle/Random.h"
#include "runtime/tune/Problem.h"
#include "runtime/tune/Sample.h"
#include "runtime/tune/Space.h"
#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace quern::tune {
namespace {

constexpr unsigned char fresh = 0xff; // NaN in every float dtype

uint64_t bytesOf(const TensorView &t) {
  uint64_t bytes = uint64_t(byteSize(t.dtype));
  for (int64_t s : t.shape) bytes *= uint64_t(s);
  return bytes;
}

/// How many rows the oracle can afford on the weights of one expert: two seconds or so.
int64_t raggedRows(const Shape &shape) {
  double perRow = double(shape.n) * double(shape.k);
  return std::clamp<int64_t>(int64_t(2e9 / std::max(perRow, 1.0)), 24, 192);
}

/// No row, one row, a few, many: what uneven experts look like.
std::vector<int64_t> raggedCounts(int64_t experts, int64_t rows) {
  if (experts == 1) return {rows};
  if (experts == 2) return {1, rows - 1};
  std::vector<int64_t> counts(size_t(experts), 0);
  counts[1] = 1;
  if (experts > 3) counts[2] = 17;
  counts[size_t(std::min<int64_t>(experts - 1, 3))] = rows - 1 - counts[2];
  return counts;
}

/// Ids that give each expert its rows from shuffled tokens; the pairs left over name no expert.
Routing raggedRouting(const RoutingView &view, int64_t rows, uint64_t seed) {
  std::vector<int64_t> counts = raggedCounts(view.experts, rows), ids;
  for (size_t e = 0; e < counts.size(); ++e) ids.insert(ids.end(), size_t(counts[e]), int64_t(e));
  ids.resize(size_t(view.tokens * view.topK), -1);
  oracle::Random random(seed, "ragged");
  for (size_t i = ids.size(); i > 1; --i)
    std::swap(ids[i - 1], ids[size_t(random.below(int64_t(i), int64_t(i)))]);
  std::vector<float> weights;
  for (size_t i = 0; i < ids.size(); ++i) weights.push_back(float(random.uniform(int64_t(ids.size() + i))));
  return routeFromIds(ids.data(), 8, view.topK, 1, weights.data(), DType::F32, view.topK, 1, view.tokens,
                      view.topK, view.experts);
}

RoutingView viewOf(const Routing &r) {
  return {r.tokens, r.experts, r.topK, r.offsets.data(), r.rowToken.data(), r.rowWeight.data()};
}

/// The routing alone, of another kind: as the generator makes it.
Expected<oracle::Arguments> routingOf(const syntax::Program &program, const syntax::Kernel &kernel,
                                      oracle::GenerateOptions options, oracle::RoutingKind kind) {
  syntax::Kernel alone;
  alone.name = kernel.name, alone.params = {kernel.params[kernel.routing]}, alone.routing = 0;
  alone.rowVar = kernel.rowVar, alone.rows = kernel.rows;
  std::map<std::string, int64_t> dims{{"top_k", options.dims["top_k"]}};
  for (const syntax::Dim &d : alone.params[0].dims)
    if (!d.isConstant()) alone.dimSymbols.push_back(d.sym), dims[d.sym] = options.dims[d.sym];
  options.dims = dims, options.routing = kind;
  return oracle::generate(program, alone, options);
}

Expected<Case> makeCase(std::string name, const syntax::Program &program, const syntax::Kernel &kernel,
                        std::vector<Arg> args) {
  Case c;
  c.name = std::move(name), c.args = std::move(args);
  auto binding = bindArguments(program, kernel, c.args);
  if (!binding) return binding.takeError();
  c.binding = std::move(*binding);
  for (const OutputSpec &spec : c.binding.outputs)
    c.outputs.emplace_back(spec), c.views.push_back(c.outputs.back().view);
  return c;
}

} // namespace

void Case::fill() {
  for (size_t i = 0; i < outputs.size(); ++i)
    outputs[i].fill(), std::memset(views[i].data, fresh, bytesOf(views[i]));
}

std::string Case::bits() const {
  std::string all;
  for (const TensorView &v : views)
    all += cache::hex(cache::digest({static_cast<const char *>(v.data), bytesOf(v)}));
  return cache::hex(cache::digest(all)).substr(0, 16);
}

std::string Case::verdict() const {
  for (size_t o = 0; o < outputs.size(); ++o) {
    const TensorView &found = views[o];
    if (!outputs[o].guardsIntact())
      return fmt::format("memory beside output '{}' was written", binding.outputs[o].name);
    int64_t width = byteSize(found.dtype), count = int64_t(bytesOf(found)) / width, unwritten = 0;
    const auto *bytes = static_cast<const unsigned char *>(found.data);
    for (int64_t i = 0; i < count; ++i)
      unwritten +=
          std::all_of(bytes + i * width, bytes + (i + 1) * width, [](unsigned char b) { return b == fresh; });
    if (unwritten)
      return fmt::format("{} elements of output '{}' were not written", unwritten, binding.outputs[o].name);
    if (o >= reference.outputs.size()) continue;
    TensorView rows = found;
    std::vector<std::byte> gathered;
    if (!reference.rows.empty()) rows = gatherRows(found, reference.rows[o], gathered);
    oracle::Comparison comparison = oracle::compare(reference.outputs[o], rows);
    if (!comparison.pass) return comparison.verdict();
  }
  return "";
}

Expected<Data> Data::make(const Problem &problem, uint64_t seed, uint64_t limitBytes) {
  auto found = kernelOf(problem);
  if (!found) return found.takeError();
  const syntax::Kernel &kernel = **found;
  const syntax::Program &program = *problem.program;
  auto request = requestOf(problem);
  if (!request) return request.takeError();
  auto work = workloadOf(problem, *request);
  auto shape = shapeOf(problem, *request);
  auto options = generateOptions(problem, seed);
  for (Error *error : {work ? nullptr : &const_cast<Error &>(work.error()),
                       shape ? nullptr : &const_cast<Error &>(shape.error()),
                       options ? nullptr : &const_cast<Error &>(options.error())})
    if (error) return *error;
  Data data;
  // All experts' weights, not only those in use, and outputs of three cases.
  double used = double(std::max<int64_t>(1, std::min(work->experts, std::max<int64_t>(1, work->rows))));
  data.bytes = uint64_t(work->bytes * double(work->experts) / used * 1.2);
  if (limitBytes && data.bytes > limitBytes)
    return Error::user(fmt::format("the call's data take about {} MB, tuning may hold {} MB; set "
                                   "QUERN_TUNE_WORKSPACE, or tune fewer tokens",
                                   data.bytes >> 20, limitBytes >> 20),
                       "tune");

  auto uniform = oracle::generate(program, kernel, *options);
  if (!uniform) return uniform.takeError();
  std::vector<Arg> zipfArgs = uniform->args;
  if (kernel.routing >= 0) {
    auto zipf = routingOf(program, kernel, *options, oracle::RoutingKind::Zipf);
    if (!zipf) return zipf.takeError();
    zipfArgs[size_t(kernel.routing)] = zipf->args[0];
    data.storage.push_back(std::move(*zipf));
  }

  oracle::GenerateOptions ragged = *options;
  ragged.seed = seed + 1, ragged.routing = oracle::RoutingKind::Empty;
  int64_t rows = raggedRows(*shape);
  if (kernel.routing >= 0) {
    const syntax::Param &route = kernel.params[size_t(kernel.routing)];
    auto shrink = [&](const syntax::Dim &dim, int64_t to) { // only what is no part of the image
      if (dim.mul == 1 && dim.div == 1 && !request->dims.count(dim.sym)) ragged.dims[dim.sym] = to;
    };
    shrink(route.dims[0], rows / ragged.dims["top_k"] + 2); // two tokens without rows, at least
    shrink(route.dims[1], std::min<int64_t>(5, ragged.dims[route.dims[1].sym]));
  } else if (!kernel.rows.isConstant() && kernel.rows.mul == 1 && kernel.rows.div == 1) {
    ragged.dims[kernel.rows.sym] = 37;
  }
  auto small = oracle::generate(program, kernel, ragged);
  if (!small) return small.takeError();
  if (kernel.routing >= 0) {
    const auto &view = std::get<RoutingView>(small->args[size_t(kernel.routing)]);
    rows = std::min(rows, view.tokens * view.topK);
    small->routing = std::make_unique<Routing>(raggedRouting(view, rows, seed));
    small->args[size_t(kernel.routing)] = viewOf(*small->routing);
  }

  for (auto &[name, args] : {std::pair<std::string, std::vector<Arg> *>{"ragged", &small->args},
                             {"uniform", &uniform->args},
                             {"zipf", &zipfArgs}}) {
    auto made = makeCase(name, program, kernel, *args);
    if (!made) return made.takeError();
    data.cases.push_back(std::move(*made));
  }
  auto whole = oracle::interpret(program, kernel, data.cases[0].args);
  if (!whole) return whole.takeError();
  data.cases[0].reference.outputs = std::move(*whole);
  for (size_t i : {1, 2}) {
    auto sampled = sampleOf(program, kernel, data.cases[i].args, data.cases[i].binding);
    if (!sampled) return sampled.takeError();
    data.cases[i].reference = std::move(*sampled);
  }
  data.storage.push_back(std::move(*uniform));
  data.storage.push_back(std::move(*small));
  return std::move(data);
}

} // namespace quern::tune
