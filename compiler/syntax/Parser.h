// Recursive descent from tokens to the syntax tree. Names are resolved by Check.h, except callees and the row
// variable, which only need what stands before them.
#pragma once
#include "compiler/syntax/Lexer.h"
#include "compiler/syntax/Syntax.h"
#include <unordered_map>
#include <unordered_set>

namespace quern::syntax {

class Parser {
public:
  /// `use` may be null: then `use` lines are errors (rule use.nested).
  Parser(const Source &source, const UseResolver *use) : source(source), use(use), tokens(lex(source)) {}
  Expected<Program> run();

private:
  // ParseDecls.cpp. Functions return false after recording the first error in `failure`.
  bool parseUse();
  bool parseCodec();
  bool parseTable(Codec &codec);
  bool parseScale(Codec &codec);
  bool parseFn();
  bool parseKernel();
  bool parseParam(Param &param, bool isOutput);
  bool parseDim(Dim &dim, int64_t low = 1);
  bool parseDims(std::vector<Dim> &dims);
  bool parseStmt(Kernel &kernel);
  bool addCodec(Codec codec, Loc loc);

  // ParseExprs.cpp. A tree with its height; null after an error.
  struct Tree {
    std::shared_ptr<Expr> expr;
    int height = 0;
    explicit operator bool() const { return expr != nullptr; }
  };
  Tree parseValue(); // a whole expression: what follows must not be a comparison
  Tree parseSum();
  Tree parseProduct();
  Tree parseUnary();
  Tree parsePrimary();
  Tree parseNamed();
  Tree parseCall(const Token &name);
  Tree parseCondition();
  Tree parseContraction();
  Tree parseFactor();
  Tree parseAccess(const Token &name);
  bool parseIndices(std::vector<Index> &indices);
  bool parseIndex(Index &index);
  Tree make(ExprKind kind, Loc loc, std::vector<Tree> children);
  bool isRowLike(const Expr &factor) const;

  // Tokens.
  const Token &peek(size_t ahead = 0) const {
    return tokens.list[std::min(at + ahead, tokens.list.size() - 1)];
  }
  bool is(Tok kind) const { return peek().kind == kind; }
  bool isWord(std::string_view word) const { return is(Tok::Name) && peek().text == word; }
  Token take();
  bool accept(Tok kind);
  bool expect(Tok kind, std::string_view what);
  bool expectName(std::string &name, std::string_view what); // a name that is not reserved
  bool expectInt(int64_t &value, int64_t low, int64_t high, std::string_view what, std::string_view rule);
  bool parseNumber(double &value);
  bool fail(Loc loc, std::string message, std::string_view rule);
  bool unexpected(std::string_view expected, std::string_view rule = "syntax");
  Tree failTree(Loc loc, std::string message, std::string_view rule) {
    return fail(loc, std::move(message), rule), Tree{};
  }

  const Source &source;
  const UseResolver *use;
  Tokens tokens;
  size_t at = 0;
  int nesting = 0;
  bool inFn = false;
  std::string rowVar; // of the kernel being parsed; empty before its first statement
  Program program;
  std::unordered_map<std::string, int> fnIndex;
  std::unordered_set<std::string> codecNames, kernelNames;
  std::optional<Error> failure;
};

} // namespace quern::syntax
