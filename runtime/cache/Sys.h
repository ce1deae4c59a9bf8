// Every system call of the cache, so that a test can fail the n-th. Results and errno are those of the calls;
// a call that a signal interrupts is repeated.
#pragma once
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <utility>

namespace quern::cache::sys {

enum class Call {
  Open,
  OpenUnnamed, // O_TMPFILE
  Stat,
  StatFs,
  Access,
  ReadLink,
  Read,
  Write,
  Sync,
  Link,
  Rename,
  Unlink,
  MakeDir,
  SetTimes,
  Lock
};

/// What happens in place of a call.
struct Fault {
  int error = 0;        // fail with this errno; 0: the call is made
  bool shorten = false; // a read or write of one byte at most
};
/// Asked before each call. For tests; null: none. May be called from any thread.
using Hook = Fault (*)(Call);
void setHook(Hook hook);
/// Asked for the type of a file system (statfs f_type) in place of the kernel, 0: the kernel's. For tests.
void setFileSystemType(long type);

/// A file descriptor that closes itself. Errors of close() say nothing that a digest would not find later.
class File {
  int number = -1;

public:
  File() = default;
  explicit File(int number) : number(number) {}
  File(File &&other) noexcept : number(std::exchange(other.number, -1)) {}
  File &operator=(File &&other) noexcept {
    std::swap(number, other.number);
    return *this;
  }
  ~File();
  explicit operator bool() const { return number >= 0; }
  int get() const { return number; }
  int release() { return std::exchange(number, -1); }
};

/// O_CLOEXEC and O_NOFOLLOW are added.
File openAt(int folder, const char *path, int flags, mode_t mode = 0);
int stat(int file, struct stat &status);
/// Of the name itself, not of what a link points to.
int statAt(int folder, const char *path, struct stat &status);
int statFs(int file, struct statfs &status);
/// Whether the effective user may do `mode` (R_OK, W_OK, X_OK) in an open folder.
int access(int folder, int mode);
/// The target of an open link (O_PATH).
int readLink(int link, std::string &target);
int sync(int file);
/// A new name for an open file; EEXIST if the name is taken. Needs no name before (O_TMPFILE).
int linkFile(int file, int folder, const char *path);
/// A new name for a named file; EEXIST if it is taken, also where the file system has no links.
int linkName(int folder, const char *from, const char *path);
int unlinkAt(int folder, const char *path, int flags = 0);
int makeDir(int folder, const char *path);
/// Modification time = now.
int touch(int file);
/// Non-blocking flock(): 0, or EWOULDBLOCK in errno.
int lockFile(int file);
/// Non-blocking lock of one byte, owned by the open file (F_OFD_SETLK): 0, or EAGAIN in errno.
int lockByte(int file, off_t byte);

/// Of a file at its start. 0, or -1 and errno; ENOSPC stays what it is; EFBIG: longer than this process may
/// write, and nothing was written.
int writeAll(int file, std::string_view bytes);
/// The whole file of `size` bytes, from its start. Fewer bytes: -1 and EIO.
int readAll(int file, size_t size, std::string &bytes);

} // namespace quern::cache::sys
