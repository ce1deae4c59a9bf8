// Parsing of a file: use, codec and fn declarations.
#include "compiler/syntax/Parser.h"
#include "compiler/syntax/Words.h"
#include <fmt/format.h>

namespace quern::syntax {

Expected<Program> Parser::run() {
  program.fileName = std::string(source.fileName);
  while (!is(Tok::End)) {
    bool good = isWord("use")      ? parseUse()
                : isWord("codec")  ? parseCodec()
                : isWord("fn")     ? parseFn()
                : isWord("kernel") ? parseKernel()
                                   : unexpected("'use', 'codec', 'fn' or 'kernel'");
    if (!good) return std::move(*failure);
  }
  if (program.codecs.empty() && program.fns.empty() && program.kernels.empty())
    return source.error({1, 1}, "found a file without declarations, expected a codec, fn or kernel",
                        "file.empty");
  return std::move(program);
}

bool Parser::addCodec(Codec codec, Loc loc) {
  if (!codecNames.insert(codec.name).second)
    return fail(loc, fmt::format("codec {} is already declared", quoted(codec.name)), "name.duplicate");
  program.codecs.push_back(std::move(codec));
  return true;
}

bool Parser::parseUse() {
  Token keyword = take(), name = peek();
  if (!accept(Tok::Name)) return unexpected("the name of a shipped file, as in 'use nf4'");
  if (!use)
    return fail(keyword.loc, "found 'use' in a file that is itself used, expected declarations only",
                "use.nested");
  std::optional<std::string> text = (*use)(name.text);
  if (!text) {
    std::vector<std::string> names = shippedFiles();
    for (std::string &shipped : names) shipped = shipped.substr(0, shipped.rfind('.'));
    return fail(name.loc,
                fmt::format("there is no file {}.qn to use{}", name.text, didYouMean(name.text, names)),
                "use.unknown");
  }
  std::string usedName = std::string(name.text) + ".qn";
  Source used(*text, usedName);
  Expected<Program> parsed = Parser(used, nullptr).run();
  if (!parsed) {
    failure = parsed.takeError();
    return false;
  }
  if (parsed->codecs.empty())
    return fail(name.loc,
                fmt::format("{} declares no codec, and codecs are what 'use' brings in", quoted(usedName)),
                "use.empty");
  for (Codec &codec : parsed->codecs)
    if (!addCodec(std::move(codec), name.loc)) return false;
  return true;
}

bool Parser::parseCodec() {
  take();
  Codec codec;
  codec.loc = peek().loc;
  if (!expectName(codec.name, "the name of the codec") || !expect(Tok::LBrace, "'{'")) return false;
  bool hasTable = false, hasFirst = false, hasScale = false;
  int64_t zeroBlock = 0;
  Loc zeroLoc;
  while (!is(Tok::RBrace)) {
    Token field = peek();
    auto once = [&](bool &seen) {
      if (seen) return fail(field.loc, fmt::format("{} is given twice", quoted(field.text)), "codec.field");
      take();
      return seen = true;
    };
    if (isWord("table")) {
      if (!once(hasTable) || !expect(Tok::Assign, "'='") || !parseTable(codec)) return false;
    } else if (isWord("first")) {
      if (!once(hasFirst) || !expect(Tok::Assign, "'='")) return false;
      if (!isWord("high") && !isWord("low")) return unexpected("'high' or 'low'", "codec.first");
      codec.highFirst = take().text == "high";
    } else if (isWord("scale")) {
      if (!once(hasScale) || !parseScale(codec)) return false;
    } else if (isWord("zero")) {
      if (!once(codec.hasZero)) return false;
      zeroLoc = field.loc;
      if (!isWord("u4")) return unexpected("'u4', the only type of a zero", "codec.zero");
      take();
      if (!isWord("per")) return unexpected("'per'");
      take();
      if (!expectInt(zeroBlock, 32, 4096, "a block size from 32 to 4096", "codec.block")) return false;
    } else {
      return unexpected("'table', 'first', 'scale', 'zero' or '}'", "codec.field");
    }
  }
  take();
  if (!hasTable || !hasFirst || !hasScale)
    return fail(codec.loc,
                fmt::format("codec {} has no {}", quoted(codec.name),
                            !hasTable   ? "'table'"
                            : !hasFirst ? "'first'"
                                        : "'scale'"),
                "codec.field");
  if (codec.hasZero && zeroBlock != codec.block)
    return fail(zeroLoc,
                fmt::format("found zero per {}, expected per {} as the scale has", zeroBlock, codec.block),
                "codec.zero");
  Loc loc = codec.loc;
  return addCodec(std::move(codec), loc);
}

bool Parser::parseTable(Codec &codec) {
  Token open = peek();
  if (!expect(Tok::LBracket, "'[' and 16 numbers")) return false;
  size_t count = 0;
  if (!is(Tok::RBracket)) {
    do {
      bool negative = accept(Tok::Minus);
      double value = 0;
      if (!is(Tok::Number)) return unexpected("a number");
      if (!parseNumber(value)) return false;
      if (count < codec.table.size()) codec.table[count] = static_cast<float>(negative ? -value : value);
      ++count;
    } while (accept(Tok::Comma));
  }
  if (!expect(Tok::RBracket, "',' or ']'")) return false;
  if (count != codec.table.size())
    return fail(open.loc, fmt::format("found a table of {} entries, expected 16", count), "codec.table");
  return true;
}

bool Parser::parseScale(Codec &codec) {
  if (isWord("f32"))
    codec.scale = ScaleType::F32;
  else if (isWord("bf16"))
    codec.scale = ScaleType::BF16;
  else if (isWord("e8m0"))
    codec.scale = ScaleType::E8M0;
  else
    return unexpected("'f32', 'bf16' or 'e8m0'", "codec.scale");
  take();
  if (!isWord("per")) return unexpected("'per'");
  take();
  Token size = peek();
  if (!expectInt(codec.block, 32, 4096, "a block size from 32 to 4096", "codec.block")) return false;
  if (codec.block & (codec.block - 1))
    return fail(size.loc,
                fmt::format("found block size {}, expected a power of two from 32 to 4096", codec.block),
                "codec.block");
  return true;
}

bool Parser::parseFn() {
  take();
  Fn fn;
  fn.loc = peek().loc;
  if (!expectName(fn.name, "the name of the fn") || !expect(Tok::LParen, "'('")) return false;
  if (!is(Tok::RParen)) {
    do {
      std::string param;
      Token name = peek();
      if (!expectName(param, "a parameter")) return false;
      if (fn.params.size() >= maxDepth)
        return fail(name.loc, fmt::format("found more than {} parameters", maxDepth), "limit.params");
      for (const std::string &other : fn.params)
        if (other == param)
          return fail(name.loc, fmt::format("{} is already a parameter", quoted(param)), "name.duplicate");
      fn.params.push_back(std::move(param));
    } while (accept(Tok::Comma));
  }
  if (!expect(Tok::RParen, "',' or ')'") || !expect(Tok::LBrace, "'{'")) return false;
  inFn = true;
  std::unordered_set<std::string> names(fn.params.begin(), fn.params.end());
  while (!isWord("return")) {
    if (!is(Tok::Name)) return unexpected("a local 'name = ...' or 'return'");
    std::string let;
    Loc loc = peek().loc;
    if (!expectName(let, "a local") || !expect(Tok::Assign, "'='")) return false;
    if (!names.insert(let).second)
      return fail(loc, fmt::format("{} is already a parameter or local of this fn", quoted(let)),
                  "name.duplicate");
    Tree value = parseValue();
    if (!value) return false;
    fn.lets.emplace_back(std::move(let), std::move(value.expr));
  }
  take();
  Tree result = parseValue();
  if (!result || !expect(Tok::RBrace, "'}' after the returned value")) return false;
  inFn = false;
  fn.result = std::move(result.expr);
  if (!fnIndex.emplace(fn.name, static_cast<int>(program.fns.size())).second)
    return fail(fn.loc, fmt::format("fn {} is already declared", quoted(fn.name)), "name.duplicate");
  program.fns.push_back(std::move(fn));
  return true;
}

} // namespace quern::syntax
