// The words of the language: reserved names, builtins with their arity, operators with their precedence.
#pragma once
#include "compiler/syntax/Ast.h"
#include <optional>
#include <string_view>

namespace quern::syntax {

struct BuiltinInfo {
  std::string_view name;
  Builtin id;
  int arity;
};
inline constexpr BuiltinInfo builtins[] = {
    {"min", Builtin::Min, 2}, {"max", Builtin::Max, 2},         {"clamp", Builtin::Clamp, 3},
    {"exp", Builtin::Exp, 1}, {"sigmoid", Builtin::Sigmoid, 1}, {"tanh", Builtin::Tanh, 1},
    {"erf", Builtin::Erf, 1}, {"select", Builtin::Select, 3},
};

inline const BuiltinInfo *findBuiltin(std::string_view name) {
  for (const BuiltinInfo &builtin : builtins)
    if (builtin.name == name) return &builtin;
  return nullptr;
}
inline const BuiltinInfo &builtinInfo(Builtin id) {
  for (const BuiltinInfo &builtin : builtins)
    if (builtin.id == id) return builtin;
  return builtins[0];
}

/// Words that no parameter, variable, fn, codec or kernel may be called.
inline bool isReserved(std::string_view name) {
  for (std::string_view word :
       {"use", "codec", "fn", "kernel", "return", "sum", "act", "float", "f32", "bf16", "f16", "routing"})
    if (word == name) return true;
  return findBuiltin(name) != nullptr;
}

/// "+", "<=", ... for binary kinds, "" for others.
inline std::string_view spelling(ExprKind kind) {
  switch (kind) {
  case ExprKind::Add: return "+";
  case ExprKind::Sub:
  case ExprKind::Neg: return "-";
  case ExprKind::Mul: return "*";
  case ExprKind::Div: return "/";
  case ExprKind::Lt: return "<";
  case ExprKind::Le: return "<=";
  case ExprKind::Gt: return ">";
  case ExprKind::Ge: return ">=";
  case ExprKind::Eq: return "==";
  case ExprKind::Ne: return "!=";
  default: return "";
  }
}

inline bool isComparison(ExprKind kind) { return kind >= ExprKind::Lt && kind <= ExprKind::Ne; }

} // namespace quern::syntax
