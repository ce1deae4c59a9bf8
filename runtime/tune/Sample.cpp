// See Sample.h.
#include "runtime/tune/Sample.h"
#include <algorithm>
#include <cstring>
#include <deque>

namespace quern::tune {
namespace {

/// What the first dimension of a parameter or output counts.
enum class Counts { Other, Tokens, Rows, Unknown };

struct Cutter {
  const syntax::Kernel &kernel;
  std::string tokens, rows; // symbols; without routing only `rows`

  explicit Cutter(const syntax::Kernel &kernel) : kernel(kernel) {
    if (kernel.routing >= 0)
      tokens = kernel.params[size_t(kernel.routing)].dims[0].sym, rows = "R";
    else
      rows = kernel.rows.sym;
  }
  bool moves(const syntax::Dim &d) const { return !d.isConstant() && (d.sym == tokens || d.sym == rows); }
  Counts of(const syntax::Param &p) const {
    Counts counts = Counts::Other;
    for (size_t i = 0; i < p.dims.size(); ++i) {
      const syntax::Dim &d = p.dims[i];
      if (!moves(d)) continue;
      if (i || d.mul != 1 || d.div != 1) return Counts::Unknown;
      counts = d.sym == rows ? Counts::Rows : Counts::Tokens;
    }
    return counts;
  }
};

} // namespace

TensorView gatherRows(const TensorView &from, const std::vector<int64_t> &rows,
                      std::vector<std::byte> &storage) {
  int64_t rowBytes = byteSize(from.dtype);
  for (size_t d = 1; d < from.shape.size(); ++d) rowBytes *= from.shape[d];
  storage.assign(rows.size() * size_t(rowBytes), std::byte(0));
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i] >= 0)
      std::memcpy(storage.data() + i * size_t(rowBytes),
                  static_cast<const char *>(from.data) + rows[i] * rowBytes, size_t(rowBytes));
  TensorView view = from;
  view.data = storage.data(), view.shape[0] = int64_t(rows.size());
  return view;
}

Expected<Reference> sampleOf(const syntax::Program &program, const syntax::Kernel &kernel,
                             const std::vector<Arg> &args, const Binding &binding) {
  Cutter cutter(kernel);
  for (auto *list : {&kernel.params, &kernel.outputs})
    for (const syntax::Param &p : *list)
      if (p.kind != syntax::Param::Routing && cutter.of(p) == Counts::Unknown) return Reference{};
  auto total = binding.dims.find(kernel.routing >= 0 ? cutter.tokens : cutter.rows);
  if (total == binding.dims.end() || total->second < 1) return Reference{};

  std::vector<int64_t> tokens; // evenly spread, the first and the last among them
  int64_t count = std::min(sampledTokens, total->second);
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(count == 1 ? 0 : i * (total->second - 1) / (count - 1));

  std::vector<int64_t> rows = tokens; // a dense kernel's rows are its tokens
  Routing cut;
  if (kernel.routing >= 0) {
    const auto &view = std::get<RoutingView>(args[size_t(kernel.routing)]);
    cut.tokens = count, cut.experts = view.experts, cut.topK = view.topK;
    cut.offsets = {0}, rows.clear();
    for (int64_t e = 0; e < view.experts; ++e) {
      for (int64_t r = view.offsets[e]; r < view.offsets[e + 1]; ++r) {
        auto at = std::ranges::lower_bound(tokens, view.rowToken[r]);
        if (at == tokens.end() || *at != view.rowToken[r]) continue;
        rows.push_back(r), cut.rowToken.push_back(at - tokens.begin()),
            cut.rowWeight.push_back(view.rowWeight[r]);
      }
      cut.offsets.push_back(int64_t(rows.size()));
    }
    rows.resize(size_t(cut.rows()), -1);
    cut.rowToken.resize(rows.size(), -1), cut.rowWeight.resize(rows.size(), 0);
  }

  std::deque<std::vector<std::byte>> storage;
  std::vector<Arg> cutArgs = args;
  for (size_t i = 0; i < args.size(); ++i) {
    const syntax::Param &p = kernel.params[i];
    if (p.kind == syntax::Param::Routing)
      cutArgs[i] = RoutingView{cut.tokens,         cut.experts,         cut.topK,
                               cut.offsets.data(), cut.rowToken.data(), cut.rowWeight.data()};
    else if (auto *t = std::get_if<TensorView>(&args[i]); t && cutter.of(p) != Counts::Other)
      cutArgs[i] = gatherRows(*t, cutter.of(p) == Counts::Rows ? rows : tokens, storage.emplace_back());
  }
  auto values = oracle::interpret(program, kernel, cutArgs);
  if (!values) return values.takeError();
  Reference reference;
  reference.outputs = std::move(*values);
  for (const syntax::Param &p : kernel.outputs)
    reference.rows.push_back(cutter.of(p) == Counts::Rows ? rows : tokens);
  return reference;
}

} // namespace quern::tune
