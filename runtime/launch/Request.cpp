// See Request.h.
#include "runtime/launch/Request.h"
#include "runtime/config/Knobs.h"
#include <bit>
#include <fmt/format.h>
#include <set>

namespace quern {

using syntax::Param;

/// A power of two, so that few kernels are compiled as batches change.
static int64_t rowsPerExpert(const syntax::Kernel &kernel, const Binding &binding,
                             const std::vector<Arg> &args) {
  auto dim = [&](const std::string &symbol, int64_t otherwise) {
    auto found = binding.dims.find(symbol);
    return found == binding.dims.end() ? otherwise : found->second;
  };
  int64_t rows = dim(kernel.rows.sym, 0), experts = 1;
  if (kernel.routing >= 0) {
    rows = dim("R", 0);
    experts = std::max<int64_t>(1, std::get<RoutingView>(args[kernel.routing]).experts);
  }
  int64_t mean = (rows + experts - 1) / experts;
  return mean <= 0 ? 0 : int64_t(std::bit_ceil(uint64_t(mean)));
}

jit::Request makeRequest(const syntax::Program &program, const syntax::Kernel &kernel, const Binding &binding,
                         const std::vector<Arg> &args, const std::string &target) {
  jit::Request r;
  r.target = target;
  r.program = &program;
  r.kernel = kernel.name;
  r.act = binding.act;
  // Overrides fields of the default schedule ("rows=4 tokens=6"); for experiments and tests, read once.
  static const std::optional<std::string> schedules[] = {config::value(config::Knob::CpuSchedule),
                                                         config::value(config::Knob::GpuSchedule)};
  if (auto &schedule = schedules[target != "cpu"]) r.schedule = *schedule;
  // A symbol is compiled in when a column or a reduction runs over it; T, E and R change from call to call.
  std::set<std::string> free;
  if (kernel.routing >= 0)
    for (auto &dim : kernel.params[kernel.routing].dims) free.insert(dim.sym);
  free.insert(kernel.rows.sym);
  free.insert("R");
  for (auto &loops : kernel.loops)
    for (auto &loop : loops) free.erase(loop.range.sym);
  for (auto &[symbol, value] : binding.dims)
    if (!free.count(symbol)) r.dims[symbol] = value;
  for (auto &arg : args) {
    jit::OperandKey key;
    if (auto *t = std::get_if<TensorView>(&arg)) {
      key.dtype = t->dtype;
      key.unitStride = t->strides.empty() || t->strides.back() == 1 || t->shape.back() <= 1;
    } else if (auto *w = std::get_if<PackedView>(&arg)) {
      key.dtype = w->dtype;
      key.layout = w->layout;
      key.block = w->shape.block;
    }
    r.params.push_back(key);
  }
  for (auto &out : binding.outputs) r.outputs.push_back({out.dtype});
  r.rowsPerExpert = rowsPerExpert(kernel, binding, args);
  return r;
}

std::string requestKey(const jit::Request &r) {
  std::string key = fmt::format("{} {} act={} rows={}", r.target, r.kernel, name(r.act), r.rowsPerExpert);
  for (auto &[symbol, value] : r.dims) key += fmt::format(" {}={}", symbol, value);
  for (auto *operands : {&r.params, &r.outputs}) {
    for (auto &o : *operands)
      key += fmt::format(" {}{}{}{}", name(o.dtype)[0] == 'b' ? 'b' : name(o.dtype)[1], int(o.layout),
                         o.block, o.unitStride ? 'u' : 's');
    key += ';';
  }
  return key + r.features + r.schedule;
}

} // namespace quern
