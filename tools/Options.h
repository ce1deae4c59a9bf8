// Options that several subcommands share, and their checked values.
#pragma once
#include "runtime/oracle/Generate.h"
#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

namespace quern::tools {

/// What describes a call without its data.
struct CallOptions {
  std::string file, kernel;
  std::vector<std::string> dims; // "T=64"
  std::string act = "bf16", quant = "bf16", layout = "cpu", routing = "uniform", features;
  int64_t block = 0;
  uint64_t seed = 0;
  bool exact = false;

  void addFile(CLI::App &command);
  /// --dim, --dtype, --block, --quant-dtype, --layout, --features
  void addShape(CLI::App &command);
  /// --routing, --seed, --exact
  void addData(CLI::App &command);
  /// Sets QUERN_CPU_FEATURES from --features.
  Expected<oracle::GenerateOptions> resolve() const;
};

} // namespace quern::tools
