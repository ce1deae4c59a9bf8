// Which folder holds the cache, and whether it may be trusted: README.md, "Folder".
#pragma once
#include "compiler/support/Error.h"
#include "runtime/cache/Sys.h"
#include <optional>
#include <string>

namespace quern::cache {

/// An open folder that is ours or root's and that nobody else can write, by itself or through a parent.
struct Folder {
  sys::File file; // open for listing and openat
  std::string path;
  bool writable = false;
  bool network = false; // other hosts may see it: NFS, Lustre, ...
};

/// Follows `path` component by component; missing ones are made (0700) if `create`. The error says what is
/// wrong and who could fix it. The last component may not be a link.
Expected<Folder> openFolder(const std::string &path, bool create);

/// Whether this file or folder can have been written only by us or by root.
bool trusted(const struct stat &status);

/// What the choice depends on.
struct Places {
  std::optional<std::string> cacheDir, xdgCacheHome, home, xdgRuntimeDir;
  std::string temporary = "/tmp";
  static Places fromEnvironment();
};

struct FolderChoice {
  std::optional<Folder> folder; // nothing: memory only
  std::string source;           // "QUERN_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "temporary", "none"
  std::string warning;          // why it is not the expected one; empty if it is
};
/// QUERN_CACHE_DIR, else XDG_CACHE_HOME/quern, else HOME/.cache/quern; if there is none or it cannot be used,
/// a private folder of this user under /tmp, else nothing.
FolderChoice chooseFolder(const Places &places);

/// Node-local folder for lock files: XDG_RUNTIME_DIR/quern, else quern-<uid> in /tmp.
Expected<Folder> openLockFolder(const Places &places);

/// NFS, SMB, Lustre, GPFS, ...: `type` is f_type of statfs().
bool isNetworkFileSystem(long type);

} // namespace quern::cache
