// Why some mutants cannot be noticed: survivors.txt, read and matched.
#pragma once
#include <regex>
#include <string>
#include <vector>

namespace quern::simtest {

struct Survivor {
  std::string kind;   // "equivalent", "registers", "performance" or "unseen"
  std::string reason; // for people
  std::regex pattern; // of "<family>: <the mutant's whole description>"
};

/// Lines "kind | pattern | reason"; others are comments (#) or empty. A line of another form ends the process
/// with its number.
std::vector<Survivor> readSurvivors(const std::string &path);
/// The first that matches, or null.
const Survivor *explain(const std::vector<Survivor> &survivors, const std::string &description);

} // namespace quern::simtest
