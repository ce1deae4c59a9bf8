// The size limit: which entries go, and what killed processes left behind.
#pragma once
#include "runtime/cache/Folder.h"
#include "runtime/cache/Locks.h"
#include <atomic>
#include <cstdint>
#include <vector>

namespace quern::cache {

/// A file of a cache folder, as a listing sees it.
struct CacheFile {
  std::string path;     // below the folder
  std::string name;     // of an entry of this schema; empty for all else (temporary files, other generations)
  uint64_t bytes = 0;   // what it takes on the disk, for the limit
  uint64_t size = 0;    // its length
  int64_t modified = 0; // nanoseconds since 1970: a hint only
  bool temporary = false;
};

/// Everything that Quern wrote below the folder, of every generation. Files of others are left out.
std::vector<CacheFile> listFiles(const Folder &folder);

/// Deletes temporary files whose writers have died: those whose lock is free. Not by age. On a network folder
/// another host's lock may be invisible, so there they wait for eviction.
int sweep(const Folder &folder);

class Room {
  std::atomic<int64_t> evictions{0};
  std::atomic<uint64_t> total{0}; // at the last listing
  std::atomic<uint64_t> ours{0};  // published by this process since
  std::atomic<bool> listed{false};

  uint64_t evict(const Folder &folder, std::vector<CacheFile> files, uint64_t bytes);

public:
  /// Before a file of `bytes` is published: deletes the oldest so that it fits. False: it is larger than the
  /// limit. Near the limit `hold` is locked; the caller keeps it until the file is there, so that processes
  /// take turns.
  bool makeFor(const Folder &folder, const LockFolder *locks, uint64_t limit, uint64_t bytes, Lock &hold);
  /// The disk is full: frees `bytes` and an eighth of the cache. Whether anything could be deleted.
  bool freeUp(const Folder &folder, uint64_t bytes);
  void published(uint64_t bytes);
  int64_t evicted() const { return evictions; }
};

/// What a file of this length takes: whole blocks of 4096 bytes.
constexpr uint64_t onDisk(uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

} // namespace quern::cache
