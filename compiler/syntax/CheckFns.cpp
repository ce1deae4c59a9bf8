// Checks of scalar functions, and the costs that bound inlining.
#include "compiler/syntax/Check.h"
#include "compiler/syntax/Words.h"
#include <fmt/format.h>

namespace quern::syntax {

std::optional<Failure> FnChecker::run() {
  for (size_t i = 0; i < program.fns.size(); ++i) indexOf.emplace(program.fns[i].name, static_cast<int>(i));
  for (const Fn &fn : program.fns) {
    current = static_cast<int>(costs.size());
    std::unordered_set<std::string> names(fn.params.begin(), fn.params.end());
    Cost total;
    auto add = [&](const Expr &expr) -> std::optional<Failure> {
      Cost cost;
      if (auto error = checkExpr(expr, names, cost)) return error;
      total.size += cost.size;
      total.depth = std::max(total.depth, cost.depth);
      return checkCost(total, expr.loc);
    };
    for (const auto &[name, value] : fn.lets) {
      if (auto error = add(*value)) return error;
      names.insert(name);
    }
    if (auto error = add(*fn.result)) return error;
    costs.push_back(total);
  }
  current = -1;
  return std::nullopt;
}

std::optional<Failure> FnChecker::checkExpr(const Expr &expr, const std::unordered_set<std::string> &names,
                                            Cost &cost) const {
  if (expr.kind == ExprKind::Name && !names.contains(expr.name))
    return Failure{expr.loc,
                   fmt::format("{} is no parameter or earlier local of this fn{}", quoted(expr.name),
                               didYouMean(expr.name, {names.begin(), names.end()})),
                   "name.unknown"};
  if (expr.kind == ExprKind::Call)
    if (auto error = checkCall(expr)) return error;
  std::vector<Cost> children(expr.children.size());
  for (size_t i = 0; i < children.size(); ++i)
    if (auto error = checkExpr(*expr.children[i], names, children[i])) return error;
  cost = costOf(expr, children);
  return std::nullopt;
}

std::optional<Failure> FnChecker::checkCall(const Expr &call) const {
  size_t expected = 0;
  if (call.callee != Builtin::UserFn) {
    expected = builtinInfo(call.callee).arity;
  } else if (call.fnIndex >= 0) {
    expected = program.fns[call.fnIndex].params.size();
  } else {
    auto found = indexOf.find(call.name);
    if (found != indexOf.end() && found->second == current)
      return Failure{call.loc,
                     fmt::format("fn {} calls itself, and there is no recursion", quoted(call.name)),
                     "fn.recursion"};
    if (found != indexOf.end())
      return Failure{call.loc,
                     fmt::format("fn {} is declared later, in line {}; a fn must stand before its callers",
                                 quoted(call.name), program.fns[found->second].loc.line),
                     "fn.order"};
    std::vector<std::string> names;
    for (const BuiltinInfo &builtin : builtins) names.emplace_back(builtin.name);
    for (const Fn &fn : program.fns) names.push_back(fn.name);
    return Failure{call.loc,
                   fmt::format("there is no fn {}{}", quoted(call.name), didYouMean(call.name, names)),
                   "fn.unknown"};
  }
  if (call.children.size() != expected)
    return Failure{call.loc,
                   fmt::format("found {} argument{} of {}, expected {}", call.children.size(),
                               call.children.size() == 1 ? "" : "s", quoted(call.name), expected),
                   "fn.arity"};
  return std::nullopt;
}

Cost FnChecker::costOf(const Expr &expr, const std::vector<Cost> &children) const {
  Cost cost{1, 0};
  for (const Cost &child : children) {
    cost.size += child.size;
    cost.depth = std::max(cost.depth, child.depth);
  }
  if (expr.kind == ExprKind::Call && expr.fnIndex >= 0) {
    cost.size += costs[expr.fnIndex].size;
    cost.depth = std::max(cost.depth, costs[expr.fnIndex].depth);
  }
  ++cost.depth;
  return cost;
}

std::optional<Failure> FnChecker::checkCost(const Cost &cost, Loc loc) {
  if (cost.depth > maxDepth)
    return Failure{loc, fmt::format("found an expression more than {} levels deep after inlining", maxDepth),
                   "limit.depth"};
  if (cost.size > maxInlinedSize)
    return Failure{loc,
                   fmt::format("found an expression of more than {} nodes after inlining", maxInlinedSize),
                   "limit.inline"};
  return std::nullopt;
}

} // namespace quern::syntax
