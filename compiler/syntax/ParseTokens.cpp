// The parser's steps over tokens, numbers, and its error messages.
#include "compiler/syntax/Parser.h"
#include "compiler/syntax/Words.h"
#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace quern::syntax {

Token Parser::take() {
  Token token = peek();
  if (at + 1 < tokens.list.size()) ++at;
  return token;
}

bool Parser::accept(Tok kind) {
  if (!is(kind)) return false;
  take();
  return true;
}

bool Parser::expect(Tok kind, std::string_view what) { return accept(kind) || unexpected(what); }

bool Parser::expectName(std::string &name, std::string_view what) {
  if (!is(Tok::Name)) return unexpected(what);
  if (isReserved(peek().text))
    return fail(peek().loc, fmt::format("found the reserved word {}, expected {}", quoted(peek().text), what),
                "name.reserved");
  name = std::string(take().text);
  return true;
}

bool Parser::expectInt(int64_t &value, int64_t low, int64_t high, std::string_view what,
                       std::string_view rule) {
  if (!is(Tok::Number)) return unexpected(what, rule);
  std::string_view text = peek().text;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || value < low || value > high)
    return unexpected(what, rule);
  take();
  return true;
}

bool Parser::parseNumber(double &value) {
  std::string_view text = peek().text;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool isZero = text.find_first_of("123456789") >= std::min(text.find_first_of("eE"), text.size());
  if (isZero)
    value = 0;
  else if (code != std::errc() || !std::isfinite(static_cast<float>(value)) || static_cast<float>(value) == 0)
    return fail(peek().loc, fmt::format("found {}, expected a number that f32 can hold", quoted(text)),
                "number.range");
  take();
  return true;
}

bool Parser::fail(Loc loc, std::string message, std::string_view rule) {
  if (failure) return false;
  // Where the lexer stopped, what the parser makes of the half statement before is no help.
  failure = is(Tok::Failed) ? tokens.failure : source.error(loc, std::move(message), rule);
  return false;
}

bool Parser::unexpected(std::string_view expected, std::string_view rule) {
  std::string found = is(Tok::End) ? "the end of the file" : quoted(peek().text);
  return fail(peek().loc, fmt::format("found {}, expected {}", found, expected), rule);
}

} // namespace quern::syntax
