// Entries as files of one folder: <folder>/v1/<two digits>/<hash>.entry (or .json). Reading checks
// everything; writing makes an unnamed file and links it into place.
#pragma once
#include "runtime/cache/Entry.h"
#include "runtime/cache/Folder.h"

namespace quern::cache {

/// Where an entry lies, below the folder; `name` is its entryName().
std::string entryPath(const std::string &name);

enum class ReadResult {
  Found,
  Absent,    // no such file, or no way to read it now
  OtherKey,  // an intact entry of another key: two keys of one hash
  Untrusted, // others could have written it
  Damaged,   // readable, but not what was written
};

struct ReadEntry {
  ReadResult result = ReadResult::Absent;
  Decoded decoded;
  std::string why;                // when damaged
  uint64_t device = 0, inode = 0; // which file this was
};

/// Reads a file of this folder and compares its key text with `keyText`, or its name with its key text if
/// that is null. `use` touches its modification time, at most hourly: a hint for eviction.
ReadEntry readEntryFile(const Folder &folder, const std::string &name, const std::string *keyText, bool use);

/// Deletes the entry if it is still the file that was read (another process may have replaced it).
bool removeEntryFile(const Folder &folder, const std::string &name, const ReadEntry &which);

/// 0, EEXIST if the name is taken, or another errno.
int publishEntryFile(const Folder &folder, const std::string &name, std::string_view bytes);

} // namespace quern::cache
