// The system calls, each behind the test's hook.
#include "runtime/cache/Sys.h"
#include "compiler/support/FileLimit.h"
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

namespace quern::cache::sys {
namespace {

std::atomic<Hook> theHook{nullptr};
std::atomic<long> theFileSystemType{0};

Fault faultFor(Call call) {
  Hook hook = theHook.load(std::memory_order_acquire);
  return hook ? hook(call) : Fault{};
}

/// Makes the call, again while a signal interrupts it. Bounded: a test interrupts for ever.
template <class Make> auto perform(Call call, Make make) -> decltype(make(false)) {
  for (int attempt = 0;; ++attempt) {
    Fault fault = faultFor(call);
    decltype(make(false)) result = -1;
    if (fault.error)
      errno = fault.error;
    else
      result = make(fault.shorten);
    if (result >= 0 || errno != EINTR || attempt == 100) return result;
  }
}

} // namespace

void setHook(Hook hook) { theHook.store(hook, std::memory_order_release); }
void setFileSystemType(long type) { theFileSystemType = type; }

File::~File() {
  if (number < 0) return;
  int saved = errno;
  ::close(number);
  errno = saved;
}

File openAt(int folder, const char *path, int flags, mode_t mode) {
  Call call = (flags & O_TMPFILE) == O_TMPFILE ? Call::OpenUnnamed : Call::Open;
  return File(
      perform(call, [&](bool) { return ::openat(folder, path, flags | O_CLOEXEC | O_NOFOLLOW, mode); }));
}

int stat(int file, struct stat &status) {
  return perform(Call::Stat, [&](bool) { return ::fstat(file, &status); });
}

int statAt(int folder, const char *path, struct stat &status) {
  return perform(Call::Stat, [&](bool) { return ::fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW); });
}

int statFs(int file, struct statfs &status) {
  int result = perform(Call::StatFs, [&](bool) { return ::fstatfs(file, &status); });
  if (long type = theFileSystemType.load(); type && result == 0) status.f_type = type;
  return result;
}

int access(int folder, int mode) {
  return perform(Call::Access, [&](bool) { return ::faccessat(folder, ".", mode, AT_EACCESS); });
}

int readLink(int link, std::string &target) {
  char buffer[PATH_MAX];
  ssize_t size = perform(Call::ReadLink, [&](bool) { return ::readlinkat(link, "", buffer, sizeof buffer); });
  if (size < 0) return -1;
  target.assign(buffer, size_t(size));
  return 0;
}

int sync(int file) {
  return perform(Call::Sync, [&](bool) { return ::fsync(file); });
}

int linkFile(int file, int folder, const char *path) {
  std::string self = fmt::format("/proc/self/fd/{}", file);
  int result = perform(
      Call::Link, [&](bool) { return ::linkat(AT_FDCWD, self.c_str(), folder, path, AT_SYMLINK_FOLLOW); });
  if (result == 0 || errno != ENOENT) return result;
  // No /proc here. Older kernels want a capability for this form.
  return perform(Call::Link, [&](bool) { return ::linkat(file, "", folder, path, AT_EMPTY_PATH); });
}

int linkName(int folder, const char *from, const char *path) {
  int result = perform(Call::Link, [&](bool) { return ::linkat(folder, from, folder, path, 0); });
  if (result == 0 || (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS && errno != EMLINK))
    return result;
  return perform(Call::Rename,
                 [&](bool) { return ::renameat2(folder, from, folder, path, RENAME_NOREPLACE); });
}

int unlinkAt(int folder, const char *path, int flags) {
  return perform(Call::Unlink, [&](bool) { return ::unlinkat(folder, path, flags); });
}

int makeDir(int folder, const char *path) {
  return perform(Call::MakeDir, [&](bool) { return ::mkdirat(folder, path, 0700); });
}

int touch(int file) {
  struct timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  return perform(Call::SetTimes, [&](bool) { return ::futimens(file, times); });
}

int lockFile(int file) {
  return perform(Call::Lock, [&](bool) { return ::flock(file, LOCK_EX | LOCK_NB); });
}

int lockByte(int file, off_t byte) {
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = byte;
  range.l_len = 1;
  return perform(Call::Lock, [&](bool) { return ::fcntl(file, F_OFD_SETLK, &range); });
}

int writeAll(int file, std::string_view bytes) {
  if (!isWithinFileLimit(bytes.size())) return errno = EFBIG, -1;
  while (!bytes.empty()) {
    ssize_t done = perform(Call::Write, [&](bool shorten) {
      return ::write(file, bytes.data(), shorten ? 1 : std::min(bytes.size(), size_t(1) << 24));
    });
    if (done < 0) return -1;
    if (done == 0) return errno = EIO, -1;
    bytes.remove_prefix(size_t(done));
  }
  return 0;
}

int readAll(int file, size_t size, std::string &bytes) {
  bytes.resize(size);
  for (size_t at = 0; at < size;) {
    ssize_t done = perform(Call::Read, [&](bool shorten) {
      return ::pread(file, bytes.data() + at, shorten ? 1 : size - at, off_t(at));
    });
    if (done < 0) return -1;
    if (done == 0) return errno = EIO, -1;
    at += size_t(done);
  }
  return 0;
}

} // namespace quern::cache::sys
