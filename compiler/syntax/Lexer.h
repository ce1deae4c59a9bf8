// Text to tokens. Brackets are matched and their depth is limited here, before any tree is built.
#pragma once
#include "compiler/syntax/Source.h"
#include <optional>

namespace quern::syntax {

enum class Tok : uint8_t {
  End,
  Failed, // Failed: the lexer stopped here; Tokens::failure says why
  Name,
  Number,
  LParen,
  RParen,
  LBracket,
  RBracket,
  LBrace,
  RBrace,
  Comma,
  Colon,
  Dot,
  Arrow,
  Assign,
  PlusAssign,
  Plus,
  Minus,
  Star,
  Slash,
  Less,
  LessEqual,
  Greater,
  GreaterEqual,
  EqualEqual,
  NotEqual,
};

struct Token {
  Tok kind = Tok::End;
  std::string_view text;
  Loc loc;
};

/// Ends with one End or Failed token.
struct Tokens {
  std::vector<Token> list;
  std::optional<Error> failure;
};

/// Never fails as a whole: a bad character or bracket becomes a Failed token, so that the parser reports the
/// first error of the file. Size, NUL bytes and UTF-8 are checked over the whole text first.
Tokens lex(const Source &source);

} // namespace quern::syntax
