// Checks of a kernel's signature, of the targets of its statements, and that every output is written once and
// wholly.
#include "compiler/syntax/Check.h"
#include "compiler/syntax/Syntax.h"
#include "compiler/syntax/Words.h"
#include <algorithm>
#include <fmt/format.h>

namespace quern::syntax {

bool KernelChecker::fail(Loc loc, std::string message, std::string_view rule) {
  if (!failure) failure = Failure{loc, std::move(message), std::string(rule)};
  return false;
}

bool KernelChecker::fail(std::optional<Failure> error) {
  if (!failure) failure = std::move(error);
  return false;
}

std::optional<Failure> KernelChecker::run() {
  bool good = declare() && checkRows();
  for (size_t i = 0; good && i < kernel.stmts.size(); ++i) good = checkStmt(kernel.stmts[i]);
  if (good) finish();
  return std::move(failure);
}

bool KernelChecker::declare() {
  for (const Codec &codec : program.codecs) codecNames.insert(codec.name);
  for (size_t i = 0; i < kernel.params.size(); ++i) {
    const Param &param = kernel.params[i];
    if (param.kind != Param::Routing) continue;
    if (hasRouting()) return fail(param.loc, "found a second routing, expected at most one", "routing.one");
    kernel.routing = static_cast<int>(i);
    if (param.dims.size() != 2 || param.dims[0].isConstant() || param.dims[1].isConstant() ||
        param.dims[0].sym == param.dims[1].sym || param.dims[0] != Dim{param.dims[0].sym, 1, 1} ||
        param.dims[1] != Dim{param.dims[1].sym, 1, 1} || param.dims[0].sym == "R" || param.dims[1].sym == "R")
      return fail(param.loc, "expected routing[T, E] with two different plain symbols, neither of them R",
                  "routing.dims");
  }
  for (size_t i = 0; i < kernel.params.size(); ++i)
    if (!declareParam(kernel.params[i], false, static_cast<int>(i))) return false;
  for (size_t i = 0; i < kernel.outputs.size(); ++i)
    if (!declareParam(kernel.outputs[i], true, static_cast<int>(i))) return false;
  paramUsed.assign(kernel.params.size(), false);
  outputWritten.assign(kernel.outputs.size(), false);
  return true;
}

bool KernelChecker::declareParam(const Param &param, bool isOutput, int index) {
  std::string shown = quoted(param.name);
  if (!symbols.emplace(param.name, Symbol{isOutput ? Symbol::Output : Symbol::Param, index}).second)
    return fail(param.loc, fmt::format("{} is already a parameter or output of this kernel", shown),
                "name.duplicate");
  if (param.kind == Param::Packed && !codecNames.contains(param.codec)) {
    std::vector<std::string> types = {"act", "float", "f32", "bf16", "f16", "routing"};
    types.insert(types.end(), codecNames.begin(), codecNames.end());
    bool shipped = false;
    for (const std::string &file : shippedFiles()) {
      std::string codec = file.substr(0, file.rfind('.'));
      if (shippedFile(codec)->find("\ncodec " + codec + " {") == std::string::npos) continue;
      shipped |= codec == param.codec;
      types.push_back(std::move(codec));
    }
    std::sort(types.begin(), types.end()); // the same suggestion on every run
    return fail(param.loc,
                shipped ? fmt::format("codec {} is not declared; write 'use {}' above the kernel",
                                      quoted(param.codec), param.codec)
                        : fmt::format("there is no type or codec {}{}", quoted(param.codec),
                                      didYouMean(param.codec, types)),
                "type.unknown");
  }
  if (isOutput) {
    if (param.kind != Param::Tensor || param.dims.size() != 2 || param.elem.kind == ElemType::Float)
      return fail(
          param.loc,
          fmt::format("output {} must be a tensor of two dimensions of type act, f32, bf16 or f16", shown),
          "type.output");
    if (param.elem.kind == ElemType::Act) {
      bool solved = false;
      for (const Param &other : kernel.params)
        solved |= other.kind == Param::Tensor && other.elem.kind == ElemType::Act;
      if (!solved)
        return fail(param.loc,
                    fmt::format("output {} is of type act, but no parameter is, so act has no value", shown),
                    "type.act");
    }
  } else if (param.kind == Param::Scalar) {
    if (param.elem.kind != ElemType::Literal || param.elem.literal != DType::F32)
      return fail(
          param.loc,
          fmt::format("parameter {} has no dimensions, so it is a scalar, and scalars are f32", shown),
          "type.scalar");
  } else if (param.kind == Param::Packed) {
    if (param.dims.size() != 2 && param.dims.size() != 3)
      return fail(param.loc,
                  fmt::format("found {} dimension{}, expected [N, K] or [E, N, K]", param.dims.size(),
                              param.dims.size() == 1 ? "" : "s"),
                  "type.packed");
    if (param.dims.size() == 3 && !hasRouting())
      return fail(param.loc,
                  fmt::format("{} has an expert dimension, but the kernel has no routing parameter", shown),
                  "type.packed");
  }
  return checkDims(param, isOutput);
}

bool KernelChecker::checkDims(const Param &param, bool isOutput) {
  for (size_t i = 0; i < param.dims.size(); ++i) {
    const Dim &dim = param.dims[i];
    if (dim.isConstant()) continue;
    if (dim.sym == "R") {
      if (!hasRouting())
        return fail(param.loc, "R is the number of routed rows, and this kernel has no routing parameter",
                    "dim.rows");
      if (i != 0 || dim != Dim{"R", 1, 1} || param.kind != Param::Tensor || param.dims.size() > 2)
        return fail(param.loc,
                    "R is the number of routed rows and stands only as the first dimension of [R] or [R, N]",
                    "dim.rows");
      continue;
    }
    if (isOutput && !dimNames.contains(dim.sym))
      return fail(param.loc,
                  fmt::format("dimension {} of output {} appears in no parameter{}", quoted(dim.sym),
                              quoted(param.name), didYouMean(dim.sym, kernel.dimSymbols)),
                  "dim.unknown");
    if (dimNames.insert(dim.sym).second) kernel.dimSymbols.push_back(dim.sym);
    if (!facts.learn(dim))
      return fail(
          param.loc,
          fmt::format("the divisions of {} together ask for a factor above {}", quoted(dim.sym), maxFactor),
          "dim.form");
  }
  return true;
}

/// Rows of the loop: R with routing, else the outputs' first dimension.
bool KernelChecker::checkRows() {
  if (hasRouting()) {
    kernel.rows = Dim{"R", 1, 1};
    for (const Param &output : kernel.outputs)
      if (output.dims[0] != kernel.rows && output.dims[0] != routing().dims[0])
        return fail(
            output.loc,
            fmt::format("found {} rows in output {}, expected R (one per routed row) or {} (one per token)",
                        output.dims[0].str(), quoted(output.name), routing().dims[0].str()),
            "output.rows");
    return true;
  }
  kernel.rows = kernel.outputs[0].dims[0];
  for (const Param &output : kernel.outputs)
    if (output.dims[0] != kernel.rows)
      return fail(output.loc,
                  fmt::format("found {} rows in output {}, expected {} as in {}", output.dims[0].str(),
                              quoted(output.name), kernel.rows.str(), quoted(kernel.outputs[0].name)),
                  "output.rows");
  return true;
}

bool KernelChecker::checkVariable(const std::string &name, Loc loc) {
  std::string_view what = symbols.contains(name)                   ? "a parameter, output or local"
                          : dimNames.contains(name) || name == "R" ? "a dimension"
                                                                   : "";
  if (what.empty()) return true;
  return fail(loc, fmt::format("index variable {} has the name of {}", quoted(name), what), "name.duplicate");
}

bool KernelChecker::checkTarget(const Stmt &stmt, const Symbol *&symbol) {
  auto found = symbols.find(stmt.target);
  symbol = found == symbols.end() ? nullptr : &found->second;
  if (symbol && symbol->kind == Symbol::Param)
    return fail(stmt.loc, fmt::format("{} is a parameter and cannot be written", quoted(stmt.target)),
                "assign.target");
  if (stmt.indices.size() != 2)
    return fail(stmt.loc,
                fmt::format("found {} ind{}, expected a row and a column as in {}[r, n]", stmt.indices.size(),
                            stmt.indices.size() == 1 ? "ex" : "ices", stmt.target),
                "assign.target");
  const Index &row = stmt.indices[0], &column = stmt.indices[1];
  if (row.kind != Index::Row && row.kind != Index::Token) {
    if (kernel.rowVar.empty() || row.kind == Index::Expert)
      return fail(row.loc, "expected the row variable as the target's first index", "row.variable");
    return fail(row.loc,
                fmt::format("found {}, expected the row variable {} in every statement", quoted(row.var),
                            quoted(kernel.rowVar)),
                "row.variable");
  }
  if (column.kind != Index::Affine || column.mul != 1 || column.offset != Dim{"", 0, 1})
    return fail(column.loc,
                "expected a plain variable as the target's column, so that every column is written",
                "assign.column");
  if (row.kind == Index::Token && !hasRouting())
    return fail(row.loc, fmt::format("{}.token needs a routing parameter", kernel.rowVar), "row.routing");
  return checkVariable(kernel.rowVar, row.loc) && checkVariable(column.var, column.loc);
}

bool KernelChecker::checkOutputTarget(const Stmt &stmt, int output) {
  const Dim &rows = kernel.outputs[output].dims[0];
  const std::string shown = quoted(stmt.target), &r = kernel.rowVar;
  bool combine = hasRouting() && rows != kernel.rows; // R and T differ by name, so this cannot be ambiguous
  bool byToken = stmt.indices[0].kind == Index::Token;
  if (outputWritten[output])
    return fail(stmt.loc, fmt::format("output {} is already written", shown), "assign.twice");
  outputWritten[output] = true;
  if (combine != byToken)
    return fail(stmt.indices[0].loc,
                combine ? fmt::format("{} has one row per token, expected {}[{}.token, ...] += ...", shown,
                                      stmt.target, r)
                        : fmt::format("{} has one row per routed row, expected {}[{}, ...] = ...", shown,
                                      stmt.target, r),
                "assign.row");
  if (combine && !stmt.accumulate)
    return fail(
        stmt.loc,
        fmt::format("many rows meet in one token, so {}[{}.token, ...] needs '+=', not '='", stmt.target, r),
        "assign.combine");
  if (!combine && stmt.accumulate)
    return fail(stmt.loc, fmt::format("each row of {} is written once, expected '=', not '+='", shown),
                "assign.plain");
  const ElemType &elem = kernel.outputs[output].elem;
  if (combine && (elem.kind != ElemType::Literal || elem.literal != DType::F32))
    return fail(kernel.outputs[output].loc,
                fmt::format("{} is summed over rows with '+=', so it must be f32", shown), "type.combine");
  return true;
}

bool KernelChecker::checkStmt(Stmt &stmt) {
  columnVar.clear();
  sumVars.clear();
  activeSums.clear();
  uses.clear();
  const Symbol *symbol = nullptr;
  if (!checkTarget(stmt, symbol)) return false;
  columnVar = stmt.indices[1].var;
  const Dim *outputColumns = nullptr;
  if (symbol && symbol->kind == Symbol::Output) {
    if (!checkOutputTarget(stmt, symbol->index)) return false;
    outputColumns = &kernel.outputs[symbol->index].dims[1];
  } else if (symbol) {
    return fail(stmt.loc, fmt::format("local {} is already defined", quoted(stmt.target)), "assign.twice");
  } else if (stmt.accumulate || stmt.indices[0].kind != Index::Row) {
    std::vector<std::string> outputs;
    for (const Param &output : kernel.outputs) outputs.push_back(output.name);
    return fail(stmt.loc,
                fmt::format("{} is no output, so it is a local, written as {}[{}, ...] = ...{}",
                            quoted(stmt.target), stmt.target, kernel.rowVar,
                            didYouMean(stmt.target, outputs)),
                "assign.local");
  }
  if (dimNames.contains(stmt.target) || stmt.target == kernel.rowVar || stmt.target == columnVar)
    return fail(stmt.loc, fmt::format("{} is already a dimension or index variable", quoted(stmt.target)),
                "name.duplicate");
  Cost cost;
  Dim columns;
  if (!checkExpr(*stmt.value, cost)) return false;
  if (auto error = FnChecker::checkCost(cost, stmt.loc)) return fail(std::move(error));
  if (!inferRanges(stmt, outputColumns, columns)) return false;
  if (!outputColumns) {
    symbols.emplace(stmt.target, Symbol{Symbol::Local, static_cast<int>(locals.size())});
    kernel.locals.push_back({stmt.target, columns});
    locals.push_back({stmt.value->kind == ExprKind::Sum, false, cost, stmt.loc});
  }
  return true;
}

bool KernelChecker::finish() {
  for (size_t i = 0; i < kernel.outputs.size(); ++i)
    if (!outputWritten[i])
      return fail(kernel.outputs[i].loc,
                  fmt::format("output {} is never written", quoted(kernel.outputs[i].name)),
                  "output.unwritten");
  for (size_t i = 0; i < kernel.params.size(); ++i)
    if (!paramUsed[i] && kernel.params[i].kind != Param::Routing)
      return fail(kernel.params[i].loc,
                  fmt::format("parameter {} is never read", quoted(kernel.params[i].name)), "param.unused");
  for (size_t i = 0; i < locals.size(); ++i)
    if (!locals[i].read)
      return fail(locals[i].loc, fmt::format("local {} is never read", quoted(kernel.locals[i].name)),
                  "local.unused");
  return true;
}

} // namespace quern::syntax
