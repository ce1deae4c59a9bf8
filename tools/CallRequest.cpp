// See CallRequest.h.
#include "tools/CallRequest.h"
#include "runtime/launch/Request.h"
#include <bit>
#include <fmt/format.h>

namespace quern::tools {

bool saysTokens(const syntax::Kernel &kernel, const oracle::GenerateOptions &call) {
  const syntax::Dim &tokens = kernel.routing >= 0 ? kernel.params[kernel.routing].dims[0] : kernel.rows;
  return tokens.isConstant() || call.dims.count(tokens.sym);
}

Expected<jit::Request> requestFor(const syntax::Program &program, const syntax::Kernel &kernel,
                                  const CallOptions &options) {
  auto call = options.resolve();
  if (!call) return call.takeError();
  auto chosen = oracle::chooseDims(kernel, call->dims, call->routing);
  if (!chosen) return chosen.takeError();
  auto dtype = [&](const syntax::Param &p) {
    return p.elem.kind == syntax::ElemType::Literal ? p.elem.literal : call->act;
  };
  std::vector<Arg> args;
  for (const syntax::Param &p : kernel.params) {
    if (p.kind == syntax::Param::Packed) {
      PackedView view;
      view.codec = program.findCodec(p.codec);
      view.dtype = call->quant, view.layout = call->layout;
      view.shape.block = call->block ? call->block : view.codec->block;
      args.push_back(view);
    } else if (p.kind == syntax::Param::Routing) {
      args.push_back(RoutingView{});
    } else if (p.kind == syntax::Param::Scalar) {
      args.push_back(0.0);
    } else {
      args.push_back(TensorView{nullptr, dtype(p), {}, {}});
    }
  }
  Binding binding{chosen->dims, call->act, {}};
  binding.dims.erase("top_k");
  for (const syntax::Param &p : kernel.outputs) binding.outputs.push_back({p.name, dtype(p), {}});
  jit::Request request = makeRequest(program, kernel, binding, args);
  // The default schedule looks at the rows of an expert only where the call says how many tokens there are,
  // not at a number that was chosen here; rounded as makeRequest does for a call with a routing.
  if (!saysTokens(kernel, *call)) {
    request.rowsPerExpert = 0;
  } else if (kernel.routing >= 0) {
    const auto &symbols = kernel.params[kernel.routing].dims; // of tokens and experts
    auto extent = [&](const std::string &symbol) { return std::max<int64_t>(1, chosen->dims[symbol]); };
    int64_t rows = extent(symbols[0].sym) * extent("top_k"), experts = extent(symbols[1].sym);
    request.rowsPerExpert = int64_t(std::bit_ceil(uint64_t((rows + experts - 1) / experts)));
  }
  std::vector<std::string> compiledIn;
  for (const std::string &name : chosen->chosen)
    if (request.dims.count(name)) compiledIn.push_back(fmt::format("{}={}", name, request.dims[name]));
  if (!compiledIn.empty()) fmt::print(stderr, "chosen here: {}\n", fmt::join(compiledIn, ", "));
  return request;
}

} // namespace quern::tools
