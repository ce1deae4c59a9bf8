// The table of environment variables: complete, documented, and read as it says.
#include "runtime/config/Knobs.h"
#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <set>
#include <sstream>

namespace quern::config {
namespace {

std::string readFile(const std::string &path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(Knobs, TheTableIsSortedAndSaysEverything) {
  std::string_view previous;
  for (const KnobInfo &row : knobs()) {
    EXPECT_LT(previous, row.name) << "sorted by name, none twice";
    EXPECT_TRUE(row.name.starts_with("QUERN_")) << row.name;
    EXPECT_FALSE(row.values.empty() || row.otherwise.empty()) << row.name;
    EXPECT_TRUE(row.help.ends_with('.')) << row.name;
    for (auto text : {row.values, row.otherwise, row.help})
      EXPECT_EQ(text.find_first_of("|\n"), text.npos) << row.name << ": a cell of a Markdown table";
    EXPECT_EQ(&info(row.knob), &row);
    previous = row.name;
  }
  EXPECT_GE(knobs().size(), 17u);
}

TEST(Knobs, TheDocumentIsTheTable) {
  std::string path = QUERN_SOURCE_DIR "/docs/knobs.md", text = readFile(path);
  size_t begin = text.find("| variable |");
  ASSERT_NE(begin, text.npos) << path;
  size_t end = text.find("\n\n", begin);
  std::string table = text.substr(begin, end == text.npos ? end : end + 1 - begin);
  if (table != markdown() && std::getenv("QUERN_UPDATE_GOLDEN"))
    std::ofstream(path) << text.substr(0, begin) + markdown() +
                               (end == text.npos ? "" : text.substr(end + 1));
  EXPECT_EQ(table, markdown()) << "QUERN_UPDATE_GOLDEN=1 writes it anew";
}

TEST(Knobs, HelpNamesEachKnobWithItsDefault) {
  std::string help = helpText();
  for (const KnobInfo &row : knobs()) {
    EXPECT_NE(help.find("  " + std::string(row.name) + "\n"), help.npos) << row.name;
    EXPECT_NE(help.find(row.otherwise), help.npos) << row.name;
  }
}

/// A variable for the length of a test.
class Variable {
  std::string name;
  std::optional<std::string> before;

public:
  Variable(std::string_view n, const char *value) : name(n) {
    if (const char *old = std::getenv(name.c_str())) before = old;
    set(value);
  }
  void set(const char *value) { value ? setenv(name.c_str(), value, 1) : unsetenv(name.c_str()); }
  ~Variable() { set(before ? before->c_str() : nullptr); }
};

TEST(Knobs, EmptyIsUnset) {
  Variable ptxas("QUERN_PTXAS", "");
  EXPECT_FALSE(value(Knob::Ptxas));
  ptxas.set("x");
  EXPECT_EQ(value(Knob::Ptxas), "x");
  ptxas.set(nullptr);
  EXPECT_FALSE(value(Knob::Ptxas));
  Variable home("HOME", "");
  EXPECT_FALSE(systemVariable("HOME"));
  home.set("/h");
  EXPECT_EQ(systemVariable("HOME"), "/h");
}

TEST(KnobsDeathTest, EachIsReadAsOftenAsTheTableSays) {
  GTEST_FLAG_SET(death_test_style, "threadsafe"); // a fresh process: nothing has been read
  auto check = [] {
    for (const KnobInfo &row : knobs()) {
      setenv(std::string(row.name).c_str(), "1", 1);
      if (value(row.knob) != "1") std::exit(1);
      setenv(std::string(row.name).c_str(), "2", 1);
      if (value(row.knob) != (row.everyTime ? "2" : "1")) std::exit(2);
    }
    std::exit(0);
  };
  EXPECT_EXIT(check(), testing::ExitedWithCode(0), "");
}

} // namespace
} // namespace quern::config
