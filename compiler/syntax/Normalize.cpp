// Kernel to normal form: locals and functions are inlined by evaluating the tree on symbolic values (node
// indices).
#include "compiler/syntax/Normalize.h"
#include "compiler/syntax/Syntax.h"
#include <bit>
#include <fmt/format.h>
#include <map>
#include <tuple>

namespace quern::syntax {
namespace {

/// The column at which an expression is evaluated: mul * j + offset, with j the column of the write.
struct Column {
  int64_t mul = 1;
  Dim offset{"", 0, 1};
  auto key() const { return std::tie(mul, offset.sym, offset.mul, offset.div); }
};

std::string affineText(int64_t mul, const std::string &var, const Dim &offset) {
  std::string text = mul == 1 ? var : fmt::format("{}*{}", mul, var);
  return offset == Dim{"", 0, 1} ? text : fmt::format("{} + {}", text, offset.str());
}

using Scope = std::map<std::string_view, int>; // values of an fn's parameters and lets

class Normalizer {
public:
  Normalizer(const Program &program, const Kernel &kernel, NormalKernel &out)
      : program(program), kernel(kernel), out(out) {}

  std::optional<Failure> run() {
    out.kernel = &kernel;
    for (size_t i = 0; i < kernel.params.size(); ++i) params[kernel.params[i].name] = static_cast<int>(i);
    for (size_t i = 0; i < kernel.outputs.size(); ++i) outputs[kernel.outputs[i].name] = static_cast<int>(i);
    for (size_t i = 0; i < kernel.stmts.size(); ++i) {
      const Stmt &stmt = kernel.stmts[i];
      auto output = outputs.find(stmt.target);
      if (output == outputs.end()) {
        localStmts[stmt.target] = i;
        continue;
      }
      Write write;
      write.output = output->second;
      write.combine = stmt.accumulate;
      write.columns = kernel.outputs[output->second].dims[1];
      write.loc = stmt.loc;
      nodes.clear();
      known.clear();
      localValues.clear();
      int value = eval(*stmt.value, Column{}, kernel.loops[i], nullptr);
      if (failure) return std::move(failure);
      pruneTo(value);
      write.nodes = std::move(nodes);
      out.writes.push_back(std::move(write));
    }
    return std::nullopt;
  }

private:
  int eval(const Expr &expr, const Column &column, const std::vector<LoopVar> &loops, const Scope *scope) {
    if (failure) return -1;
    Node node;
    switch (expr.kind) {
    case ExprKind::Number:
      node.op = Op::Number;
      node.number = expr.number;
      return add(std::move(node));
    case ExprKind::Name:
      if (scope) return scope->at(expr.name);
      node.op = Op::Scalar;
      node.index = params.at(expr.name);
      return add(std::move(node));
    case ExprKind::RowWeight: node.op = Op::RowWeight; return add(std::move(node));
    case ExprKind::Access: return evalAccess(expr, column);
    case ExprKind::Sum:
      node.op = Op::ReadContraction;
      node.index = contraction(expr, loops, loops[0].name);
      node.mul = column.mul;
      node.offset = column.offset;
      return add(std::move(node));
    case ExprKind::Call: return evalCall(expr, column, loops, scope);
    default: break;
    }
    node.op = operation(expr.kind);
    for (const ExprPtr &child : expr.children) node.operands.push_back(eval(*child, column, loops, scope));
    return add(std::move(node));
  }

  int evalCall(const Expr &expr, const Column &column, const std::vector<LoopVar> &loops,
               const Scope *scope) {
    std::vector<int> args;
    for (const ExprPtr &child : expr.children) args.push_back(eval(*child, column, loops, scope));
    if (failure) return -1;
    switch (expr.callee) {
    case Builtin::Min: return apply(Op::Min, args);
    case Builtin::Max: return apply(Op::Max, args);
    case Builtin::Clamp: return apply(Op::Min, {apply(Op::Max, {args[0], args[1]}), args[2]});
    case Builtin::Exp: return apply(Op::Exp, args);
    case Builtin::Sigmoid: return apply(Op::Sigmoid, args);
    case Builtin::Tanh: return apply(Op::Tanh, args);
    case Builtin::Erf: return apply(Op::Erf, args);
    case Builtin::Select: return apply(Op::Select, args);
    case Builtin::UserFn: break;
    }
    const Fn &fn = program.fns[expr.fnIndex];
    Scope values;
    for (size_t i = 0; i < args.size(); ++i) values[fn.params[i]] = args[i];
    for (const auto &[name, value] : fn.lets) values[name] = eval(*value, column, loops, &values);
    return eval(*fn.result, column, loops, &values);
  }

  int evalAccess(const Expr &expr, const Column &column) {
    const Index &last = expr.indices.back();
    Column read;
    if (last.kind == Index::Affine) {
      std::optional<Dim> scaled = scaleDim(last.mul, column.offset);
      std::optional<Dim> offset = scaled ? addDims(*scaled, last.offset) : std::nullopt;
      if (!offset || last.mul > maxFactor / column.mul) {
        failure =
            Failure{last.loc,
                    fmt::format("the local is read at {}, and {} of that is no index of the form 2*j + N/2",
                                affineText(column.mul, "j", column.offset),
                                affineText(last.mul, last.var, last.offset)),
                    "index.compose"};
        return -1;
      }
      read = {column.mul * last.mul, *offset};
    }
    auto local = localStmts.find(expr.name);
    if (local != localStmts.end()) {
      auto key = std::make_tuple(local->second, read.mul, read.offset.sym, read.offset.mul, read.offset.div);
      auto known = localValues.find(key);
      if (known != localValues.end()) return known->second;
      int value = eval(*kernel.stmts[local->second].value, read, kernel.loops[local->second], nullptr);
      localValues[key] = value;
      return value;
    }
    Node node;
    node.op = Op::ReadTensor;
    node.index = params.at(expr.name);
    node.row = rowAccess(expr.indices[0]);
    node.hasColumn = last.kind == Index::Affine;
    if (node.hasColumn) {
      node.mul = read.mul;
      node.offset = read.offset;
    }
    return add(std::move(node));
  }

  static RowAccess rowAccess(const Index &index) {
    switch (index.kind) {
    case Index::Row: return RowAccess::Row;
    case Index::Token: return RowAccess::Token;
    case Index::Expert: return RowAccess::Expert;
    case Index::Affine: break;
    }
    return RowAccess::None;
  }

  /// Index of the contraction that `sum` computes; equal ones are shared.
  int contraction(const Expr &sum, const std::vector<LoopVar> &loops, const std::string &columnVar) {
    Contraction result;
    result.loc = sum.loc;
    for (const LoopVar &loop : loops) {
      if (loop.name == columnVar) result.columns = loop.range;
      if (loop.name == sum.name) result.reduced = loop.range;
    }
    const Expr &lhs = *sum.children[0], &rhs = *sum.children[1];
    if (lhs.kind == ExprKind::Sum) {
      result.lhsContraction = contraction(lhs, loops, sum.name);
    } else if (auto local = localStmts.find(lhs.name); local != localStmts.end()) {
      const std::vector<LoopVar> &localLoops = kernel.loops[local->second];
      result.lhsContraction = contraction(*kernel.stmts[local->second].value, localLoops, localLoops[0].name);
    } else {
      result.lhsParam = params.at(lhs.name);
      result.lhsRow = rowAccess(lhs.indices[0]);
    }
    result.rhsParam = params.at(rhs.name);
    result.rhsByExpert = rhs.indices[0].kind == Index::Expert;
    auto key = std::make_tuple(result.lhsParam, result.lhsContraction, result.lhsRow, result.rhsParam);
    auto [place, isNew] = contractions.try_emplace(key, static_cast<int>(out.contractions.size()));
    if (isNew) out.contractions.push_back(std::move(result));
    return place->second;
  }

  static Op operation(ExprKind kind) {
    switch (kind) {
    case ExprKind::Neg: return Op::Neg;
    case ExprKind::Add: return Op::Add;
    case ExprKind::Sub: return Op::Sub;
    case ExprKind::Mul: return Op::Mul;
    case ExprKind::Div: return Op::Div;
    case ExprKind::Lt: return Op::Lt;
    case ExprKind::Le: return Op::Le;
    case ExprKind::Gt: return Op::Gt;
    case ExprKind::Ge: return Op::Ge;
    case ExprKind::Eq: return Op::Eq;
    default: return Op::Ne;
    }
  }

  int apply(Op op, std::vector<int> operands) {
    Node node;
    node.op = op;
    node.operands = std::move(operands);
    return add(std::move(node));
  }

  int add(Node node) {
    if (failure) return -1;
    Key key{node.op,         std::bit_cast<uint64_t>(node.number),
            node.index,      node.row,
            node.hasColumn,  node.mul,
            node.offset.sym, node.offset.mul,
            node.offset.div, node.operands};
    auto [place, isNew] = known.try_emplace(std::move(key), static_cast<int>(nodes.size()));
    if (isNew) nodes.push_back(std::move(node));
    return place->second;
  }

  /// Keeps only what `value` needs (unused arguments and lets go), so that the value is the last node.
  void pruneTo(int value) {
    std::vector<int> place(nodes.size(), -1);
    place[value] = 0;
    for (int i = value; i >= 0; --i)
      if (place[i] >= 0)
        for (int operand : nodes[i].operands) place[operand] = 0;
    std::vector<Node> kept;
    for (int i = 0; i <= value; ++i) {
      if (place[i] < 0) continue;
      place[i] = static_cast<int>(kept.size());
      for (int &operand : nodes[i].operands) operand = place[operand];
      kept.push_back(std::move(nodes[i]));
    }
    nodes = std::move(kept);
  }

  using Key = std::tuple<Op, uint64_t, int, RowAccess, bool, int64_t, std::string, int64_t, int64_t,
                         std::vector<int>>;

  const Program &program;
  const Kernel &kernel;
  NormalKernel &out;
  std::map<std::string, int> params, outputs;
  std::map<std::string, size_t> localStmts;
  std::vector<Node> nodes;
  std::map<Key, int> known;
  std::map<std::tuple<int, int, RowAccess, int>, int> contractions;
  std::map<std::tuple<size_t, int64_t, std::string, int64_t, int64_t>, int> localValues;
  std::optional<Failure> failure;
};

} // namespace

std::optional<Failure> normalizeKernel(const Program &program, const Kernel &kernel, NormalKernel &result) {
  return Normalizer(program, kernel, result).run();
}

Expected<NormalKernel> normalize(const Program &program, const Kernel &kernel) {
  NormalKernel result;
  if (auto failure = normalizeKernel(program, kernel, result))
    return Error::user(failure->message,
                       fmt::format("{}:{}:{}", program.fileName, failure->loc.line, failure->loc.column),
                       failure->rule);
  return result;
}

} // namespace quern::syntax
