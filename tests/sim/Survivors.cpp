// See Survivors.h.
#include "tests/sim/Survivors.h"
#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace quern::simtest {

static std::string trimmed(const std::string &text) {
  size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

std::vector<Survivor> readSurvivors(const std::string &path) {
  std::vector<Survivor> all;
  std::ifstream file(path);
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line = trimmed(line);
    if (line.empty() || line.starts_with("#")) continue;
    size_t first = line.find(" | "), second = line.find(" | ", first + 3); // patterns use [|] for a bar
    std::string kind = line.substr(0, first);
    bool known = kind == "equivalent" || kind == "registers" || kind == "performance" || kind == "unseen";
    if (first == std::string::npos || second == std::string::npos || !known) {
      std::fprintf(stderr, "%s:%d: expected 'equivalent|registers|performance|unseen | pattern | reason'\n",
                   path.c_str(), number);
      std::abort();
    }
    all.push_back({kind, trimmed(line.substr(second + 3)),
                   std::regex(trimmed(line.substr(first + 3, second - first - 3)))});
  }
  return all;
}

const Survivor *explain(const std::vector<Survivor> &survivors, const std::string &description) {
  for (const Survivor &s : survivors)
    if (std::regex_match(description, s.pattern)) return &s;
  return nullptr;
}

} // namespace quern::simtest
