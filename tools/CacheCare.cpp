// `quern cache verify` and `quern cache clear`.
#include "runtime/cache/Room.h"
#include "tools/CacheCommand.h"
#include "tools/CacheView.h"
#include "tools/Commands.h"
#include "tools/Load.h"
#include <cerrno>
#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>

namespace quern::tools {
using cache::EntryState;
using cache::ListedEntry;
using Json = nlohmann::ordered_json;
namespace {

struct VerifyOptions {
  CacheOptions cache;
  bool remove = false;
};

int verify(const VerifyOptions &options) {
  auto folder = openCache(options.cache);
  if (!folder) return report(folder.error());
  int64_t good = 0, removed = 0, temporary = 0, other = 0;
  uint64_t bytes = 0;
  std::vector<ListedEntry> bad;
  for (ListedEntry &entry : readEntries(*folder, options.cache.json)) {
    bytes += entry.size;
    if (entry.state == EntryState::Good)
      ++good;
    else
      bad.push_back(std::move(entry));
  }
  for (const cache::CacheFile &file : cache::listFiles(*folder)) {
    temporary += file.temporary;
    other += !file.temporary && file.name.empty();
  }
  Json list = Json::array();
  for (const ListedEntry &entry : bad) {
    bool gone = options.remove && cache::removeEntry(*folder, entry);
    removed += gone;
    list.push_back(entryJson(entry));
    list.back()["removed"] = gone;
    if (!options.cache.json)
      fmt::print("{}: {}, {}{}\n", entry.path, name(entry.state), entry.why,
                 gone             ? "; removed"
                 : options.remove ? "; cannot be removed"
                                  : "");
  }
  int exitCode = int64_t(bad.size()) > removed ? checkFailed : success;
  if (options.cache.json) {
    Json json = {{"folder", folder->path},  {"good", good}, {"bytes", bytes}, {"temporary", temporary},
                 {"other_versions", other}, {"bad", list}};
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
    return exitCode;
  }
  fmt::print("{} of {} are good, {}, in {}\n", good,
             countText(good + int64_t(bad.size()), "entry", "entries"), sizeText(bytes), folder->path);
  if (temporary)
    fmt::print("{} of writers at work, or killed: the next writer removes those of the dead\n",
               countText(temporary, "temporary file", "temporary files"));
  if (other) fmt::print("{} of another version of Quern, not checked\n", countText(other, "file", "files"));
  if (exitCode == checkFailed && !options.remove)
    fmt::print(
        "The others are never used: a kernel is compiled anew instead. `quern cache verify --remove` deletes "
        "them.\n");
  return exitCode;
}

struct ClearOptions {
  CacheOptions cache;
  CacheFilter filter;
  bool yes = false;
};

/// Entries and temporary files of every version, by their names. Other files are somebody else's, wherever
/// they lie.
std::vector<cache::CacheFile> ownFiles(const cache::Folder &folder) {
  std::vector<cache::CacheFile> files = cache::listFiles(folder);
  std::erase_if(files, [](const cache::CacheFile &file) {
    return !file.temporary && !cache::isEntryName(file.path.substr(file.path.rfind('/') + 1));
  });
  return files;
}

int clear(const ClearOptions &options) {
  auto folder = openCache(options.cache, true);
  if (!folder) return report(folder.error());
  bool all = options.filter.empty();
  std::vector<cache::CacheFile> files;
  std::vector<ListedEntry> entries;
  if (all) {
    files = ownFiles(*folder);
  } else {
    entries = readEntries(*folder, false);
    std::erase_if(entries, [&](const ListedEntry &entry) { return !options.filter.accepts(entry); });
  }
  int64_t count = int64_t(files.size() + entries.size());
  uint64_t bytes = 0;
  for (const cache::CacheFile &file : files) bytes += file.size;
  for (const ListedEntry &entry : entries) bytes += entry.size;
  if (!count) {
    fmt::print("Nothing to delete in {}\n", folder->path);
    return success;
  }
  std::string what = fmt::format(
      "{}, {}, from {}", all ? countText(count, "file", "files") : countText(count, "entry", "entries"),
      sizeText(bytes), folder->path);
  if (!options.yes) {
    if (!isatty(STDIN_FILENO))
      return report(Error::user(fmt::format("would delete {}; expected --yes", what), "cache clear"));
    if (!confirmed(fmt::format("Delete {}?", what))) {
      fmt::print("Nothing was deleted\n");
      return success;
    }
  }
  cache::ClearReport done;
  auto tally = [&](bool removed, uint64_t size) {
    ++(removed ? done.removed : done.failed);
    if (removed) done.bytes += size;
  };
  for (const cache::CacheFile &file : files)
    tally(cache::sys::unlinkAt(folder->file.get(), file.path.c_str()) == 0 || errno == ENOENT, file.size);
  for (const ListedEntry &entry : entries) tally(cache::removeEntry(*folder, entry), entry.size);
  fmt::print("Deleted {}, {}\n", countText(done.removed, "file", "files"), sizeText(done.bytes));
  if (!done.failed) return success;
  return report(Error::system(fmt::format("{} could not be deleted", countText(done.failed, "file", "files")),
                              folder->path));
}

} // namespace

void addCacheVerify(CLI::App &cache, int &exitCode) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App *command = cache.add_subcommand("verify", "reads every entry and checks its digest and key");
  options->cache.add(*command, true);
  command->add_flag("--remove", options->remove, "delete what is not good");
  command->footer(
      "Examples:\n"
      "  quern cache verify\n"
      "  quern cache verify --remove\n"
      "A launch checks the same for the entry that it reads, so a damaged entry costs a compilation, never "
      "a\n"
      "wrong result. Exit code: 0 all are good, or those that were not are removed; 1 damage; 2 an error.");
  command->callback([options, &exitCode] { exitCode = verify(*options); });
}

void addCacheClear(CLI::App &cache, int &exitCode) {
  auto options = std::make_shared<ClearOptions>();
  CLI::App *command = cache.add_subcommand("clear", "deletes entries, or all of them");
  options->cache.add(*command, false);
  options->filter.add(*command);
  command->add_flag("--yes", options->yes, "do not ask");
  command->footer("Examples:\n"
                  "  quern cache clear --kind gpu\n"
                  "  quern cache clear --yes\n"
                  "Deletes only files of the cache; whatever else lies in its folder stays. Running "
                  "processes keep what they\n"
                  "have loaded. Exit code: 0 success, 2 an error.");
  command->callback([options, &exitCode] { exitCode = clear(*options); });
}

} // namespace quern::tools
