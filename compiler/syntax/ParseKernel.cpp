// Parsing of kernels: signature, types, dimensions and statements.
#include "compiler/syntax/Dims.h"
#include "compiler/syntax/Parser.h"
#include "compiler/syntax/Words.h"
#include <fmt/format.h>

namespace quern::syntax {

bool Parser::parseKernel() {
  take();
  Kernel kernel;
  kernel.loc = peek().loc;
  if (!expectName(kernel.name, "the name of the kernel") || !expect(Tok::LParen, "'('")) return false;
  if (!kernelNames.insert(kernel.name).second)
    return fail(kernel.loc, fmt::format("kernel {} is already declared", quoted(kernel.name)),
                "name.duplicate");
  if (kernelNames.size() > maxKernels)
    return fail(kernel.loc, fmt::format("found more than {} kernels in one file", maxKernels),
                "limit.kernels");
  auto parseList = [&](std::vector<Param> &list, bool isOutput) {
    do {
      Loc loc = peek().loc;
      if (!parseParam(list.emplace_back(), isOutput)) return false;
      if (list.size() > maxDepth)
        return fail(loc, fmt::format("found more than {} parameters", maxDepth), "limit.params");
    } while (accept(Tok::Comma));
    return true;
  };
  if (!parseList(kernel.params, false) || !expect(Tok::RParen, "',' or ')'") ||
      !expect(Tok::Arrow, "'->' and the outputs") || !parseList(kernel.outputs, true) ||
      !expect(Tok::LBrace, "',' or '{'"))
    return false;
  rowVar.clear();
  while (!is(Tok::RBrace))
    if (!parseStmt(kernel)) return false;
  take();
  kernel.rowVar = rowVar;
  program.kernels.push_back(std::move(kernel));
  return true;
}

bool Parser::parseParam(Param &param, bool isOutput) {
  param.loc = peek().loc;
  if (!expectName(param.name, isOutput ? "the name of an output" : "the name of a parameter") ||
      !expect(Tok::Colon, "':' and a type"))
    return false;
  if (!is(Tok::Name)) return unexpected("a type: act, float, f32, bf16, f16, routing or a codec");
  Token type = take();
  if (auto literal = parseDType(type.text))
    param.elem = {ElemType::Literal, *literal};
  else if (type.text == "act" || type.text == "float")
    param.elem.kind = type.text == "act" ? ElemType::Act : ElemType::Float;
  else if (type.text == "routing")
    param.kind = Param::Routing;
  else {
    param.kind = Param::Packed;
    param.codec = std::string(type.text);
  }
  if (is(Tok::LBracket)) return parseDims(param.dims);
  if (param.kind == Param::Tensor) param.kind = Param::Scalar;
  return true;
}

bool Parser::parseDims(std::vector<Dim> &dims) {
  take();
  do {
    Loc loc = peek().loc;
    if (dims.size() == 3) return fail(loc, "found more than 3 dimensions, expected at most 3", "type.rank");
    if (!parseDim(dims.emplace_back())) return false;
  } while (accept(Tok::Comma));
  return expect(Tok::RBracket, "',' or ']'");
}

/// [ INT "*" ] SYM [ "/" INT ] | INT, in lowest terms.
bool Parser::parseDim(Dim &dim, int64_t low) {
  dim = Dim{};
  constexpr std::string_view what = "a dimension such as N, N/2, 2*N or 64";
  if (is(Tok::Number)) {
    if (!expectInt(dim.mul, low, maxDimension, what, "dim.form")) return false;
    if (!accept(Tok::Star)) return true;
    if (dim.mul < 1 || dim.mul > maxFactor)
      return fail(peek().loc, fmt::format("found a factor {}, expected 1 to {}", dim.mul, maxFactor),
                  "dim.form");
  }
  if (!is(Tok::Name)) return unexpected(what, "dim.form");
  dim.sym = std::string(take().text);
  if (accept(Tok::Slash) && !expectInt(dim.div, 1, maxFactor, "a whole number to divide by", "dim.form"))
    return false;
  dim = reduced(dim);
  return true;
}

bool Parser::parseStmt(Kernel &kernel) {
  if (!is(Tok::Name)) return unexpected("a statement such as 'y[r, n] = ...' or '}'");
  Stmt stmt;
  Token target = peek();
  stmt.loc = target.loc;
  if (!expectName(stmt.target, "an output or a local")) return false;
  if (!is(Tok::LBracket)) return unexpected("'[' and the target's indices");
  if (rowVar.empty() && peek(1).kind == Tok::Name) rowVar = std::string(peek(1).text);
  if (!parseIndices(stmt.indices)) return false;
  if (accept(Tok::PlusAssign))
    stmt.accumulate = true;
  else if (!expect(Tok::Assign, "'=' or '+='"))
    return false;
  Tree value = parseValue();
  if (!value) return false;
  stmt.value = std::move(value.expr);
  kernel.stmts.push_back(std::move(stmt));
  return true;
}

} // namespace quern::syntax
