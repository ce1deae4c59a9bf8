// `quern cache ls` and `quern cache show`.
#include "runtime/cache/Digest.h"
#include "runtime/cache/Limit.h"
#include "tools/CacheCommand.h"
#include "tools/CacheView.h"
#include "tools/Commands.h"
#include "tools/Load.h"
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace quern::tools {
using cache::EntryState;
using cache::ListedEntry;
using Json = nlohmann::ordered_json;
namespace {

struct ListOptions {
  CacheOptions cache;
  CacheFilter filter;
  std::string sort = "used";
  bool reverse = false;
};

void sortEntries(std::vector<ListedEntry> &entries, const ListOptions &options) {
  auto by = [&](auto less) { std::ranges::stable_sort(entries, less); };
  by([](auto &a, auto &b) { return summaryOf(a) < summaryOf(b); });
  if (options.sort == "used") by([](auto &a, auto &b) { return a.modified > b.modified; });
  if (options.sort == "size") by([](auto &a, auto &b) { return a.size > b.size; });
  if (options.sort == "kind") by([](auto &a, auto &b) { return a.key.kind < b.key.kind; });
  if (options.sort == "hash") by([](auto &a, auto &b) { return a.name < b.name; });
  if (options.reverse) std::reverse(entries.begin(), entries.end());
}

/// Enough digits to name each entry, at least 8.
size_t hashDigits(std::vector<ListedEntry> entries) {
  std::sort(entries.begin(), entries.end(), [](auto &a, auto &b) { return a.name < b.name; });
  size_t digits = 8;
  for (size_t i = 1; i < entries.size(); ++i) {
    std::string a = entries[i - 1].hash(), b = entries[i].hash();
    size_t same = size_t(std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin());
    digits = std::max(digits, std::min<size_t>(same + 1, 32));
  }
  return digits;
}

size_t terminalWidth() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 60 ? size.ws_col : 120;
}

void printTable(const std::vector<ListedEntry> &shown, size_t digits) {
  int64_t now = std::time(nullptr);
  size_t kind = 4, size = 4, age = 8;
  for (const ListedEntry &entry : shown) {
    kind = std::max(kind, entry.key.kind.size());
    size = std::max(size, sizeText(entry.size).size());
    age = std::max(age, ageText(entry.modified, now).size());
  }
  size_t fixed = digits + kind + size + age + 8, width = terminalWidth();
  size_t what = width > fixed + 30 ? width - fixed : 30;
  auto row = [&](std::string_view a, std::string_view b, std::string_view c, std::string_view d,
                 std::string_view e) {
    fmt::print("{:<{}}  {:<{}}  {:>{}}  {:<{}}  {}\n", a, digits, b, kind, c, size, d, age,
               shortened(e, what));
  };
  row("HASH", "KIND", "SIZE", "LAST USE", "WHAT");
  for (const ListedEntry &entry : shown)
    row(entry.hash().substr(0, digits), entry.keyText.empty() ? "?" : entry.key.kind, sizeText(entry.size),
        ageText(entry.modified, now), summaryOf(entry));
}

int list(const ListOptions &options) {
  auto folder = openCache(options.cache);
  if (!folder) return report(folder.error());
  std::vector<ListedEntry> all = readEntries(*folder, options.cache.json), shown;
  uint64_t total = 0, bytes = 0, limit = cache::limitFromEnvironment();
  for (const ListedEntry &entry : all) {
    total += entry.size;
    if (!options.filter.accepts(entry)) continue;
    bytes += entry.size;
    shown.push_back(entry);
  }
  sortEntries(shown, options);
  if (options.cache.json) {
    Json json = {{"folder", folder->path}, {"writable", folder->writable},
                 {"limit", limit},         {"count", all.size()},
                 {"bytes", total},         {"entries", Json::array()}};
    for (const ListedEntry &entry : shown) json["entries"].push_back(entryJson(entry));
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
    return success;
  }
  if (all.empty()) {
    fmt::print("The cache {} is empty. Kernels enter it when they are first used, or ahead of time by `quern "
               "warmup`.\n",
               folder->path);
    return success;
  }
  if (!shown.empty()) printTable(shown, hashDigits(all));
  if (!options.filter.empty())
    fmt::print("{}, {}, of ", countText(int64_t(shown.size()), "entry", "entries"), sizeText(bytes));
  fmt::print("{}, {} of at most {}, in {}{}\n", countText(int64_t(all.size()), "entry", "entries"),
             sizeText(total), sizeText(limit), folder->path, folder->writable ? "" : " (read-only)");
  auto bad = std::count_if(all.begin(), all.end(), [](auto &e) { return e.state != EntryState::Good; });
  if (bad)
    fmt::print("{} cannot be used and will be made anew: `quern cache verify` says why.\n",
               countText(bad, "entry", "entries"));
  return success;
}

struct ShowOptions {
  CacheOptions cache;
  std::string hash, section, output;
};

Expected<ListedEntry> pickEntry(const cache::Folder &folder, const std::string &prefix) {
  std::vector<ListedEntry> found;
  for (ListedEntry &entry : cache::listNames(folder))
    if (entry.name.starts_with(prefix)) found.push_back(std::move(entry));
  if (found.empty())
    return Error::user("found no entry whose hash starts so; `quern cache ls` lists them", prefix);
  if (found.size() > 1) {
    Error error = Error::user(fmt::format("{} entries start so, expected more digits", found.size()), prefix);
    for (size_t i = 0; i < std::min<size_t>(found.size(), 10); ++i) {
      cache::readEntry(folder, found[i]);
      error.detail +=
          fmt::format("{}{}  {}", i ? "\n" : "", found[i].hash(), shortened(summaryOf(found[i]), 80));
    }
    return error;
  }
  if (!cache::readEntry(folder, found[0])) return Error::user("the entry is gone", found[0].hash());
  return std::move(found[0]);
}

int writeSection(const ListedEntry &entry, const ShowOptions &options) {
  const std::string *bytes = entry.content.find(options.section);
  if (!bytes) {
    std::vector<std::string> names;
    for (const cache::Section &section : entry.content.sections) names.push_back(section.name);
    return report(Error::user(fmt::format("has no section '{}'; it has {}", options.section,
                                          names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))),
                              entry.hash()));
  }
  bool binary = bytes->find('\0') != std::string::npos;
  if (options.output.empty() && binary && isatty(STDOUT_FILENO))
    return report(Error::user("is not text, expected --output with a file for it", options.section));
  FILE *file = options.output.empty() ? stdout : std::fopen(options.output.c_str(), "wb");
  bool written = file && std::fwrite(bytes->data(), 1, bytes->size(), file) == bytes->size();
  if (file && (file == stdout ? std::fflush(file) : std::fclose(file)) != 0) written = false;
  return written ? success : report(Error::system("cannot be written", options.output));
}

/// Values of several lines stand below their name.
void printField(const std::string &name, std::string_view value, size_t width) {
  if (value.find('\n') == std::string_view::npos) {
    fmt::print("  {:<{}}  {}\n", name, width, value.empty() ? "(empty)" : value);
    return;
  }
  fmt::print("  {}\n", name);
  while (!value.empty()) {
    size_t end = std::min(value.find('\n'), value.size());
    fmt::print("    {}\n", value.substr(0, end));
    value.remove_prefix(std::min(end + 1, value.size()));
  }
}

void printEntry(const cache::Folder &folder, const ListedEntry &entry) {
  fmt::print("{}  {}, {}\n", entry.hash(), entry.keyText.empty() ? "?" : entry.key.kind, name(entry.state));
  if (!entry.why.empty()) fmt::print("  {}\n", entry.why);
  fmt::print("file      {}/{}\nsize      {} ({} bytes)\nlast use  {:%Y-%m-%d %H:%M} UTC, {}\n", folder.path,
             entry.path, sizeText(entry.size), entry.size, fmt::gmtime(std::time_t(entry.modified)),
             ageText(entry.modified, std::time(nullptr)));
  if (!entry.keyText.empty()) fmt::print("key\n");
  size_t width = 0;
  for (const cache::Key::Field &field : entry.key.fields) width = std::max(width, field.name.size());
  for (const cache::Key::Field &field : entry.key.fields) printField(field.name, field.value, width);
  if (!entry.content.sections.empty()) fmt::print("sections\n");
  for (const cache::Section &section : entry.content.sections)
    fmt::print("  {:<{}}  {:>10}  XXH3 {}\n", section.name, width, sizeText(section.bytes.size()),
               cache::hex(cache::digest(section.bytes)));
}

int show(const ShowOptions &options) {
  auto folder = openCache(options.cache);
  if (!folder) return report(folder.error());
  auto entry = pickEntry(*folder, options.hash);
  if (!entry) return report(entry.error());
  if (!options.section.empty()) return writeSection(*entry, options);
  if (!options.cache.json) {
    printEntry(*folder, *entry);
    return success;
  }
  Json json = entryJson(*entry);
  json["sections"] = Json::array();
  for (const cache::Section &section : entry->content.sections)
    json["sections"].push_back({{"name", section.name},
                                {"size", section.bytes.size()},
                                {"xxh3", cache::hex(cache::digest(section.bytes))}});
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  return success;
}

} // namespace

void addCacheList(CLI::App &cache, int &exitCode) {
  auto options = std::make_shared<ListOptions>();
  CLI::App *command = cache.add_subcommand("ls", "lists the entries");
  options->cache.add(*command, true);
  options->filter.add(*command);
  command->add_option("--sort", options->sort, "by last use, size, kind, hash or what it is")
      ->check(CLI::IsMember({"used", "size", "kind", "hash", "what"}))
      ->capture_default_str();
  command->add_flag("--reverse", options->reverse, "the other way round");
  command->footer("Examples:\n"
                  "  quern cache ls --sort size\n"
                  "  quern cache ls --kind tuning --kernel gate_up --json\n"
                  "Exit code: 0 success, 2 there is no usable cache.");
  command->callback([options, &exitCode] { exitCode = list(*options); });
}

void addCacheShow(CLI::App &cache, int &exitCode) {
  auto options = std::make_shared<ShowOptions>();
  CLI::App *command = cache.add_subcommand("show", "shows one entry: its key, sections and sizes");
  command->add_option("HASH", options->hash, "the entry's hash, or as much of its start as is unique")
      ->required();
  options->cache.add(*command, true);
  command->add_option("--section", options->section,
                      "write the bytes of this section instead: ptx, cubin, ...");
  command->add_option("-o,--output", options->output,
                      "with --section: to this file instead of standard output");
  command->footer("Examples:\n"
                  "  quern cache show 3fa2\n"
                  "  quern cache show 3fa2c01d --section ptx -o kernel.ptx\n"
                  "Exit code: 0 success, 2 no such entry, or several.");
  command->callback([options, &exitCode] { exitCode = show(*options); });
}

} // namespace quern::tools
