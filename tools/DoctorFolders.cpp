// The cache's folder, and the environment variables that are set.
#include "runtime/cache/Folder.h"
#include "runtime/cache/Limit.h"
#include "runtime/cache/Room.h"
#include "runtime/config/Knobs.h"
#include "runtime/driver/Process.h"
#include "tools/CacheView.h"
#include "tools/Doctor.h"
#include <algorithm>
#include <fmt/format.h>
#include <sstream>
#include <sys/statvfs.h>

extern char **environ;

namespace quern::tools {
namespace {

/// "ext4": of the mount that holds `path` (proc(5), mountinfo; the last of the longest mount points counts).
std::string fileSystem(const std::string &path) {
  auto text = driver::readFile("/proc/self/mountinfo");
  if (!text) return "unknown";
  std::istringstream lines(*text);
  std::string line, best = "unknown";
  size_t longest = 0;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string word, mount, type;
    for (int i = 0; i < 5 && words >> word; ++i) mount = word;
    while (words >> word && word != "-") {
    }
    words >> type;
    bool holds = mount == "/" || path == mount || path.starts_with(mount + "/");
    if (holds && mount.size() >= longest) longest = mount.size(), best = type;
  }
  return best;
}

std::string reason(const std::string &source) {
  if (source == "QUERN_CACHE_DIR") return "QUERN_CACHE_DIR names it";
  if (source == "XDG_CACHE_HOME") return "in XDG_CACHE_HOME; QUERN_CACHE_DIR is not set";
  if (source == "HOME") return "the default, in HOME; QUERN_CACHE_DIR and XDG_CACHE_HOME are not set";
  return source;
}

} // namespace

Section lookAtCache() {
  Section section{"Cache", {}};
  cache::FolderChoice choice = cache::chooseFolder(cache::Places::fromEnvironment());
  if (!choice.folder) {
    section.add({Mark::Problem, "folder", "", "",
                 "nothing is kept on disk: each process compiles anew. " + choice.warning,
                 "set QUERN_CACHE_DIR to a folder of yours that nobody else can write"});
    return section;
  }
  const cache::Folder &folder = *choice.folder;
  bool asExpected = choice.warning.empty();
  section.add({asExpected ? Mark::Ok : Mark::Problem, "folder", folder.writable ? "writable" : "read-only",
               folder.path, asExpected ? reason(choice.source) : choice.warning,
               asExpected ? "" : "set QUERN_CACHE_DIR to a folder of yours that nobody else can write"});
  if (!folder.writable) section.findings.back().why += "; what is not in it is compiled anew in each process";
  uint64_t bytes = 0, limit = cache::limitFromEnvironment();
  int64_t entries = 0;
  for (auto &file : cache::listFiles(folder)) {
    bytes += file.bytes;
    entries += !file.name.empty();
  }
  section.add({Mark::Ok, "contents", fmt::format("{} entries, {}", entries, sizeText(bytes)), "",
               limit == UINT64_MAX ? "no limit (QUERN_CACHE_LIMIT)"
                                   : fmt::format("at most {}; the longest unused go first", sizeText(limit)),
               ""});
  struct statvfs space;
  if (statvfs(folder.path.c_str(), &space) == 0) {
    uint64_t free = uint64_t(space.f_bavail) * space.f_frsize;
    bool little = folder.writable && free < 64 << 20;
    section.add(
        {little ? Mark::Problem : Mark::Ok, "free space", sizeText(free), "",
         fmt::format("{}{}", fileSystem(folder.path), folder.network ? ", a network file system" : ""),
         little ? "free some space, or set QUERN_CACHE_DIR to another disk; kernels still work, uncached"
                : ""});
  }
  return section;
}

Section lookAtKnobs() {
  Section section{"Environment variables that are set", {}};
  for (const config::KnobInfo &knob : config::knobs())
    if (auto value = config::value(knob.knob))
      section.add({Mark::Ok, std::string(knob.name), *value, "", std::string(knob.help), ""});
  for (char **entry = environ; *entry; ++entry) {
    std::string_view text = *entry;
    std::string variable(text.substr(0, text.find('=')));
    auto known = [&](const config::KnobInfo &knob) { return knob.name == variable; };
    if (!variable.starts_with("QUERN_") || std::ranges::any_of(config::knobs(), known)) continue;
    section.add({Mark::Problem, variable,
                 std::string(text.substr(std::min(text.size(), variable.size() + 1))), "", "nothing reads it",
                 "docs/knobs.md lists the variables that there are"});
  }
  return section;
}

} // namespace quern::tools
