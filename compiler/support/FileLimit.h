// The length of files that a process may write (RLIMIT_FSIZE, `ulimit -f`). A write beyond it ends the
// process by SIGXFSZ, and a library leaves the signals of its host alone: so it asks before it writes.
#pragma once
#include <cstdint>
#include <sys/resource.h>

namespace quern {

/// Whether this process may write a file of so many bytes. Files in memory (memfd_create) count too.
inline bool isWithinFileLimit(uint64_t bytes) {
  struct rlimit limit;
  return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur;
}

} // namespace quern
