// Reading and publishing of entry files.
#include "runtime/cache/Files.h"
#include <atomic>
#include <cerrno>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace quern::cache {
namespace {

std::string generationName() { return fmt::format("v{}", schemaVersion); }

/// The folder of an entry; nothing if it is absent or others could write it.
sys::File openShard(const Folder &folder, const std::string &name, bool create) {
  sys::File at;
  int parent = folder.file.get();
  for (const std::string &part : {generationName(), name.substr(0, 2)}) {
    sys::File next = sys::openAt(parent, part.c_str(), O_RDONLY | O_DIRECTORY);
    if (!next && errno == ENOENT && create) {
      if (sys::makeDir(parent, part.c_str()) != 0 && errno != EEXIST) return {};
      next = sys::openAt(parent, part.c_str(), O_RDONLY | O_DIRECTORY);
    }
    struct stat status;
    if (!next || sys::stat(next.get(), status) != 0) return {};
    if (!trusted(status)) return errno = EPERM, sys::File();
    at = std::move(next);
    parent = at.get();
  }
  return at;
}

/// Unique on this machine while it runs; the sweep needs only the prefix.
std::string temporaryName() {
  static std::atomic<unsigned> count{0};
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return fmt::format(".tmp-{}-{}-{:x}{:x}", getpid(), ++count, now.tv_sec, now.tv_nsec);
}

int writeOut(const Folder &folder, const sys::File &file, std::string_view bytes) {
  if (sys::writeAll(file.get(), bytes) != 0) return errno;
  // Elsewhere the digest makes up for a missing fsync; over a network, errors of writing come to light here.
  if (folder.network && sys::sync(file.get()) != 0) return errno;
  return 0;
}

/// For file systems without unnamed files. The lock tells the sweep that the owner lives.
int publishByName(const Folder &folder, const sys::File &shard, const char *name, std::string_view bytes) {
  std::string temporary = temporaryName();
  sys::File file = sys::openAt(shard.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (!file) return errno;
  sys::lockFile(file.get());
  int error = writeOut(folder, file, bytes);
  if (!error && sys::linkName(shard.get(), temporary.c_str(), name) != 0) error = errno;
  sys::unlinkAt(shard.get(), temporary.c_str());
  return error;
}

} // namespace

std::string entryPath(const std::string &name) {
  return fmt::format("{}/{}/{}", generationName(), name.substr(0, 2), name);
}

ReadEntry readEntryFile(const Folder &folder, const std::string &name, const std::string *keyText, bool use) {
  ReadEntry entry;
  sys::File shard = openShard(folder, name, false);
  if (!shard) return entry;
  // Not O_NONBLOCK alone: a planted pipe must not hold us up before fstat tells what it is.
  sys::File file = sys::openAt(shard.get(), name.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
  struct stat status;
  if (!file || sys::stat(file.get(), status) != 0) return entry;
  entry.device = status.st_dev;
  entry.inode = status.st_ino;
  if (!trusted(status)) {
    entry.result = ReadResult::Untrusted;
    return entry;
  }
  std::string bytes;
  bool readable = S_ISREG(status.st_mode) && uint64_t(status.st_size) <= maxEntryBytes;
  // A failing read says nothing about what lies on the disk: a miss, and the file stays.
  if (readable && sys::readAll(file.get(), size_t(status.st_size), bytes) != 0) return entry;
  std::optional<Decoded> decoded;
  if (readable)
    decoded = decodeEntry(bytes, &entry.why);
  else
    entry.why = "not a file of an entry's size";
  if (!decoded) {
    entry.result = ReadResult::Damaged;
    return entry;
  }
  bool expected = keyText ? decoded->keyText == *keyText : entryName(decoded->keyText) == name;
  entry.result = expected ? ReadResult::Found : ReadResult::OtherKey;
  entry.decoded = std::move(*decoded);
  if (use && folder.writable) {
    time_t now = ::time(nullptr);
    if (now - status.st_mtime > 3600 || status.st_mtime - now > 3600) sys::touch(file.get());
  }
  return entry;
}

bool removeEntryFile(const Folder &folder, const std::string &name, const ReadEntry &which) {
  sys::File shard = openShard(folder, name, false);
  struct stat status;
  if (!shard || sys::statAt(shard.get(), name.c_str(), status) != 0) return false;
  if (status.st_dev != which.device || status.st_ino != which.inode) return false;
  return sys::unlinkAt(shard.get(), name.c_str()) == 0;
}

int publishEntryFile(const Folder &folder, const std::string &name, std::string_view bytes) {
  sys::File shard = openShard(folder, name, true);
  if (!shard) return errno;
  sys::File file = sys::openAt(shard.get(), ".", O_WRONLY | O_TMPFILE, 0600);
  if (!file) {
    if (errno == ENOSPC || errno == EDQUOT) return errno;
    return publishByName(folder, shard, name.c_str(), bytes);
  }
  if (int error = writeOut(folder, file, bytes)) return error;
  if (sys::linkFile(file.get(), shard.get(), name.c_str()) == 0) return 0;
  if (errno == EEXIST || errno == ENOSPC || errno == EDQUOT) return errno;
  return publishByName(folder, shard, name.c_str(), bytes);
}

} // namespace quern::cache
