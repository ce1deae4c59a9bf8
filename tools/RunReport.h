// What `quern run` found, as a table for people and as JSON for scripts.
#pragma once
#include "runtime/oracle/Compare.h"
#include <map>
#include <string>
#include <vector>

namespace quern::tools {

struct RunReport {
  std::string file, kernel, target, act, data; // data: operands and routing in words
  std::map<std::string, int64_t> dims;
  std::vector<std::string> chosen;
  std::string routing;
  uint64_t seed = 0;
  int64_t liveRows = 0, usedExperts = 0; // usedExperts: -1 without routing
  int threads = 1;
  std::string threadLibrary;
  std::string device, schedule, statistics; // targets sim and cuda; statistics: the simulator's
  double firstMs = 0, compileMs = 0;        // the first call, and its compilation
  std::vector<double> timesMs;              // later calls
  double operations = 0;                    // of one call: 2 per multiply-add of each contraction
  bool checked = false;
  double oracleMs = 0;
  std::vector<oracle::Comparison> comparisons;
  std::vector<std::pair<std::string, double>> norms; // target interp: output and its L2 norm

  bool pass() const;
  double medianMs() const; // of timesMs, or the first call when there is no other
  void printTable() const;
  void printJson() const;
};

} // namespace quern::tools
