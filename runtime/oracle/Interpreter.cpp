// Statement by statement, one range of rows of one expert at a time: sums as matrices, everything else row by
// row.
#include "runtime/oracle/Interpreter.h"
#include "runtime/launch/ParallelFor.h"
#include "runtime/oracle/Contraction.h"
#include "runtime/oracle/Dims.h"
#include <fmt/format.h>
#include <map>

namespace quern::oracle {
namespace {
using namespace syntax;

/// Rows [row0, row1) of one expert; local tensors live no longer than this.
struct Chunk {
  int64_t expert = 0, row0 = 0, row1 = 0;
};
constexpr int64_t maxChunkRows = 1024;

/// The column variable of what is evaluated, and how many columns there are.
struct Columns {
  std::string var;
  int64_t count = 1;
};
using Vector = std::vector<Real>; // one row: `count` elements

bool mentions(const Expr &e, const std::string &var) {
  for (const Index &i : e.indices)
    if (i.kind == Index::Affine && i.var == var) return true;
  for (const ExprPtr &c : e.children)
    if (mentions(*c, var)) return true;
  return false;
}

class Interpreter {
  const Program &program;
  const Kernel &kernel;
  const std::vector<Arg> &args;
  Binding binding;
  const RoutingView *routing = nullptr;
  std::vector<Output> outputs;

  Chunk chunk;
  std::map<std::string, Matrix> locals;               // chunk rows x columns
  std::map<const Expr *, Matrix> sums;                // of the statement at hand
  std::map<const Expr *, std::vector<float>> decoded; // of the expert at hand, by the access that reads it
  int64_t decodedExpert = -1;

  int64_t size(const Dim &d) const { return *extent(d, binding.dims); } // bound by bindArguments: cannot fail
  int paramIndex(const std::string &name) const {
    for (size_t i = 0; i < kernel.params.size(); ++i)
      if (kernel.params[i].name == name) return int(i);
    return -1;
  }

  int64_t place(const Index &i, int64_t row, int64_t column) const {
    switch (i.kind) {
    case Index::Row: return row;
    case Index::Token: return routing->rowToken[row];
    case Index::Expert: return chunk.expert;
    case Index::Affine: return (i.var.empty() ? 0 : i.mul * column) + size(i.offset);
    }
    return 0;
  }

  Vector access(const Expr &e, int64_t row, const Columns &columns) {
    Vector out(size_t(columns.count));
    if (auto local = locals.find(e.name); local != locals.end()) {
      for (int64_t j = 0; j < columns.count; ++j)
        out[j] = local->second.row(row - chunk.row0)[e.indices.size() > 1 ? place(e.indices[1], row, j) : 0];
      return out;
    }
    const TensorView &t = std::get<TensorView>(args[paramIndex(e.name)]);
    // All indices but the column's are fixed in a row: step through the column with one stride.
    int64_t start = 0, step = 0;
    for (size_t d = 0; d < e.indices.size(); ++d) {
      start += place(e.indices[d], row, 0) * t.strides[d];
      if (e.indices[d].kind == Index::Affine && !e.indices[d].var.empty())
        step += e.indices[d].mul * t.strides[d];
    }
    for (int64_t j = 0; j < columns.count; ++j) out[j] = {loadAs(t.dtype, t.data, start + j * step), 0};
    return out;
  }

  static bool compareValues(ExprKind kind, double a, double b) {
    switch (kind) {
    case ExprKind::Lt: return a < b;
    case ExprKind::Le: return a <= b;
    case ExprKind::Gt: return a > b;
    case ExprKind::Ge: return a >= b;
    case ExprKind::Eq: return a == b;
    default: return a != b;
    }
  }

  /// `names`: parameters and locals of the enclosing fn, nullptr in a kernel.
  Vector evaluate(const Expr &e, int64_t row, const Columns &columns,
                  const std::map<std::string, Vector> *names) {
    auto all = [&](Real value) { return Vector(size_t(columns.count), value); };
    auto child = [&](size_t i) { return evaluate(*e.children[i], row, columns, names); };
    auto map1 = [&](auto f) {
      Vector a = child(0);
      for (Real &x : a) x = f(x);
      return a;
    };
    auto map2 = [&](auto f) {
      Vector a = child(0), b = child(1);
      for (size_t j = 0; j < a.size(); ++j) a[j] = f(a[j], b[j]);
      return a;
    };
    switch (e.kind) {
    case ExprKind::Number: return all(constant(e.number));
    case ExprKind::Name: {
      if (names) return names->at(e.name);
      float scalar = float(std::get<double>(args[paramIndex(e.name)])); // scalars travel as fp32
      return all({scalar, 0});
    }
    case ExprKind::RowWeight: return all({routing->rowWeight[row], 0});
    case ExprKind::Access: return access(e, row, columns);
    case ExprKind::Sum: {
      const Real *line = sums.at(&e).row(row - chunk.row0);
      return Vector(line, line + columns.count);
    }
    case ExprKind::Neg: return map1(negate);
    case ExprKind::Add: return map2(add);
    case ExprKind::Sub: return map2(subtract);
    case ExprKind::Mul: return map2(multiply);
    case ExprKind::Div: return map2(divide);
    case ExprKind::Call: break;
    default: return {}; // comparisons are evaluated by select
    }
    switch (e.callee) {
    case Builtin::Min: return map2(minimum);
    case Builtin::Max: return map2(maximum);
    case Builtin::Exp: return map1(exponential);
    case Builtin::Sigmoid: return map1(sigmoid);
    case Builtin::Tanh: return map1(hyperbolicTangent);
    case Builtin::Erf: return map1(errorFunction);
    case Builtin::Clamp: {
      Vector x = child(0), low = child(1), high = child(2);
      for (size_t j = 0; j < x.size(); ++j) x[j] = clamp(x[j], low[j], high[j]);
      return x;
    }
    case Builtin::Select: {
      const Expr &condition = *e.children[0];
      Vector a = evaluate(*condition.children[0], row, columns, names);
      Vector b = evaluate(*condition.children[1], row, columns, names);
      Vector yes = child(1), no = child(2);
      for (size_t j = 0; j < a.size(); ++j)
        yes[j] = select(compareValues(condition.kind, a[j].value, b[j].value), a[j], b[j], yes[j], no[j]);
      return yes;
    }
    case Builtin::UserFn: break;
    }
    const Fn &fn = program.fns[e.fnIndex];
    std::map<std::string, Vector> bound;
    for (size_t i = 0; i < fn.params.size(); ++i) bound[fn.params[i]] = child(i);
    for (const auto &[name, value] : fn.lets) bound[name] = evaluate(*value, row, columns, &bound);
    return evaluate(*fn.result, row, columns, &bound);
  }

  /// The dtype that packed weights are decoded to: that of the activations they meet.
  DType decodeType(const Expr &lhs) const {
    int p = lhs.kind == ExprKind::Access ? paramIndex(lhs.name) : -1;
    const TensorView *t = p < 0 ? nullptr : std::get_if<TensorView>(&args[p]);
    return t ? t->dtype : DType::F32;
  }

  /// sum(k) lhs * rhs for all rows of the chunk; rhs is the factor that has the column variable.
  Matrix evaluateSum(const Expr &sum, const Columns &columns, const Columns &reduced) {
    const Expr *lhs = sum.children[0].get(), *rhs = sum.children[1].get();
    if (mentions(*lhs, columns.var)) std::swap(lhs, rhs);
    Matrix left(chunk.row1 - chunk.row0, reduced.count);
    parallelFor(left.rows, [&](int64_t r, int) {
      Vector line = evaluate(*lhs, chunk.row0 + r, reduced, nullptr);
      std::copy(line.begin(), line.end(), left.row(r));
    });
    // Rule sum.index: both indices are plain variables, so column n and term k lie at [n, k].
    const Arg &arg = args[paramIndex(rhs->name)];
    if (auto *packed = std::get_if<PackedView>(&arg)) {
      std::vector<float> &weights = decoded[rhs];
      if (weights.empty()) weights = decode(*packed, decodeType(*lhs));
      return contract(left, columns.count, [&](int64_t n, double *out, int64_t stride) {
        for (int64_t k = 0; k < reduced.count; ++k) out[k * stride] = weights[n * packed->shape.k + k];
      });
    }
    const TensorView &t = std::get<TensorView>(arg);
    size_t rank = rhs->indices.size();
    int64_t base = rank == 3 ? place(rhs->indices[0], chunk.row0, 0) * t.strides[0] : 0;
    int64_t columnStride = t.strides[rank - 2], reducedStride = t.strides[rank - 1];
    return contract(left, columns.count, [&](int64_t n, double *out, int64_t stride) {
      for (int64_t k = 0; k < reduced.count; ++k)
        out[k * stride] = loadAs(t.dtype, t.data, base + n * columnStride + k * reducedStride);
    });
  }

  std::vector<float> decode(const PackedView &packed, DType type) const {
    int64_t count = packed.shape.n * packed.shape.k;
    std::vector<float> out(static_cast<size_t>(count));
    if (type == DType::F32) {
      decodeExpert(packed, packed.hasExpertDim ? chunk.expert : 0, type, out.data());
      return out;
    }
    std::vector<uint16_t> bits(static_cast<size_t>(count));
    decodeExpert(packed, packed.hasExpertDim ? chunk.expert : 0, type, bits.data());
    for (int64_t i = 0; i < count; ++i) out[i] = loadAs(type, bits.data(), i);
    return out;
  }

  /// Inner sums first; the column variable of an inner sum is the variable that the outer one reduces.
  void evaluateSums(const Expr &e, const Columns &columns, const std::vector<LoopVar> &loops) {
    Columns reduced{e.name, 1};
    if (e.kind == ExprKind::Sum)
      for (const LoopVar &l : loops)
        if (l.name == e.name) reduced.count = size(l.range);
    for (const ExprPtr &c : e.children) evaluateSums(*c, e.kind == ExprKind::Sum ? reduced : columns, loops);
    if (e.kind == ExprKind::Sum) sums[&e] = evaluateSum(e, columns, reduced);
  }

  void run(const Stmt &stmt, const std::vector<LoopVar> &loops) {
    Columns columns;
    const Index *target = stmt.indices.size() > 1 ? &stmt.indices[1] : nullptr;
    if (target) {
      columns.var = target->var;
      for (const LoopVar &l : loops)
        if (l.name == target->var) columns.count = size(l.range);
    }
    sums.clear();
    evaluateSums(*stmt.value, columns, loops);

    Matrix values(chunk.row1 - chunk.row0, columns.count);
    parallelFor(values.rows, [&](int64_t r, int) {
      Vector line = evaluate(*stmt.value, chunk.row0 + r, columns, nullptr);
      std::copy(line.begin(), line.end(), values.row(r));
    });
    Output *output = nullptr;
    for (Output &o : outputs)
      if (o.name == stmt.target) output = &o;
    if (!output) {
      locals[stmt.target] = std::move(values);
      return;
    }
    int64_t width = output->shape.size() > 1 ? output->shape[1] : 1;
    for (int64_t r = 0; r < values.rows; ++r)
      for (int64_t j = 0; j < columns.count; ++j) {
        int64_t at = place(stmt.indices[0], chunk.row0 + r, 0) * width + (target ? place(*target, 0, j) : 0);
        Real now = values.row(r)[j];
        if (stmt.accumulate) now = add({output->values[at], output->magnitude[at]}, now);
        output->values[at] = now.value;
        output->magnitude[at] = now.magnitude;
        if (!output->rowExpert.empty()) output->rowExpert[chunk.row0 + r] = chunk.expert;
      }
  }

  void runRows(int64_t expert, int64_t row0, int64_t row1) {
    if (decodedExpert != expert) decoded.clear();
    decodedExpert = expert;
    for (int64_t r = row0; r < row1; r += maxChunkRows) {
      chunk = {expert, r, std::min(row1, r + maxChunkRows)};
      locals.clear();
      for (size_t s = 0; s < kernel.stmts.size(); ++s) run(kernel.stmts[s], kernel.loops[s]);
    }
  }

public:
  Interpreter(const Program &program, const Kernel &kernel, const std::vector<Arg> &args, Binding bound)
      : program(program), kernel(kernel), args(args), binding(std::move(bound)) {
    if (kernel.routing >= 0) routing = &std::get<RoutingView>(args[kernel.routing]);
    for (size_t i = 0; i < binding.outputs.size(); ++i) {
      const OutputSpec &spec = binding.outputs[i];
      Output &o = outputs.emplace_back(Output{spec.name, spec.dtype, spec.shape, {}, {}, {}});
      int64_t count = 1;
      for (int64_t s : spec.shape) count *= s;
      o.values.resize(size_t(count));
      o.magnitude.resize(size_t(count));
      if (routing && kernel.outputs[i].dims[0] == kernel.rows) o.rowExpert.resize(size_t(spec.shape[0]), -1);
    }
  }

  std::vector<Output> run() {
    if (routing)
      for (int64_t e = 0; e < routing->experts; ++e) runRows(e, routing->offsets[e], routing->offsets[e + 1]);
    else
      runRows(0, 0, size(kernel.rows));
    return std::move(outputs);
  }
};
} // namespace

Expected<std::vector<Output>> interpret(const Program &program, const Kernel &kernel,
                                        const std::vector<Arg> &args) {
  Expected<Binding> binding = bindArguments(program, kernel, args);
  if (!binding) return binding.takeError();
  return Interpreter(program, kernel, args, std::move(*binding)).run();
}

} // namespace quern::oracle
