// Locks between the processes of one machine. The kernel frees them when their holder dies; their files lie
// on node-local storage and are never deleted.
#pragma once
#include "runtime/cache/Folder.h"
#include <chrono>
#include <functional>

namespace quern::cache {

/// One held lock. Forked children close their copy: it never outlives the process that took it.
class Lock {
  sys::File file;
  int slot = -1;           // in the table of files that a forked child closes
  uint64_t generation = 0; // forkGeneration() when it was taken: a child's copy is not the child's
  friend class LockFolder;

public:
  Lock() = default;
  Lock(Lock &&other) noexcept { *this = std::move(other); }
  Lock &operator=(Lock &&other) noexcept {
    std::swap(file, other.file);
    std::swap(slot, other.slot);
    std::swap(generation, other.generation);
    return *this;
  }
  ~Lock() { release(); }
  void release();
  explicit operator bool() const { return bool(file); }
};

class LockFolder {
  std::optional<Folder> folder;

public:
  /// The user's, by Places::fromEnvironment(); opened at the first call.
  static const LockFolder &user();
  explicit LockFolder(Expected<Folder> folder);
  /// Without one nothing can be locked, and callers carry on without.
  bool usable() const { return folder.has_value(); }
  std::string path() const { return folder ? folder->path : ""; }

  enum class Outcome { Held, Busy, Unavailable };
  /// Lock number `number` (any) of the file `name`. Does not wait.
  Outcome tryLock(const char *name, uint64_t number, Lock &lock) const;
  /// Waits until `deadline`; asks `enough` now and then, and stops when it says so (Busy).
  Outcome waitLock(const char *name, uint64_t number, Lock &lock,
                   std::chrono::steady_clock::time_point deadline, const std::function<bool()> &enough) const;
  /// Who holds the lock, for messages: a note that the holder leaves, not part of the lock.
  void signHolder(uint64_t number) const;
  std::string holder(uint64_t number) const;
};

/// Counts the forks between the process's start and now: state of another count belongs to the parent.
uint64_t forkGeneration();

} // namespace quern::cache
