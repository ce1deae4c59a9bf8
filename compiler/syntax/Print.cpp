// Program to .qn text that parses back to the same tree.
#include "compiler/syntax/Syntax.h"
#include "compiler/syntax/Words.h"
#include <cmath>
#include <fmt/format.h>

namespace quern::syntax {
namespace {

/// Shortest decimal that reads back as the same value.
template <class Number> std::string numberText(Number value) {
  std::string text = fmt::format("{}", value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string indexText(const Index &index) {
  switch (index.kind) {
  case Index::Row: return index.var;
  case Index::Token: return index.var + ".token";
  case Index::Expert: return index.var + ".expert";
  case Index::Affine: break;
  }
  std::string text = index.mul == 1 ? index.var : fmt::format("{}*{}", index.mul, index.var);
  return index.offset == Dim{"", 0, 1} ? text : fmt::format("{} + {}", text, index.offset.str());
}

template <class List, class Text> std::string join(const List &list, Text text) {
  std::string out;
  for (const auto &item : list) out += (out.empty() ? "" : ", ") + text(item);
  return out;
}

std::string accessText(const std::string &name, const std::vector<Index> &indices) {
  return fmt::format("{}[{}]", name, join(indices, indexText));
}

int precedence(ExprKind kind) {
  switch (kind) {
  case ExprKind::Add:
  case ExprKind::Sub: return 1;
  case ExprKind::Mul:
  case ExprKind::Div: return 2;
  case ExprKind::Neg: return 3;
  default: return 4;
  }
}

/// Text of `expr` where operators below `level` need parentheses; inside a product a sum needs them too.
void print(std::string &out, const Expr &expr, int level) {
  auto parenthesized = [&](bool needed, auto body) {
    if (needed) out += '(';
    body();
    if (needed) out += ')';
  };
  switch (expr.kind) {
  case ExprKind::Number: out += numberText(expr.number); return;
  case ExprKind::Name: out += expr.name; return;
  case ExprKind::Access: out += accessText(expr.name, expr.indices); return;
  case ExprKind::RowWeight: out += expr.name + ".weight"; return;
  case ExprKind::Call:
    out += expr.name + "(";
    for (size_t i = 0; i < expr.children.size(); ++i) {
      if (i > 0) out += ", ";
      print(out, *expr.children[i], 0);
    }
    out += ')';
    return;
  case ExprKind::Sum:
    parenthesized(level > 1, [&] {
      out += fmt::format("sum({}) ", expr.name);
      print(out, *expr.children[0], 4);
      out += " * ";
      print(out, *expr.children[1], 4);
    });
    return;
  case ExprKind::Neg:
    parenthesized(level > 3, [&] {
      out += '-';
      print(out, *expr.children[0], 3);
    });
    return;
  default: break;
  }
  int own = isComparison(expr.kind)
                ? 0
                : precedence(expr.kind); // comparisons stand only where nothing binds tighter
  parenthesized(level > own, [&] {
    print(out, *expr.children[0], own);
    out += fmt::format(" {} ", spelling(expr.kind));
    print(out, *expr.children[1], own + 1);
  });
}

std::string exprText(const Expr &expr) {
  std::string out;
  print(out, expr, 0);
  return out;
}

std::string codecText(const Codec &codec) {
  static constexpr std::string_view scales[] = {"f32", "bf16", "e8m0"};
  std::string zero = codec.hasZero ? fmt::format("  zero u4 per {}\n", codec.block) : "";
  return fmt::format("codec {} {{\n  table = [{}]\n  first = {}\n  scale {} per {}\n{}}}\n", codec.name,
                     join(codec.table, numberText<float>), codec.highFirst ? "high" : "low",
                     scales[static_cast<int>(codec.scale)], codec.block, zero);
}

std::string fnText(const Fn &fn) {
  std::string out =
      fmt::format("fn {}({}) {{\n", fn.name, join(fn.params, [](const std::string &name) { return name; }));
  for (const auto &[name, value] : fn.lets) out += fmt::format("  {} = {}\n", name, exprText(*value));
  return out + fmt::format("  return {}\n}}\n", exprText(*fn.result));
}

std::string paramText(const Param &param) {
  std::string type = param.kind == Param::Routing         ? "routing"
                     : param.kind == Param::Packed        ? param.codec
                     : param.elem.kind == ElemType::Act   ? "act"
                     : param.elem.kind == ElemType::Float ? "float"
                                                          : std::string(name(param.elem.literal));
  if (param.dims.empty()) return fmt::format("{}: {}", param.name, type);
  return fmt::format("{}: {}[{}]", param.name, type,
                     join(param.dims, [](const Dim &dim) { return dim.str(); }));
}

std::string kernelText(const Kernel &kernel) {
  std::string out = fmt::format("kernel {}({}) -> {} {{\n", kernel.name, join(kernel.params, paramText),
                                join(kernel.outputs, paramText));
  for (const Stmt &stmt : kernel.stmts)
    out += fmt::format("  {} {} {}\n", accessText(stmt.target, stmt.indices), stmt.accumulate ? "+=" : "=",
                       exprText(*stmt.value));
  return out + "}\n";
}

} // namespace

std::string print(const Program &program) {
  std::string out;
  auto append = [&](const std::string &text) { out += (out.empty() ? "" : "\n") + text; };
  for (const Codec &codec : program.codecs) append(codecText(codec));
  for (const Fn &fn : program.fns) append(fnText(fn));
  for (const Kernel &kernel : program.kernels) append(kernelText(kernel));
  return out;
}

} // namespace quern::syntax
