// The scanner: one pass, linear in the text.
#include "compiler/syntax/Lexer.h"
#include <fmt/format.h>

namespace quern::syntax {
namespace {

bool isNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool isDigit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
public:
  explicit Lexer(const Source &source) : source(source), text(source.text) {}

  Tokens run() {
    if (checkText()) scan();
    return std::move(out);
  }

private:
  Loc here(size_t at) const { return {line, static_cast<uint32_t>(at - lineStart + 1)}; }

  bool fail(Loc loc, std::string message, std::string_view rule) {
    out.failure = source.error(loc, std::move(message), rule);
    out.list.push_back({Tok::Failed, {}, loc});
    return false;
  }

  bool checkText() {
    if (text.size() > maxFileBytes)
      return fail({1, 1},
                  fmt::format("found a file of {} bytes, expected at most {}", text.size(), maxFileBytes),
                  "text.size");
    Loc loc;
    for (size_t at = 0; at < text.size();) {
      if (text[at] == '\0') return fail(loc, "found a NUL byte, expected text", "text.nul");
      size_t length = utf8Length(text, at);
      if (length == 0)
        return fail(
            loc,
            fmt::format("found byte 0x{:02X}, expected UTF-8 text", static_cast<unsigned char>(text[at])),
            "text.utf8");
      if (text[at] == '\n')
        loc = {loc.line + 1, 1};
      else
        loc.column += length;
      at += length;
    }
    return true;
  }

  void scan() {
    size_t at = text.starts_with("\xEF\xBB\xBF") ? 3 : 0; // byte order mark
    while (at < text.size()) {
      char c = text[at];
      if (c == '\n') {
        ++line;
        lineStart = ++at;
      } else if (c == ' ' || c == '\t' || c == '\r') {
        ++at;
      } else if (c == '#') {
        at = std::min(text.find('\n', at), text.size());
      } else if (!scanToken(at)) {
        return;
      }
    }
    if (!open.empty()) {
      const Token &bracket = out.list[open.back()];
      fail(
          bracket.loc,
          fmt::format("found the end of the file, expected something to close this {}", quoted(bracket.text)),
          "bracket.match");
      return;
    }
    out.list.push_back({Tok::End, {}, here(at)});
  }

  bool scanToken(size_t &at) {
    if (isNameStart(text[at])) return scanName(at);
    if (isDigit(text[at])) return scanNumber(at);
    return scanSymbol(at);
  }

  bool scanName(size_t &at) {
    size_t end = at;
    while (end < text.size() && (isNameStart(text[end]) || isDigit(text[end]))) ++end;
    if (end - at > maxNameLength)
      return fail(here(at),
                  fmt::format("found a name of {} characters, expected at most {}", end - at, maxNameLength),
                  "name.length");
    push(Tok::Name, at, end);
    return true;
  }

  /// digits [ "." digits ] [ ("e" | "E") [ "+" | "-" ] digits ]
  bool scanNumber(size_t &at) {
    size_t end = at;
    bool good = true;
    auto digits = [&] {
      size_t begin = end;
      while (end < text.size() && isDigit(text[end])) ++end;
      good &= end > begin;
    };
    digits();
    if (end < text.size() && text[end] == '.') ++end, digits();
    if (good && end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
      ++end;
      if (end < text.size() && (text[end] == '+' || text[end] == '-')) ++end;
      digits();
    }
    good &= end >= text.size() || (!isNameStart(text[end]) && text[end] != '.');
    if (end - at > maxNameLength)
      return fail(
          here(at),
          fmt::format("found a number of {} characters, expected at most {}", end - at, maxNameLength),
          "name.length");
    if (!good) {
      while (end < text.size() && (isNameStart(text[end]) || isDigit(text[end]) || text[end] == '.')) ++end;
      return fail(here(at),
                  fmt::format("found {}, expected a number such as 7, 1.702 or 1e-5",
                              quoted(text.substr(at, end - at))),
                  "number.form");
    }
    push(Tok::Number, at, end);
    return true;
  }

  bool scanSymbol(size_t &at) {
    static constexpr std::pair<std::string_view, Tok> symbols[] = {
        {"->", Tok::Arrow},      {"+=", Tok::PlusAssign}, {"<=", Tok::LessEqual}, {">=", Tok::GreaterEqual},
        {"==", Tok::EqualEqual}, {"!=", Tok::NotEqual},   {"(", Tok::LParen},     {")", Tok::RParen},
        {"[", Tok::LBracket},    {"]", Tok::RBracket},    {"{", Tok::LBrace},     {"}", Tok::RBrace},
        {",", Tok::Comma},       {":", Tok::Colon},       {".", Tok::Dot},        {"=", Tok::Assign},
        {"+", Tok::Plus},        {"-", Tok::Minus},       {"*", Tok::Star},       {"/", Tok::Slash},
        {"<", Tok::Less},        {">", Tok::Greater},
    };
    for (auto [spelling, kind] : symbols) {
      if (!text.substr(at).starts_with(spelling)) continue;
      if (!matchBracket(kind, at)) return false;
      push(kind, at, at + spelling.size());
      return true;
    }
    return fail(here(at),
                fmt::format("found {}, which has no meaning outside comments",
                            quoted(text.substr(at, utf8Length(text, at)))),
                "text.char");
  }

  bool matchBracket(Tok kind, size_t at) {
    if (kind == Tok::LParen || kind == Tok::LBracket || kind == Tok::LBrace) {
      if (open.size() >= maxDepth)
        return fail(here(at), fmt::format("found brackets nested more than {} deep", maxDepth),
                    "limit.depth");
      open.push_back(out.list.size());
      return true;
    }
    if (kind != Tok::RParen && kind != Tok::RBracket && kind != Tok::RBrace) return true;
    std::string_view found = text.substr(at, 1);
    if (open.empty())
      return fail(here(at), fmt::format("found {}, but no bracket is open", quoted(found)), "bracket.match");
    const Token &bracket = out.list[open.back()];
    Tok expected = bracket.kind == Tok::LParen     ? Tok::RParen
                   : bracket.kind == Tok::LBracket ? Tok::RBracket
                                                   : Tok::RBrace;
    if (kind != expected)
      return fail(here(at),
                  fmt::format("found {}, expected something to close {} of {}:{}", quoted(found),
                              quoted(bracket.text), bracket.loc.line, bracket.loc.column),
                  "bracket.match");
    open.pop_back();
    return true;
  }

  void push(Tok kind, size_t &at, size_t end) {
    out.list.push_back({kind, text.substr(at, end - at), here(at)});
    at = end;
  }

  const Source &source;
  std::string_view text;
  Tokens out;
  std::vector<size_t> open; // indices of open brackets in out.list
  uint32_t line = 1;
  size_t lineStart = 0;
};

} // namespace

Tokens lex(const Source &source) { return Lexer(source).run(); }

} // namespace quern::syntax
