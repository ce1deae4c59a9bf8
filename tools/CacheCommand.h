// The subcommands of `quern cache`, a file or two commands each.
#pragma once
#include <CLI/CLI.hpp>

namespace quern::tools {

void addCacheList(CLI::App &cache, int &exitCode);
void addCacheShow(CLI::App &cache, int &exitCode);
void addCacheExplain(CLI::App &cache, int &exitCode);
void addCacheVerify(CLI::App &cache, int &exitCode);
void addCacheClear(CLI::App &cache, int &exitCode);
void addCacheExport(CLI::App &cache, int &exitCode);
void addCacheImport(CLI::App &cache, int &exitCode);

} // namespace quern::tools
