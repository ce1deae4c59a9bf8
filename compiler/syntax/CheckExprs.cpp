// Checks of expressions: names, ranks, rows, and the two factors of each sum.
#include "compiler/syntax/Check.h"
#include "compiler/syntax/Words.h"
#include <algorithm>
#include <fmt/format.h>

namespace quern::syntax {

std::vector<std::string> KernelChecker::visibleNames() const {
  std::vector<std::string> names;
  for (const auto &[name, symbol] : symbols) names.push_back(name);
  std::sort(names.begin(), names.end()); // the same suggestion on every run
  return names;
}

bool KernelChecker::checkExpr(const Expr &expr, Cost &cost) {
  if (expr.kind == ExprKind::Sum) return checkSum(expr, columnVar, cost);
  if (expr.kind == ExprKind::Access) return checkAccess(expr, cost);
  if (expr.kind == ExprKind::Name && !checkName(expr)) return false;
  if (expr.kind == ExprKind::RowWeight && !hasRouting())
    return fail(expr.loc, fmt::format("{}.weight needs a routing parameter", kernel.rowVar), "row.routing");
  if (expr.kind == ExprKind::Call)
    if (auto error = fns.checkCall(expr)) return fail(std::move(error));
  std::vector<Cost> children(expr.children.size());
  for (size_t i = 0; i < children.size(); ++i)
    if (!checkExpr(*expr.children[i], children[i])) return false;
  cost = fns.costOf(expr, children);
  return true;
}

const KernelChecker::Symbol *KernelChecker::find(const Expr &expr, std::string_view what) {
  auto found = symbols.find(expr.name);
  if (found != symbols.end()) return &found->second;
  if (expr.name == kernel.rowVar || expr.name == columnVar || dimNames.contains(expr.name))
    fail(expr.loc,
         fmt::format("{} is an index variable or dimension, and those are no values", quoted(expr.name)),
         "name.value");
  else
    fail(expr.loc,
         fmt::format("there is no {} {}{}", what, quoted(expr.name), didYouMean(expr.name, visibleNames())),
         "name.unknown");
  return nullptr;
}

bool KernelChecker::checkName(const Expr &expr) {
  const Symbol *symbol = find(expr, "scalar parameter");
  if (!symbol) return false;
  if (symbol->kind != Symbol::Param || kernel.params[symbol->index].kind != Param::Scalar)
    return fail(expr.loc,
                fmt::format("{} is not a scalar; read one of its elements, as in {}[...]", quoted(expr.name),
                            expr.name),
                "name.value");
  paramUsed[symbol->index] = true;
  return true;
}

/// The tensor or packed parameter that `access` reads; null after an error. Locals are handled by the
/// callers.
const Param *KernelChecker::paramFor(const Expr &access) {
  const Symbol *symbol = find(access, "tensor");
  if (!symbol) return nullptr;
  if (symbol->kind == Symbol::Output) {
    fail(access.loc,
         fmt::format("output {} cannot be read; put the value in a local first", quoted(access.name)),
         "access.output");
    return nullptr;
  }
  const Param &param = kernel.params[symbol->index];
  if (param.kind == Param::Routing || param.kind == Param::Scalar) {
    fail(access.loc,
         fmt::format("{} is a {} and has no elements", quoted(access.name),
                     param.kind == Param::Routing ? "routing" : "scalar"),
         "access.rank");
    return nullptr;
  }
  if (access.indices.size() != param.dims.size()) {
    fail(access.loc,
         fmt::format("found {} ind{} on {}, which has {} dimension{}", access.indices.size(),
                     access.indices.size() == 1 ? "ex" : "ices", quoted(access.name), param.dims.size(),
                     param.dims.size() == 1 ? "" : "s"),
         "access.rank");
    return nullptr;
  }
  paramUsed[symbol->index] = true;
  return &param;
}

bool KernelChecker::checkRowIndex(const Index &index, const Dim &size, const std::string &tensor,
                                  bool expertAllowed) {
  const std::string &r = kernel.rowVar;
  if (index.kind == Index::Affine || (index.kind == Index::Expert && !expertAllowed))
    return fail(index.loc,
                fmt::format("expected {} as the first index of {}",
                            !hasRouting()   ? fmt::format("the row variable {}", r)
                            : expertAllowed ? fmt::format("{}, {}.token or {}.expert", r, r, r)
                                            : fmt::format("{} or {}.token", r, r),
                            quoted(tensor)),
                "access.row");
  if (index.kind != Index::Row && !hasRouting())
    return fail(
        index.loc,
        fmt::format("{}.{} needs a routing parameter", r, index.kind == Index::Token ? "token" : "expert"),
        "row.routing");
  const Dim &expected = index.kind == Index::Row     ? kernel.rows
                        : index.kind == Index::Token ? routing().dims[0]
                                                     : routing().dims[1];
  if (size == expected) return true;
  std::string_view suffix = index.kind == Index::Row ? "" : index.kind == Index::Token ? ".token" : ".expert";
  return fail(index.loc,
              fmt::format("{}{} counts {}, but this dimension of {} is {}", r, suffix, expected.str(),
                          quoted(tensor), size.str()),
              "access.shape");
}

/// Notes that `index` must be `variable`, up to multiples and offsets unless `exact`, and lie below `size`.
bool KernelChecker::addUse(const Index &index, const Dim &size, const std::string &tensor,
                           const std::string &variable, bool exact) {
  if (index.kind != Index::Affine)
    return fail(index.loc, fmt::format("expected {} as this index of {}", quoted(variable), quoted(tensor)),
                "access.column");
  if (index.var != variable)
    return fail(index.loc,
                fmt::format("found {} as an index of {}, expected {}", quoted(index.var), quoted(tensor),
                            quoted(variable)),
                "access.column");
  if (exact && (index.mul != 1 || index.offset != Dim{"", 0, 1}))
    return fail(index.loc,
                fmt::format("expected plain {} as this index of {}; a sum runs over whole dimensions",
                            quoted(variable), quoted(tensor)),
                "sum.index");
  const Dim &offset = index.offset;
  if (!offset.isConstant() && !dimNames.contains(offset.sym))
    return fail(index.loc,
                fmt::format("{} is no dimension of this kernel's parameters{}", quoted(offset.sym),
                            didYouMean(offset.sym, kernel.dimSymbols)),
                "dim.unknown");
  if (!facts.isWhole(offset))
    return fail(index.loc,
                fmt::format("{} is not known to be whole; give a parameter or output a dimension of it",
                            offset.str()),
                "dim.whole");
  uses.push_back({&index, size, &tensor, exact});
  return true;
}

bool KernelChecker::checkAccess(const Expr &expr, Cost &cost) {
  cost = {1, 1};
  auto found = symbols.find(expr.name);
  if (found != symbols.end() && found->second.kind == Symbol::Local)
    return checkLocalAccess(expr, found->second.index, cost);
  const Param *param = paramFor(expr);
  if (!param) return false;
  if (param->kind == Param::Packed)
    return fail(
        expr.loc,
        fmt::format("{} is packed, and packed operands stand only as a factor of a sum", quoted(expr.name)),
        "sum.packed");
  if (param->dims.size() == 3)
    return fail(expr.loc,
                fmt::format("{} has 3 dimensions, and such tensors stand only as a factor of a sum",
                            quoted(expr.name)),
                "access.rank");
  const Index &first = expr.indices[0];
  if (param->dims.size() == 1 && first.kind == Index::Affine)
    return addUse(first, param->dims[0], expr.name, columnVar, false);
  if (!checkRowIndex(first, param->dims[0], expr.name, true)) return false;
  return param->dims.size() == 1 || addUse(expr.indices[1], param->dims[1], expr.name, columnVar, false);
}

bool KernelChecker::checkLocalAccess(const Expr &expr, int local, Cost &cost) {
  if (expr.indices.size() != 2)
    return fail(expr.loc,
                fmt::format("expected two indices on local {}, a row and a column", quoted(expr.name)),
                "access.rank");
  if (expr.indices[0].kind != Index::Row)
    return fail(expr.indices[0].loc,
                fmt::format("expected {} as the row of local {}", quoted(kernel.rowVar), quoted(expr.name)),
                "access.row");
  locals[local].read = true;
  cost = {1 + locals[local].cost.size, 1 + locals[local].cost.depth};
  return addUse(expr.indices[1], kernel.locals[local].columns, expr.name, columnVar, false);
}

bool KernelChecker::checkSum(const Expr &sum, const std::string &column, Cost &cost) {
  const std::string &variable = sum.name;
  if (variable == kernel.rowVar || variable == column || variable == columnVar ||
      std::find(activeSums.begin(), activeSums.end(), variable) != activeSums.end())
    return fail(sum.loc,
                fmt::format("{} already runs outside this sum, expected a new variable", quoted(variable)),
                "sum.variable");
  if (!checkVariable(variable, sum.loc)) return false;
  sumVars.push_back(variable);
  activeSums.push_back(variable);
  Cost lhs;
  bool good = checkLhs(*sum.children[0], variable, lhs) && checkRhs(*sum.children[1], column, variable);
  activeSums.pop_back();
  cost = {lhs.size + 2, lhs.depth + 1};
  return good;
}

bool KernelChecker::checkLhs(const Expr &lhs, const std::string &variable, Cost &cost) {
  cost = {1, 1};
  if (lhs.kind == ExprKind::Sum) return checkSum(lhs, variable, cost);
  auto found = symbols.find(lhs.name);
  if (found != symbols.end() && found->second.kind == Symbol::Local) {
    int local = found->second.index;
    if (!locals[local].pure)
      return fail(lhs.loc,
                  fmt::format("{} is more than one sum, and only a tensor, a sum or a local that is one sum "
                              "can be summed over",
                              quoted(lhs.name)),
                  "sum.local");
    if (lhs.indices.size() != 2 || lhs.indices[0].kind != Index::Row)
      return fail(lhs.loc, fmt::format("expected {}[{}, {}]", lhs.name, kernel.rowVar, variable),
                  "access.row");
    locals[local].read = true;
    cost = {1 + locals[local].cost.size, 1 + locals[local].cost.depth};
    return addUse(lhs.indices[1], kernel.locals[local].columns, lhs.name, variable, true);
  }
  const Param *param = paramFor(lhs);
  if (!param) return false;
  if (lhs.indices[0].kind != Index::Row && lhs.indices[0].kind != Index::Token)
    return fail(lhs.loc,
                fmt::format("expected one factor of the sum to be indexed by row, as in x[{}, {}]{}",
                            kernel.rowVar, variable,
                            hasRouting() ? fmt::format(" or x[{}.token, {}]", kernel.rowVar, variable) : ""),
                "sum.rows");
  if (param->kind == Param::Packed)
    return fail(lhs.loc,
                fmt::format("{} is packed, and packed operands are indexed by column, as in w[n, k]",
                            quoted(lhs.name)),
                "sum.packed");
  if (param->dims.size() != 2)
    return fail(lhs.loc,
                fmt::format("expected two indices on {}, a row and {}", quoted(lhs.name), quoted(variable)),
                "access.rank");
  return checkRowIndex(lhs.indices[0], param->dims[0], lhs.name, false) &&
         addUse(lhs.indices[1], param->dims[1], lhs.name, variable, true);
}

bool KernelChecker::checkRhs(const Expr &rhs, const std::string &column, const std::string &variable) {
  auto found = symbols.find(rhs.name);
  bool isLocal = found != symbols.end() && found->second.kind == Symbol::Local;
  bool byRow =
      rhs.kind == ExprKind::Sum || rhs.indices[0].kind == Index::Row || rhs.indices[0].kind == Index::Token;
  if (byRow || isLocal)
    return fail(
        rhs.loc,
        fmt::format(
            "expected the other factor of the sum to be a parameter indexed by column, as in w[{}{}, {}]",
            hasRouting() ? kernel.rowVar + ".expert, " : "", column, variable),
        "sum.columns");
  const Param *param = paramFor(rhs);
  if (!param) return false;
  size_t rank = param->dims.size();
  if (rank < 2)
    return fail(rhs.loc, fmt::format("expected two or three indices on {}", quoted(rhs.name)), "access.rank");
  if (rank == 3) {
    if (rhs.indices[0].kind != Index::Expert)
      return fail(rhs.indices[0].loc,
                  fmt::format("expected {}.expert as the first index of {}", kernel.rowVar, quoted(rhs.name)),
                  "access.row");
    if (!checkRowIndex(rhs.indices[0], param->dims[0], rhs.name, true)) return false;
  }
  const Index &columnIndex = rhs.indices[rank - 2], &reduced = rhs.indices[rank - 1];
  if (columnIndex.kind == Index::Affine && columnIndex.var == variable && reduced.kind == Index::Affine &&
      reduced.var == column)
    return fail(columnIndex.loc,
                fmt::format("found [{}, {}], expected [{}, {}]: the summed dimension stands last", variable,
                            column, column, variable),
                "sum.last");
  return addUse(columnIndex, param->dims[rank - 2], rhs.name, column, true) &&
         addUse(reduced, param->dims[rank - 1], rhs.name, variable, true);
}

} // namespace quern::syntax
