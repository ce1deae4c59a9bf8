// Parsing of expressions and indices. Heights are counted while trees grow, so no tree is ever deeper than
// maxDepth.
#include "compiler/syntax/Dims.h"
#include "compiler/syntax/Parser.h"
#include "compiler/syntax/Words.h"
#include <algorithm>
#include <fmt/format.h>

namespace quern::syntax {

static std::optional<ExprKind> comparison(Tok kind) {
  switch (kind) {
  case Tok::Less: return ExprKind::Lt;
  case Tok::LessEqual: return ExprKind::Le;
  case Tok::Greater: return ExprKind::Gt;
  case Tok::GreaterEqual: return ExprKind::Ge;
  case Tok::EqualEqual: return ExprKind::Eq;
  case Tok::NotEqual: return ExprKind::Ne;
  default: return std::nullopt;
  }
}

Parser::Tree Parser::make(ExprKind kind, Loc loc, std::vector<Tree> children) {
  Tree tree{std::make_shared<Expr>(), 0};
  tree.expr->kind = kind;
  tree.expr->loc = loc;
  for (Tree &child : children) {
    tree.height = std::max(tree.height, child.height);
    tree.expr->children.push_back(std::move(child.expr));
  }
  if (++tree.height > maxDepth)
    return failTree(loc, fmt::format("found an expression more than {} levels deep", maxDepth),
                    "limit.depth");
  return tree;
}

Parser::Tree Parser::parseValue() {
  Tree tree = parseSum();
  if (tree && comparison(peek().kind))
    return failTree(peek().loc,
                    fmt::format("found {}, but a comparison stands only as the first argument of select",
                                quoted(peek().text)),
                    "select.condition");
  return tree;
}

Parser::Tree Parser::parseSum() {
  Tree left = parseProduct();
  while (left && (is(Tok::Plus) || is(Tok::Minus))) {
    Token op = take();
    Tree right = parseProduct();
    if (!right) return {};
    left = make(op.kind == Tok::Plus ? ExprKind::Add : ExprKind::Sub, op.loc,
                {std::move(left), std::move(right)});
  }
  return left;
}

Parser::Tree Parser::parseProduct() {
  Tree left = parseUnary();
  while (left && (is(Tok::Star) || is(Tok::Slash))) {
    Token op = take();
    Tree right = parseUnary();
    if (!right) return {};
    left = make(op.kind == Tok::Star ? ExprKind::Mul : ExprKind::Div, op.loc,
                {std::move(left), std::move(right)});
  }
  return left;
}

Parser::Tree Parser::parseUnary() {
  if (!is(Tok::Minus)) return parsePrimary();
  Token op = take();
  if (++nesting > maxDepth)
    return failTree(op.loc, fmt::format("found an expression more than {} levels deep", maxDepth),
                    "limit.depth");
  Tree child = parseUnary();
  --nesting;
  return child ? make(ExprKind::Neg, op.loc, {std::move(child)}) : Tree{};
}

Parser::Tree Parser::parsePrimary() {
  Token token = peek();
  if (token.kind == Tok::Number) {
    double value = 0;
    if (!parseNumber(value)) return {};
    Tree tree = make(ExprKind::Number, token.loc, {});
    tree.expr->number = value;
    return tree;
  }
  if (accept(Tok::LParen)) { // recursion is bounded: the lexer limits the depth of brackets
    Tree tree = parseValue();
    return tree && expect(Tok::RParen, "an operator or ')'") ? std::move(tree) : Tree{};
  }
  if (token.kind == Tok::Name) return parseNamed();
  unexpected("a value");
  return {};
}

Parser::Tree Parser::parseNamed() {
  if (isWord("sum")) {
    Tree sum = parseContraction();
    if (sum && (is(Tok::Star) || is(Tok::Slash)))
      return failTree(
          peek().loc,
          fmt::format("found {} after the two factors of a sum; write (sum({}) ...) in parentheses to go on",
                      quoted(peek().text), sum.expr->name),
          "sum.factors");
    return sum;
  }
  Token name = take();
  if (is(Tok::LParen)) return parseCall(name);
  if (isReserved(name.text))
    return failTree(name.loc, fmt::format("found the reserved word {}, expected a value", quoted(name.text)),
                    "name.reserved");
  if (is(Tok::LBracket)) return parseAccess(name);
  if (!is(Tok::Dot)) {
    Tree tree = make(ExprKind::Name, name.loc, {});
    tree.expr->name = std::string(name.text);
    return tree;
  }
  if (inFn)
    return failTree(name.loc, "a fn sees only its parameters and locals; pass the value as a parameter",
                    "fn.scalar");
  take();
  if (name.text != rowVar)
    return failTree(name.loc,
                    fmt::format("found {}, expected the row variable {}", quoted(name.text), quoted(rowVar)),
                    "row.variable");
  if (!isWord("weight"))
    return failTree(peek().loc,
                    fmt::format("found {}, expected 'weight', the only field of a row that is a value",
                                quoted(peek().text)),
                    "row.field");
  take();
  Tree tree = make(ExprKind::RowWeight, name.loc, {});
  if (tree) tree.expr->name = rowVar;
  return tree;
}

Parser::Tree Parser::parseCall(const Token &name) {
  take();
  const BuiltinInfo *builtin = findBuiltin(name.text);
  if (!builtin && isReserved(name.text))
    return failTree(name.loc, fmt::format("found the reserved word {}, expected a value", quoted(name.text)),
                    "name.reserved");
  std::vector<Tree> args;
  if (!is(Tok::RParen)) {
    do {
      bool condition = builtin && builtin->id == Builtin::Select && args.empty();
      args.push_back(condition ? parseCondition() : parseValue());
      if (!args.back()) return {};
    } while (accept(Tok::Comma));
  }
  if (!expect(Tok::RParen, "an operator, ',' or ')'")) return {};
  Tree tree = make(ExprKind::Call, name.loc, std::move(args));
  if (!tree) return {};
  tree.expr->name = std::string(name.text);
  if (builtin) {
    tree.expr->callee = builtin->id;
  } else if (auto found = fnIndex.find(tree.expr->name); found != fnIndex.end()) {
    tree.expr->fnIndex = found->second; // only earlier fns are known here; the checks explain what is missing
  }
  return tree;
}

Parser::Tree Parser::parseCondition() {
  Tree left = parseSum();
  if (!left) return {};
  Token op = peek();
  std::optional<ExprKind> kind = comparison(op.kind);
  if (!kind) {
    unexpected("a comparison (<, <=, >, >=, ==, !=) as the first argument of select", "select.condition");
    return {};
  }
  take();
  Tree right = parseValue();
  return right ? make(*kind, op.loc, {std::move(left), std::move(right)}) : Tree{};
}

/// "sum" "(" v ")" factor "*" factor
Parser::Tree Parser::parseContraction() {
  Token keyword = take();
  if (inFn)
    return failTree(keyword.loc, "a fn sees only its parameters and locals; pass the sum as a parameter",
                    "fn.scalar");
  std::string variable;
  if (!expect(Tok::LParen, "'(' and the variable of the sum") ||
      !expectName(variable, "the variable of the sum") || !expect(Tok::RParen, "')'"))
    return {};
  Tree first = parseFactor();
  if (!first) return {};
  if (!accept(Tok::Star)) {
    unexpected("'*' and the second factor of the sum", "sum.factors");
    return {};
  }
  Tree second = parseFactor();
  if (!second) return {};
  if (!isRowLike(*first.expr) && isRowLike(*second.expr))
    std::swap(first, second); // the row's factor stands first in the tree
  Tree tree = make(ExprKind::Sum, keyword.loc, {std::move(first), std::move(second)});
  if (tree) tree.expr->name = std::move(variable);
  return tree;
}

bool Parser::isRowLike(const Expr &factor) const {
  return factor.kind == ExprKind::Sum || factor.indices.front().kind == Index::Row ||
         factor.indices.front().kind == Index::Token;
}

Parser::Tree Parser::parseFactor() {
  constexpr std::string_view what =
      "an access such as x[r, k] or a sum in parentheses as a factor of the sum";
  if (is(Tok::LParen) && peek(1).kind == Tok::Name && peek(1).text == "sum") {
    take();
    Tree inner = parseContraction();
    if (!inner) return {};
    if (!is(Tok::RParen)) return unexpected("')' after the inner sum's two factors", "sum.factors"), Tree{};
    take();
    return inner;
  }
  if (!is(Tok::Name) || peek(1).kind != Tok::LBracket) {
    if (peek(1).kind == Tok::Failed) take();
    unexpected(what, "sum.factors");
    return {};
  }
  Token name = take();
  return parseAccess(name);
}

Parser::Tree Parser::parseAccess(const Token &name) {
  if (inFn)
    return failTree(name.loc, "a fn sees only its parameters and locals; pass the value as a parameter",
                    "fn.scalar");
  std::vector<Index> indices;
  if (!parseIndices(indices)) return {};
  Tree tree = make(ExprKind::Access, name.loc, {});
  tree.expr->name = std::string(name.text);
  tree.expr->indices = std::move(indices);
  return tree;
}

bool Parser::parseIndices(std::vector<Index> &indices) {
  take();
  do {
    if (indices.size() == 3)
      return fail(peek().loc, "found more than 3 indices, expected at most 3", "access.rank");
    if (!parseIndex(indices.emplace_back())) return false;
  } while (accept(Tok::Comma));
  return expect(Tok::RBracket, "',' or ']'");
}

/// r | r.token | r.expert | [ INT "*" ] v [ "+" dim ]
bool Parser::parseIndex(Index &index) {
  constexpr std::string_view what = "an index such as n, 2*n+1, n + N/2, r, r.token or r.expert";
  index.loc = peek().loc;
  if (is(Tok::Number)) {
    if (!expectInt(index.mul, 1, maxFactor, what, "index.form") || !accept(Tok::Star))
      return unexpected(what, "index.form");
  }
  if (!is(Tok::Name)) return unexpected(what, "index.form");
  Token name = peek();
  if (!expectName(index.var, "an index variable")) return false;
  if (accept(Tok::Dot)) {
    if (name.text != rowVar)
      return fail(name.loc,
                  fmt::format("found {}, expected the row variable {}", quoted(name.text), quoted(rowVar)),
                  "row.variable");
    if (!isWord("token") && !isWord("expert"))
      return fail(peek().loc,
                  fmt::format("found {}, expected 'token' or 'expert' in an index", quoted(peek().text)),
                  "row.field");
    index.kind = take().text == "token" ? Index::Token : Index::Expert;
  } else if (name.text == rowVar) {
    index.kind = Index::Row;
  }
  if (index.kind != Index::Affine) {
    if (index.mul != 1 || is(Tok::Plus))
      return fail(index.loc, "found arithmetic on the row variable, expected it alone", "index.form");
    return true;
  }
  return !accept(Tok::Plus) || parseDim(index.offset, 0);
}

} // namespace quern::syntax
