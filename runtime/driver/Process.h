// Runs a tool as a child process: no shell, its output captured, a time limit. For ptxas and disassemblers.
#pragma once
#include "compiler/support/Error.h"
#include <cstddef>
#include <string>
#include <vector>

namespace quern::driver {

struct ProcessOptions {
  double timeoutSeconds = 120;
  size_t outputLimit = 64 << 20; // bytes kept; what a tool writes beyond is read and dropped
};

struct ProcessResult {
  int exitStatus = 0; // of the child; -1 when a host that ignores SIGCHLD took it away
  int signal = 0;     // the signal that ended it, or 0
  bool timedOut = false;
  bool truncated = false; // more output than the limit
  std::string output;     // stdout and stderr, in the order written
  double seconds = 0;
  bool ok() const { return exitStatus == 0 && signal == 0 && !timedOut; }
};

/// `arguments[0]` is the program's path. The child gets an empty stdin, no other open file of this process,
/// default signal handling, a process group of its own (killed as one at the time limit), a limit on its
/// processor time, and the kernel's word to kill it when this process dies (Spawn.h). A system error when it
/// cannot be started.
Expected<ProcessResult> runProcess(const std::vector<std::string> &arguments,
                                   const ProcessOptions &options = {});

/// A folder of this process alone (mode 0700), with everything in it removed at the end of its life.
class PrivateFolder {
  std::string folder;

public:
  /// In TMPDIR, else /tmp, /var/tmp, /dev/shm: the first one that takes it.
  static Expected<PrivateFolder> create();
  PrivateFolder(PrivateFolder &&other) noexcept;
  PrivateFolder(const PrivateFolder &) = delete;
  PrivateFolder &operator=(const PrivateFolder &) = delete;
  ~PrivateFolder();
  const std::string &path() const { return folder; }
  /// Writes a new file (mode 0600); its path. A system error on a full disk.
  Expected<std::string> write(const std::string &name, const std::string &bytes) const;

private:
  explicit PrivateFolder(std::string path) : folder(std::move(path)) {}
};

/// All bytes of a file.
Expected<std::string> readFile(const std::string &path);

} // namespace quern::driver
