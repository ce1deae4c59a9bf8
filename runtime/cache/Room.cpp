// Listing, sweep and eviction.
#include "runtime/cache/Room.h"
#include "runtime/cache/Entry.h"
#include <algorithm>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <memory>
#include <unistd.h>

namespace quern::cache {
namespace {

/// "v1", "v2", ...
bool isGeneration(std::string_view name) {
  return name.size() > 1 && name[0] == 'v' && name.find_first_not_of("0123456789", 1) == name.npos;
}

/// Calls `each` with the names in a folder below `parent`, in no order.
template <class Each> void forNames(int parent, const char *name, Each each) {
  sys::File opened = sys::openAt(parent, name, O_RDONLY | O_DIRECTORY);
  if (!opened) return;
  int file = opened.release();
  std::unique_ptr<DIR, int (*)(DIR *)> listing(fdopendir(file), closedir);
  if (!listing) {
    ::close(file);
    return;
  }
  while (const dirent *entry = readdir(listing.get()))
    if (std::string_view found = entry->d_name; found != "." && found != "..") each(file, entry->d_name);
}

void listShard(int generation, const std::string &path, const char *shard, std::vector<CacheFile> &files) {
  std::string own = fmt::format("v{}", schemaVersion);
  forNames(generation, shard, [&](int folder, const char *name) {
    struct stat status;
    if (sys::statAt(folder, name, status) != 0 || !S_ISREG(status.st_mode)) return;
    CacheFile file;
    file.path = fmt::format("{}/{}/{}", path, shard, name);
    file.size = uint64_t(status.st_size);
    file.bytes = onDisk(file.size);
    file.modified = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec;
    std::string_view text = name;
    file.temporary = text.starts_with(".tmp-");
    if (path == own && isEntryName(text) && text.substr(0, 2) == shard) file.name = text;
    files.push_back(std::move(file));
  });
}

uint64_t sumOf(const std::vector<CacheFile> &files) {
  uint64_t sum = 0;
  for (const CacheFile &file : files) sum += file.bytes;
  return sum;
}

int sweepListed(const Folder &folder, std::vector<CacheFile> &files) {
  if (folder.network || !folder.writable) return 0;
  return int(std::erase_if(files, [&](const CacheFile &file) {
    if (!file.temporary) return false;
    sys::File opened = sys::openAt(folder.file.get(), file.path.c_str(), O_RDONLY | O_NONBLOCK);
    return opened && sys::lockFile(opened.get()) == 0 &&
           sys::unlinkAt(folder.file.get(), file.path.c_str()) == 0;
  }));
}

} // namespace

std::vector<CacheFile> listFiles(const Folder &folder) {
  std::vector<CacheFile> files;
  forNames(folder.file.get(), ".", [&](int base, const char *generation) {
    if (!isGeneration(generation)) return;
    forNames(base, generation, [&](int at, const char *shard) { listShard(at, generation, shard, files); });
  });
  return files;
}

int sweep(const Folder &folder) {
  std::vector<CacheFile> files = listFiles(folder);
  return sweepListed(folder, files);
}

uint64_t Room::evict(const Folder &folder, std::vector<CacheFile> files, uint64_t bytes) {
  std::sort(files.begin(), files.end(), [](const CacheFile &a, const CacheFile &b) {
    return a.modified != b.modified ? a.modified < b.modified : a.path < b.path;
  });
  uint64_t freed = 0;
  for (const CacheFile &file : files) {
    if (freed >= bytes) break;
    // A file that another process has just deleted counts as freed.
    if (sys::unlinkAt(folder.file.get(), file.path.c_str()) == 0)
      ++evictions;
    else if (errno != ENOENT)
      continue;
    freed += file.bytes;
  }
  return freed;
}

bool Room::makeFor(const Folder &folder, const LockFolder *locks, uint64_t limit, uint64_t bytes,
                   Lock &hold) {
  uint64_t need = onDisk(bytes);
  if (need > limit) return false;
  // Far from the limit nothing is listed: 31 other processes may have published as much as this one.
  if (listed && (limit == UINT64_MAX || total + 32 * ours + need <= limit)) return true;
  struct stat status;
  if (locks && sys::stat(folder.file.get(), status) == 0) {
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    locks->waitLock("room", status.st_ino ^ (uint64_t(status.st_dev) << 32), hold, deadline,
                    [] { return false; });
  }
  std::vector<CacheFile> files = listFiles(folder);
  if (!listed.exchange(true)) sweepListed(folder, files);
  uint64_t sum = sumOf(files);
  // Once over the limit, an eighth of it is freed, so that the next publications need no listing.
  if (sum + need > limit) {
    uint64_t target = std::min(limit - need, limit - limit / 8);
    sum -= std::min(sum, evict(folder, std::move(files), sum - target));
  }
  total = sum;
  ours = 0;
  return sum + need <= limit;
}

bool Room::freeUp(const Folder &folder, uint64_t bytes) {
  std::vector<CacheFile> files = listFiles(folder);
  uint64_t wanted = std::max(onDisk(bytes), sumOf(files) / 8);
  listed = false;
  return evict(folder, std::move(files), wanted) > 0;
}

void Room::published(uint64_t bytes) { ours += onDisk(bytes); }

} // namespace quern::cache
