// Every rule of LANGUAGE.md has a negative test that pins the exact text: tests/error/RULE[-CASE].qn with its
// message in RULE[-CASE].txt, and the few below whose input is made here. The labels of the manual, the
// sources and the tests agree.
#include "syntax_support.h"
#include <algorithm>
#include <filesystem>
#include <gmock/gmock.h>
#include <regex>
#include <set>

namespace quern::syntax::test {
namespace {

std::vector<std::string> errorCases() {
  std::vector<std::string> names;
  for (const auto &entry : std::filesystem::directory_iterator(sourcePath("tests/error")))
    if (entry.path().extension() == ".qn") names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

std::string ruleOfCase(const std::string &name) { return name.substr(0, name.find('-')); }

class ErrorText : public testing::TestWithParam<std::string> {};

TEST_P(ErrorText, IsExact) {
  const std::string name = GetParam();
  auto program = parseProgram(readFile(sourcePath("tests/error/" + name + ".qn")), name + ".qn");
  ASSERT_FALSE(program) << "parsed without an error";
  EXPECT_EQ(program.error().str() + "\n", readFile(sourcePath("tests/error/" + name + ".txt")));
  EXPECT_EQ(program.error().rule, ruleOfCase(name));
  EXPECT_EQ(program.error().kind, ErrorKind::User);
}

INSTANTIATE_TEST_SUITE_P(Files, ErrorText, testing::ValuesIn(errorCases()), [](const auto &info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

/// Cases whose text is too long for a file, or that need files to use.
struct MadeCase {
  std::string text, expected;
};

std::string repeat(const std::string &part, int count, const std::string &separator = "") {
  std::string out;
  for (int i = 0; i < count; ++i)
    out += (i > 0 ? separator : "") + part + (separator.empty() ? "" : std::to_string(i));
  return out;
}

std::vector<MadeCase> madeCases() {
  std::string tensors;
  for (int i = 0; i < 257; ++i) tensors += (i > 0 ? ",\n" : "") + ("x" + std::to_string(i)) + ": f32[T, N]";
  std::string kernels;
  for (int i = 0; i < 257; ++i)
    kernels += "kernel k" + std::to_string(i) + "(x: f32[T, N]) -> y: f32[T, N] { y[t, n] = x[t, n] }\n";
  return {
      {"#" + std::string(1 << 20, '.'),
       "test.qn:1:1: found a file of 1048577 bytes, expected at most 1048576 [text.size]\n  1 | #" +
           std::string(95, '.') + "...\n    | ^"},
      {kernels, "test.qn:257:8: found more than 256 kernels in one file [limit.kernels]\n"
                "  257 | kernel k256(x: f32[T, N]) -> y: f32[T, N] { y[t, n] = x[t, n] }\n      |        ^"},
      {"kernel f(" + tensors + ") -> y: f32[T, N] { y[t, n] = x0[t, n] }",
       "test.qn:257:1: found more than 256 parameters [limit.params]\n"
       "  257 | x256: f32[T, N]) -> y: f32[T, N] { y[t, n] = x0[t, n] }\n      | ^"},
      {"fn f(\n" + repeat("a", 257, ",\n") + ") { return a0 }",
       "test.qn:258:1: found more than 256 parameters [limit.params]\n  258 | a256) { return a0 }\n      | "
       "^"},
      {"use nests",
       "nests.qn:1:1: found 'use' in a file that is itself used, expected declarations only [use.nested]\n"
       "  1 | use nf4\n    | ^"},
      {"use bare", "test.qn:1:5: 'bare.qn' declares no codec, and codecs are what 'use' brings in "
                   "[use.empty]\n  1 | use bare\n    |     ^"},
      {"use broken",
       "broken.qn:1:9: found the end of the file, expected something to close this '{' [bracket.match]\n"
       "  1 | codec c {\n    |         ^"},
  };
}

std::optional<std::string> filesToUse(std::string_view name) {
  if (name == "nests") return "use nf4\n";
  if (name == "bare") return "fn f(a) { return a }\n";
  if (name == "broken") return "codec c {\n";
  return std::nullopt;
}

TEST(SyntaxErrors, MadeCasesAreExact) {
  for (const MadeCase &made : madeCases()) {
    auto program = parseProgram(made.text, "test.qn", filesToUse);
    ASSERT_FALSE(program) << made.expected;
    EXPECT_EQ(program.error().str(), made.expected);
  }
}

std::set<std::string> matches(const std::string &text, const std::regex &pattern) {
  std::set<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it)
    found.insert((*it)[1]);
  return found;
}

std::set<std::string> manualRules() {
  return matches(readFile(sourcePath("compiler/LANGUAGE.md")),
                 std::regex("\n\\* [0-9.]+ \\*\\*([a-z0-9.]+)\\*\\*"));
}

TEST(SyntaxErrors, EveryRuleOfTheManualHasANegativeTestAndTheReverse) {
  std::set<std::string> tested;
  for (const std::string &name : errorCases()) tested.insert(ruleOfCase(name));
  for (const MadeCase &made : madeCases())
    for (const std::string &rule : matches(made.expected, std::regex("\\[([a-z]+\\.[a-z0-9]+)\\]\n")))
      tested.insert(rule);
  EXPECT_GT(tested.size(), 60u);
  EXPECT_THAT(tested, testing::ContainerEq(manualRules()));
}

TEST(SyntaxErrors, EveryRuleOfTheSourcesIsInTheManual) {
  std::set<std::string> used = {"syntax"}; // the default of Parser::unexpected
  for (const auto &entry : std::filesystem::directory_iterator(sourcePath("compiler/syntax")))
    if (entry.path().extension() == ".cpp")
      used.merge(matches(readFile(entry.path()), std::regex("\"([a-z]+\\.[a-z0-9]+)\"")));
  EXPECT_THAT(used, testing::ContainerEq(manualRules()));
}

TEST(SyntaxErrors, RulesAreNumberedInOrder) {
  std::string manual = readFile(sourcePath("compiler/LANGUAGE.md"));
  std::regex pattern("\n(?:### ([0-9]+)\\. |\\* ([0-9]+)\\.([0-9]+) \\*\\*)");
  int section = 0, rule = 0;
  for (std::sregex_iterator it(manual.begin(), manual.end(), pattern), end; it != end; ++it) {
    if ((*it)[1].matched) {
      EXPECT_EQ(std::stoi((*it)[1]), ++section);
      rule = 0;
    } else {
      EXPECT_EQ(std::stoi((*it)[2]), section);
      EXPECT_EQ(std::stoi((*it)[3]), ++rule) << "in section " << section;
    }
  }
  EXPECT_EQ(section, 10);
}

TEST(SyntaxErrors, CaretStandsBelowTabsAndMultibyteText) {
  auto program = parseProgram("fn f(a) {\r\n\treturn\ta @ 2 # \xC3\xA9\r\n}\r\n", "crlf.qn");
  ASSERT_FALSE(program);
  EXPECT_EQ(program.error().str(),
            "crlf.qn:2:11: found '@', which has no meaning outside comments [text.char]\n"
            "  2 | \treturn\ta @ 2 # \xC3\xA9\n"
            "    | \t      \t  ^");
  // The caret counts characters, the column bytes.
  program = parseProgram("fn f(a) { return a # \xC3\xA9\xC3\xA9\xE2\x82\xAC \xF0\x9F\x98\x80 \x80 }", "x.qn");
  ASSERT_FALSE(program);
  EXPECT_EQ(program.error().place, "x.qn:1:35");
  EXPECT_EQ(program.error().detail,
            "  1 | fn f(a) { return a # \xC3\xA9\xC3\xA9\xE2\x82\xAC \xF0\x9F\x98\x80 ? }\n"
            "    |                            ^");
}

TEST(SyntaxErrors, LongLinesAreCutBetweenCharacters) {
  std::string euros;
  for (int i = 0; i < 100; ++i) euros += "\xE2\x82\xAC";
  for (int shift = 0; shift < 3; ++shift) {
    auto program =
        parseProgram("fn f(a) { return a } # " + euros + std::string(shift, '.') + "\xFF" + euros, "x.qn");
    ASSERT_FALSE(program);
    const std::string &detail = program.error().detail;
    size_t line = detail.find("| ...") + 5, cut = detail.find("...\n", line);
    ASSERT_NE(cut, std::string::npos) << detail;
    EXPECT_EQ(detail.find('?'), detail.rfind('?')) << detail; // a character cut in two would show as '?'
  }
}

TEST(SyntaxErrors, TheFirstErrorOfTheFileIsReported) {
  EXPECT_EQ(ruleOf("fn f(a) { return a +* 2 }\n\nfn g(a) { return @ }"), "syntax");
  EXPECT_EQ(ruleOf("fn f(a) { return (a + 2 }\n\nfn g(a) { return @ }"), "bracket.match");
}

} // namespace
} // namespace quern::syntax::test
