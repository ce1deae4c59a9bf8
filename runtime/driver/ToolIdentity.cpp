// See ToolIdentity.h.
#include "runtime/driver/ToolIdentity.h"
#include "runtime/cache/Digest.h"
#include "runtime/driver/Ptxas.h"
#include <charconv>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <mutex>
#include <sys/stat.h>
#include <unistd.h>

namespace quern::driver {
namespace {

constexpr ToolRelease oldestPtxas{12, 3}; // the first that reads PTX 8.3, which the generator writes
constexpr int slots = 4;

std::string readPrint(const std::string &path) {
  constexpr uint64_t page = 4096, samples = 16;
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  struct stat file;
  uint64_t size = fstat(fd, &file) == 0 ? uint64_t(file.st_size) : 0;
  std::string bytes = fmt::format("{} ", size);
  bool good = true;
  for (uint64_t i = 0; i < samples && good; ++i) {
    uint64_t last = size > page ? size - page : 0, offset = last / (samples - 1) * i;
    if (i + 1 == samples) offset = last;
    char buffer[page];
    ssize_t n = pread(fd, buffer, page, off_t(offset));
    good = n >= 0;
    if (good) bytes.append(buffer, size_t(n));
  }
  close(fd);
  return good ? cache::hex(cache::digest(bytes)) : "";
}

/// Answers of this process.
class Memo {
  std::mutex mutex;
  std::map<std::string, std::string> known;

public:
  template <class Ask> std::string get(const std::string &key, Ask ask) {
    {
      std::lock_guard lock(mutex);
      if (auto at = known.find(key); at != known.end()) return at->second;
    }
    std::string value = ask();
    std::lock_guard lock(mutex);
    if (!value.empty()) known[key] = value;
    return value;
  }
};

cache::Key slotKey(const cache::Key &withoutTool, int slot) {
  cache::Key key = withoutTool;
  key.kind = "made-by";
  key.add("entry", withoutTool.kind);
  key.add("slot", std::to_string(slot));
  return key;
}

} // namespace

std::string fileState(const std::string &path) {
  struct stat file;
  if (stat(path.c_str(), &file) != 0 || !S_ISREG(file.st_mode)) return "";
  return fmt::format("{}|{}|{}|{}|{}.{}", path, file.st_dev, file.st_ino, file.st_size, file.st_mtim.tv_sec,
                     file.st_mtim.tv_nsec);
}

std::string fingerprint(const std::string &path) {
  std::string state = fileState(path);
  if (state.empty()) return "";
  static auto &memo = *new Memo;
  return memo.get(state, [&] { return readPrint(path); });
}

std::string askOnce(const std::string &tool, const std::string &path,
                    const std::function<std::string()> &ask) {
  std::string print = fingerprint(path);
  if (print.empty()) return ask();
  static auto &memo = *new Memo;
  return memo.get(tool + print, [&]() -> std::string {
    cache::Key key{"tool", {}};
    key.add("tool", tool);
    key.add("content", print);
    auto &store = cache::Store::user();
    if (auto kept = store.find(key))
      if (const std::string *answer = kept->find("answer"); answer && !answer->empty()) return *answer;
    std::string answer = ask();
    if (!answer.empty()) store.publish(key, {{{"answer", answer}}});
    return answer;
  });
}

ToolRelease releaseOf(const std::string &version) {
  ToolRelease release;
  const char *end = version.data() + version.size();
  auto first = std::from_chars(version.data(), end, release.major);
  if (first.ec == std::errc() && first.ptr < end && *first.ptr == '.')
    std::from_chars(first.ptr + 1, end, release.minor);
  return release;
}

std::string ptxasVersion(const std::string &path) {
  std::string version = askOnce("ptxas", path, [&] {
    auto told = toolVersion(path);
    return told ? *told : std::string();
  });
  return version.empty() ? "content " + fingerprint(path) : version;
}

std::string ptxasInUse() {
  auto tools = findPtxas();
  if (tools.empty()) return "none";
  if (tools.size() > 1)
    for (const Found &tool : tools)
      if (std::string version = ptxasVersion(tool.path); releaseOf(version) >= oldestPtxas) return version;
  return ptxasVersion(tools[0].path);
}

void rememberTool(cache::Store &store, const cache::Key &withoutTool, const std::string &version) {
  for (int slot = 0; slot < slots; ++slot) {
    cache::Key key = slotKey(withoutTool, slot);
    auto kept = store.find(key);
    if (!kept) {
      store.publish(key, {{{"version", version}}});
      return;
    }
    if (const std::string *theirs = kept->find("version"); theirs && *theirs == version) return;
  }
}

std::string newestTool(cache::Store &store, const cache::Key &withoutTool, int mostMajor) {
  std::string newest;
  for (int slot = 0; slot < slots; ++slot) {
    auto kept = store.find(slotKey(withoutTool, slot));
    const std::string *version = kept ? kept->find("version") : nullptr;
    if (!version || (mostMajor && releaseOf(*version).major > mostMajor)) continue;
    // Numbers first; equal releases by their text, which is the same choice on every machine.
    if (newest.empty() || std::pair(releaseOf(*version), *version) > std::pair(releaseOf(newest), newest))
      newest = *version;
  }
  return newest;
}

} // namespace quern::driver
