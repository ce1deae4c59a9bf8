// The cache as `quern cache` shows it: its folder, its entries as text, and the choice among them.
#pragma once
#include "runtime/cache/Listing.h"
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace quern::tools {

/// --folder of every command of `quern cache`.
struct CacheOptions {
  std::string folder;
  bool json = false;
  void add(CLI::App &command, bool withJson);
};

/// An error when QUERN_CACHE_DIR names a folder that cannot be used: who names one to fill or to clear means
/// that one.
Status checkNamedCache();

/// The folder that the user's kernels are kept in, or `options.folder`. Says on standard error when that is
/// not the expected one; an error when there is none, and for a command that `changes` it when
/// checkNamedCache finds one.
Expected<cache::Folder> openCache(const CacheOptions &options, bool changes = false);

/// --kind, --kernel, --match: which entries a command is about.
struct CacheFilter {
  std::vector<std::string> kinds;
  std::string kernel, match;
  void add(CLI::App &command);
  bool empty() const { return kinds.empty() && kernel.empty() && match.empty(); }
  /// Entries that cannot be read match only an empty filter.
  bool accepts(const cache::ListedEntry &entry) const;
};

/// listEntries() with a progress bar on a terminal. Without `content` only what a list needs is kept.
std::vector<cache::ListedEntry> readEntries(const cache::Folder &folder, bool json);

/// The value of the first field of this name, or "".
std::string_view fieldOf(const cache::Key &key, std::string_view name);
/// "gate_up K=2880 N=5760 bf16, sm_90a": what an entry is, in one line.
std::string summaryOf(const cache::ListedEntry &entry);
/// At most `width` characters, on one line.
std::string shortened(std::string_view text, size_t width);
/// "812 B", "41.2 KB", "1.5 GB": powers of 1024.
std::string sizeText(uint64_t bytes);
/// "just now", "5 min ago", "3 h ago", "12 days ago"; a time in the future is "in the future".
std::string ageText(int64_t modified, int64_t now);
/// "1 entry", "2 entries".
std::string countText(int64_t count, std::string_view one, std::string_view many);
nlohmann::ordered_json entryJson(const cache::ListedEntry &entry);

/// Asks on the terminal; false for anything but y or yes.
bool confirmed(const std::string &question);

} // namespace quern::tools
