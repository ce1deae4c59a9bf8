// The subcommands of `quern`. Each registers its options; its callback sets the exit code: 0 success, 1 a
// check failed, 2 an error.
#pragma once
#include <CLI/CLI.hpp>

namespace quern::tools {

constexpr int success = 0, checkFailed = 1, failure = 2;

void addRun(CLI::App &app, int &exitCode);
void addRunBatch(CLI::App &app, int &exitCode);
void addCompile(CLI::App &app, int &exitCode);
void addExplain(CLI::App &app, int &exitCode);
void addCache(CLI::App &app, int &exitCode);
void addWarmup(CLI::App &app, int &exitCode);
void addBench(CLI::App &app, int &exitCode);
void addTune(CLI::App &app, int &exitCode);
void addTuneWorker(CLI::App &app, int &exitCode);
void addCheck(CLI::App &app, int &exitCode);
void addList(CLI::App &app, int &exitCode);
void addDoctor(CLI::App &app, int &exitCode);

} // namespace quern::tools
