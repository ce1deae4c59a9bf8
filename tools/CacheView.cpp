// See CacheView.h.
#include "tools/CacheView.h"
#include "runtime/config/Knobs.h"
#include "tools/Progress.h"
#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <iostream>
#include <unistd.h>

namespace quern::tools {
using cache::EntryState;
using cache::ListedEntry;

void CacheOptions::add(CLI::App &command, bool withJson) {
  command.add_option("--folder", folder, "the cache's folder (default: the one that kernels are kept in)");
  if (withJson) command.add_flag("--json", json, "machine-readable output");
}

Status checkNamedCache() {
  cache::Places places = cache::Places::fromEnvironment();
  if (!places.cacheDir) return {};
  auto named = cache::openFolder(*places.cacheDir, true);
  return named ? Status() : Status(named.takeError());
}

Expected<cache::Folder> openCache(const CacheOptions &options, bool changes) {
  if (!options.folder.empty()) {
    auto folder = cache::openFolder(options.folder, false);
    if (!folder) return folder.takeError();
    // What the store of `import` and `export` opens; nothing has read the knob yet.
    setenv(std::string(config::info(config::Knob::CacheDir).name).c_str(), folder->path.c_str(), 1);
    return folder;
  }
  if (changes)
    if (Status named = checkNamedCache(); !named) return named.takeError();
  cache::FolderChoice choice = cache::chooseFolder(cache::Places::fromEnvironment());
  if (!choice.folder) return Error::system("there is no folder for it: " + choice.warning, "cache");
  if (!choice.warning.empty()) fmt::print(stderr, "{}\n", choice.warning);
  return std::move(*choice.folder);
}

void CacheFilter::add(CLI::App &command) {
  command
      .add_option(
          "--kind", kinds,
          "only entries of this kind: cpu, gpu (images), device (Quern's own device code), tuning, ...")
      ->delimiter(',');
  command.add_option("--kernel", kernel, "only entries of this kernel");
  command.add_option("--match", match, "only entries whose key has this text, e.g. 'N=5760' or sm_90a");
}

bool CacheFilter::accepts(const ListedEntry &entry) const {
  if (empty()) return true;
  if (entry.keyText.empty()) return false;
  return (kinds.empty() || std::find(kinds.begin(), kinds.end(), entry.key.kind) != kinds.end()) &&
         (kernel.empty() || fieldOf(entry.key, "kernel") == kernel) &&
         (match.empty() || entry.keyText.find(match) != std::string::npos);
}

std::vector<ListedEntry> readEntries(const cache::Folder &folder, bool json) {
  std::vector<ListedEntry> names = cache::listNames(folder), entries;
  Progress progress(int64_t(names.size()), json || !isatty(STDERR_FILENO) || names.size() < 100);
  for (ListedEntry &entry : names) {
    if (cache::readEntry(folder, entry)) {
      entry.content = {};
      entries.push_back(std::move(entry));
    }
    progress.finish("reading", "");
  }
  return entries;
}

std::string_view fieldOf(const cache::Key &key, std::string_view name) {
  for (const cache::Key::Field &field : key.fields)
    if (field.name == name) return field.value;
  return {};
}

std::string summaryOf(const ListedEntry &entry) {
  if (entry.keyText.empty()) return fmt::format("{}: {}", name(entry.state), entry.why);
  const cache::Key &key = entry.key;
  std::string text;
  auto part = [&](std::string_view before, std::string_view value) {
    if (!value.empty()) text += fmt::format("{}{}", text.empty() ? "" : before, value);
  };
  if (std::string_view kernel = fieldOf(key, "kernel"); !kernel.empty()) {
    part("", kernel);
    for (const char *field : {"dims", "act"}) part(" ", fieldOf(key, field));
    if (key.kind == "tuning") {
      part(", rows per expert ", fieldOf(key, "bucket"));
      part(", on ", fieldOf(key, "device"));
    } else {
      if (std::string_view target = fieldOf(key, "target"); target != key.kind) part(", ", target);
      part(", ", fieldOf(key, "schedule"));
    }
  } else {
    for (const cache::Key::Field &field : key.fields)
      if (field.value.size() < 100) part(", ", fmt::format("{} {}", field.name, field.value));
  }
  if (entry.state != EntryState::Good) text = fmt::format("{}: {}; {}", name(entry.state), entry.why, text);
  return text;
}

std::string shortened(std::string_view text, size_t width) {
  std::string line(text.substr(0, width));
  std::replace_if(line.begin(), line.end(), [](unsigned char c) { return c < ' '; }, ' ');
  if (text.size() > width && width > 3) line.replace(width - 3, 3, "...");
  return line;
}

std::string sizeText(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = double(bytes);
  const char *unit = "";
  for (const char *next : {"KB", "MB", "GB", "TB"}) {
    if (value < 1023.95) break;
    value /= 1024, unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

std::string ageText(int64_t modified, int64_t now) {
  int64_t seconds = now - modified;
  if (seconds < -3600) return "in the future";
  if (seconds < 60) return "just now";
  if (seconds < 3600) return fmt::format("{} min ago", seconds / 60);
  if (seconds < 2 * 86400) return fmt::format("{} h ago", seconds / 3600);
  return fmt::format("{} days ago", seconds / 86400);
}

std::string countText(int64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

nlohmann::ordered_json entryJson(const ListedEntry &entry) {
  nlohmann::ordered_json json = {{"hash", entry.hash()},       {"kind", entry.key.kind},
                                 {"what", summaryOf(entry)},   {"size", entry.size},
                                 {"last_use", entry.modified}, {"file", entry.path},
                                 {"state", name(entry.state)}};
  if (!entry.why.empty()) json["why"] = entry.why;
  for (const cache::Key::Field &field : entry.key.fields) json["key"][field.name] = field.value;
  return json;
}

bool confirmed(const std::string &question) {
  fmt::print(stderr, "{} [y/N] ", question);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

} // namespace quern::tools
