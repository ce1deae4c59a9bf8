// Entries of a cache as one file, to carry to another machine: a tar archive, compressed with zstd, that
// `tar` reads too. Writing is deterministic: the same entries give the same bytes. Reading believes nothing.
//
//   quern-cache/format                   "1\n"
//   quern-cache/v1/HA/HASH.entry         an entry's bytes, as in the folder (also .json); in ascending order
//   quern-cache/manifest                 a line "HASH.entry DIGEST SIZE\n" for each entry; last
//
// HASH is the hash of the key's text. DIGEST is XXH3 with 128 bits: it finds damage, it does not prove who
// made the entry. Entries are code: import only what you would also run.
#pragma once
#include "runtime/cache/Store.h"
#include <span>

namespace quern::cache {

/// Called after each entry: entries done, and their bytes. False ends the work.
using ArchiveProgress = std::function<bool(int64_t entries, uint64_t bytes)>;

struct ExportReport {
  int64_t entries = 0, missing = 0; // missing: gone or damaged since they were listed
  uint64_t bytes = 0;               // of entries, before compression
};

/// Writes the entries of these keys to a file descriptor. Errors: System, when it cannot be written; User,
/// when `progress` ended it.
Expected<ExportReport> exportArchive(Store &store, std::span<const Key> keys, int fd,
                                     const ArchiveProgress &progress = {});

/// What a stranger's archive may cost. A larger entry is refused alone; beyond the other limits the import
/// stops.
struct ImportLimits {
  uint64_t entryBytes = uint64_t(256) << 20;
  uint64_t totalBytes = uint64_t(64) << 30;
  int64_t entries = int64_t(1) << 20;
};

struct ImportReport {
  int64_t imported = 0; // now in the cache
  int64_t present = 0;  // were there, and stay as they are
  int64_t unkept = 0;   // good, but the cache did not keep them (no space, no permission)
  int64_t refused = 0;
  uint64_t bytes = 0; // of the entries imported
  /// The first refusals: the name inside the archive, made printable, and why.
  std::vector<std::string> reasons;
  static constexpr size_t maxReasons = 20;
  /// Why reading ended early, or how the archive differs from its manifest. What came before counts.
  std::optional<Error> incomplete;
};

/// Publishes the archive's good entries under the hash of their own key, never over an entry that is there.
/// No name inside the archive becomes a path. The only error is an input that is no archive of Quern's.
Expected<ImportReport> importArchive(Store &store, int fd, const ImportLimits &limits = {},
                                     const ArchiveProgress &progress = {});

} // namespace quern::cache
