// Checked arithmetic on dimensions: anything that a command line may hold comes through here.
#include "runtime/oracle/Dims.h"
#include <algorithm>
#include <fmt/format.h>

namespace quern::oracle {
namespace {
using namespace syntax;

constexpr std::pair<std::string_view, int64_t> defaultDims[] = {{"T", 16},  {"E", 8}, {"N", 256},
                                                                {"K", 256}, {"P", 8}, {"top_k", 2}};
constexpr int64_t otherDim = 64;

constexpr int64_t maxElements = int64_t(1) << 40; // of one array: keeps every later product in range

} // namespace

Expected<std::vector<int64_t>> extents(const Param &p, const std::map<std::string, int64_t> &dims) {
  std::vector<int64_t> shape;
  int64_t count = 1;
  for (const Dim &d : p.dims) {
    auto n = extent(d, dims);
    if (!n) return n.takeError();
    if (__builtin_mul_overflow(count, std::max<int64_t>(*n, 1), &count) || count > maxElements)
      return Error::user(fmt::format("'{}' would have more than 2^40 elements", p.name), "--dim");
    shape.push_back(*n);
  }
  return shape;
}

std::string_view name(RoutingKind kind) {
  constexpr std::string_view names[] = {"uniform", "zipf", "one", "empty"};
  return names[int(kind)];
}

std::optional<RoutingKind> parseRoutingKind(std::string_view text) {
  for (RoutingKind k : {RoutingKind::Uniform, RoutingKind::Zipf, RoutingKind::One, RoutingKind::Empty})
    if (text == name(k)) return k;
  return std::nullopt;
}

Expected<ChosenDims> chooseDims(const Kernel &kernel, const std::map<std::string, int64_t> &given,
                                RoutingKind routing) {
  ChosenDims out;
  std::vector<std::string> wanted = kernel.dimSymbols;
  const Param *route = kernel.routing >= 0 ? &kernel.params[kernel.routing] : nullptr;
  if (route) wanted.push_back("top_k");
  for (const auto &[name, value] : given) {
    std::string place = "--dim " + name;
    if (std::find(wanted.begin(), wanted.end(), name) == wanted.end())
      return Error::user(fmt::format("kernel '{}' has no dimension '{}'; expected one of {}", kernel.name,
                                     name, fmt::join(wanted, ", ")),
                         place);
    if (value < 0 || (name == "top_k" && value < 1))
      return Error::user(
          fmt::format("found {}, expected a {} number", value, name == "top_k" ? "positive" : "non-negative"),
          place);
    out.dims[name] = value;
  }
  for (const std::string &name : wanted) {
    if (out.dims.count(name)) continue;
    out.dims[name] = otherDim;
    for (auto [known, value] : defaultDims)
      if (name == known) out.dims[name] = value;
    out.chosen.push_back(name);
  }
  if (route) {
    auto shape = extents(*route, out.dims);
    if (!shape) return shape.takeError();
    int64_t experts = (*shape)[1], &topK = out.dims["top_k"];
    if (experts < 1)
      return Error::user(fmt::format("found {} experts, expected at least one", experts),
                         "--dim " + route->dims[1].sym);
    if (!given.count("top_k")) topK = std::min(topK, experts);
    if (topK > experts && (routing == RoutingKind::Uniform || routing == RoutingKind::Zipf))
      return Error::user(
          fmt::format("found {} choices per token, but there are only {} experts", topK, experts),
          "--dim top_k");
    out.dims["R"] = (*shape)[0] * topK;
  }
  for (const std::vector<Param> *list : {&kernel.params, &kernel.outputs})
    for (const Param &p : *list)
      if (auto shape = extents(p, out.dims); !shape) return shape.takeError();
  return out;
}

Expected<int64_t> extent(const Dim &dim, const std::map<std::string, int64_t> &dims) {
  int64_t value = 1;
  if (!dim.isConstant()) {
    auto found = dims.find(dim.sym);
    if (found == dims.end()) return Error::user(fmt::format("dimension {} is not known", dim.sym));
    value = found->second;
  }
  if (__builtin_mul_overflow(dim.mul, value, &value))
    return Error::user(fmt::format("{} is out of range", dim.str()), "--dim " + dim.sym);
  if (value % dim.div)
    return Error::user(fmt::format("{} is not whole for {} = {}", dim.str(), dim.sym, value / dim.mul),
                       "--dim " + dim.sym);
  return value / dim.div;
}

} // namespace quern::oracle
