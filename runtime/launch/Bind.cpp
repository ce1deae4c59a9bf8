// Matching a call's arguments with a kernel's signature. Checks first: nothing is computed or written here.
#include "runtime/launch/ArgumentChecks.h"
#include "runtime/launch/DimSolver.h"
#include "runtime/launch/Kernel.h"
#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace quern {
namespace {

using syntax::Codec;
using syntax::Dim;
using syntax::ElemType;
using syntax::Kernel;
using syntax::Param;

std::string signature(const std::vector<Dim> &dims) {
  std::vector<std::string> texts;
  for (const Dim &d : dims) texts.push_back(d.str());
  return fmt::format("[{}]", fmt::join(texts, ", "));
}

std::string_view kindName(const Arg &arg) {
  static constexpr std::string_view names[] = {"a tensor", "a packed operand", "a routing", "a number"};
  return names[arg.index()];
}

std::string expectedKind(const Param &param) {
  switch (param.kind) {
  case Param::Tensor: return "a tensor " + signature(param.dims);
  case Param::Packed:
    return fmt::format("a packed operand {} of codec '{}'", signature(param.dims), param.codec);
  case Param::Routing: return "a routing " + signature(param.dims);
  case Param::Scalar: return "a number";
  }
  return "";
}

class Binder {
  const syntax::Program &program;
  const Kernel &kernel;
  std::string kernelPlace;
  DimSolver solver;
  std::string actFrom; // argument that fixed the dtype variable
  Binding binding;

  static Status fail(const Param &param, std::string message) {
    return Error::user(std::move(message), argumentPlace(param.name));
  }

  Status bindDims(const Param &param, const std::vector<int64_t> &sizes) {
    for (size_t i = 0; i < sizes.size(); ++i)
      if (Status ok = solver.match(param.dims[i], sizes[i], int64_t(i), param.name); !ok) return ok;
    return {};
  }

  Status bindTensor(const Param &param, const TensorView &t) {
    if (t.shape.size() != t.strides.size())
      return Error::internal(fmt::format("{} sizes but {} strides", t.shape.size(), t.strides.size()),
                             argumentPlace(param.name));
    if (t.shape.size() != param.dims.size())
      return fail(param, fmt::format("has {} dimensions [{}]; expected {}: {}", t.shape.size(),
                                     fmt::join(t.shape, ", "), param.dims.size(), signature(param.dims)));
    bool empty = false;
    for (size_t i = 0; i < t.shape.size(); ++i) {
      if (t.shape[i] < 0)
        return fail(param, fmt::format("dimension {} is {}; expected 0 or more", i, t.shape[i]));
      empty |= t.shape[i] == 0;
    }
    if (!t.data && !empty)
      return fail(param, fmt::format("a tensor [{}] without data", fmt::join(t.shape, ", ")));
    if (param.elem.kind == ElemType::Literal && t.dtype != param.elem.literal)
      return fail(param, fmt::format("dtype is {}; expected {}", name(t.dtype), name(param.elem.literal)));
    if (param.elem.kind == ElemType::Act) {
      if (actFrom.empty()) binding.act = t.dtype, actFrom = param.name;
      if (t.dtype != binding.act)
        return fail(param, fmt::format("dtype is {}; expected {} (act = {} from argument '{}')",
                                       name(t.dtype), name(binding.act), name(binding.act), actFrom));
    }
    return bindDims(param, t.shape);
  }

  Status bindPacked(const Param &param, const PackedView &view) {
    if (Status ok = checkPacked(view, param.name); !ok) return ok;
    auto codec = std::find_if(program.codecs.begin(), program.codecs.end(),
                              [&](const Codec &c) { return c.name == param.codec; });
    if (codec == program.codecs.end())
      return Error::internal(fmt::format("codec '{}' is not in the program", param.codec),
                             argumentPlace(param.name));
    if (std::string text = codecDifference(*view.codec, *codec); !text.empty())
      return fail(param, fmt::format("packed with codec '{}', which is not the kernel's codec '{}': {}",
                                     view.codec->name, codec->name, text));
    std::vector<int64_t> sizes{view.shape.n, view.shape.k};
    if (view.hasExpertDim) sizes.insert(sizes.begin(), view.experts);
    if (sizes.size() != param.dims.size())
      return fail(param, fmt::format("a packed operand [{}] with {} dimensions; expected {}: {}",
                                     fmt::join(sizes, ", "), sizes.size(), param.dims.size(),
                                     signature(param.dims)));
    return bindDims(param, sizes);
  }

  Status bindOne(const Param &param, const Arg &arg) {
    switch (param.kind) {
    case Param::Tensor: return bindTensor(param, std::get<TensorView>(arg));
    case Param::Packed: return bindPacked(param, std::get<PackedView>(arg));
    case Param::Routing: {
      auto &r = std::get<RoutingView>(arg);
      return bindDims(param, {r.tokens, r.experts});
    }
    case Param::Scalar: return {}; // any number, also infinite or NaN
    }
    return {};
  }

  /// Every dimension inside an expression must be a whole number too.
  Status checkIndices(const std::vector<syntax::Index> &indices) {
    for (const syntax::Index &index : indices)
      if (auto value = solver.evaluate(index.offset, kernelPlace); !value) return value.takeError();
    return {};
  }
  Status checkExpr(const syntax::Expr &expr) {
    if (Status ok = checkIndices(expr.indices); !ok) return ok;
    for (const syntax::ExprPtr &child : expr.children)
      if (Status ok = checkExpr(*child); !ok) return ok;
    return {};
  }
  Status checkBody() {
    auto check = [&](const Dim &dim) -> Status {
      auto value = solver.evaluate(dim, kernelPlace);
      return value ? Status() : Status(value.takeError());
    };
    for (const syntax::Local &local : kernel.locals)
      if (Status ok = check(local.columns); !ok) return ok;
    for (const auto &loops : kernel.loops)
      for (const syntax::LoopVar &loop : loops)
        if (Status ok = check(loop.range); !ok) return ok;
    for (const syntax::Stmt &stmt : kernel.stmts) {
      if (Status ok = checkIndices(stmt.indices); !ok) return ok;
      if (stmt.value)
        if (Status ok = checkExpr(*stmt.value); !ok) return ok;
    }
    return {};
  }

  Status describeOutput(const Param &output) {
    std::string place = fmt::format("output '{}'", output.name);
    if (output.elem.kind == ElemType::Float)
      return Error::internal("an output whose dtype no argument fixes", place);
    OutputSpec spec{output.name, output.elem.kind == ElemType::Act ? binding.act : output.elem.literal, {}};
    int64_t bytes = byteSize(spec.dtype);
    for (const Dim &dim : output.dims) {
      auto size = solver.evaluate(dim, place);
      if (!size) return size.takeError();
      spec.shape.push_back(*size);
      if (*size && __builtin_mul_overflow(bytes, *size, &bytes))
        return Error::user(
            fmt::format("a tensor [{}, ...] does not fit in memory", fmt::join(spec.shape, ", ")), place);
    }
    binding.outputs.push_back(std::move(spec));
    return {};
  }

public:
  Binder(const syntax::Program &program, const Kernel &kernel)
      : program(program), kernel(kernel), kernelPlace(fmt::format("kernel '{}'", kernel.name)) {}

  Expected<Binding> bind(const std::vector<Arg> &args) {
    if (args.size() != kernel.params.size()) {
      std::vector<std::string> names;
      for (const Param &param : kernel.params) names.push_back(param.name);
      return Error::user(
          fmt::format("{} arguments; expected {}: {}", args.size(), names.size(), fmt::join(names, ", ")),
          kernelPlace);
    }
    for (size_t i = 0; i < args.size(); ++i)
      if (args[i].index() != size_t(kernel.params[i].kind))
        return fail(kernel.params[i],
                    fmt::format("{}; expected {}", kindName(args[i]), expectedKind(kernel.params[i])))
            .takeError();
    // R is the routing's, wherever in the list the routing stands.
    if (kernel.routing >= 0) {
      const Param &param = kernel.params[kernel.routing];
      const RoutingView &r = std::get<RoutingView>(args[kernel.routing]);
      if (Status ok = checkRouting(r, param.name); !ok) return ok.takeError();
      solver.define("R", r.tokens * r.topK, param.name);
    }
    for (size_t i = 0; i < args.size(); ++i)
      if (Status ok = bindOne(kernel.params[i], args[i]); !ok) return ok.takeError();
    for (const Param &output : kernel.outputs)
      if (Status ok = describeOutput(output); !ok) return ok.takeError();
    if (Status ok = checkBody(); !ok) return ok.takeError();
    for (const auto &[symbol, known] : solver.known()) binding.dims[symbol] = known.value;
    return std::move(binding);
  }
};

// `Arg` and `Param::Kind` list the kinds in the same order.
static_assert(Param::Tensor == 0 && Param::Packed == 1 && Param::Routing == 2 && Param::Scalar == 3);

} // namespace

Expected<Binding> bindArguments(const syntax::Program &program, const syntax::Kernel &kernel,
                                const std::vector<Arg> &args) {
  return Binder(program, kernel).bind(args);
}

} // namespace quern
