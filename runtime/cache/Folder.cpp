// The walk from / to a folder, and the order in which folders are tried.
#include "runtime/cache/Folder.h"
#include "runtime/config/Knobs.h"
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

namespace quern::cache {
namespace {

Error failure(std::string_view what, const std::string &place, int code) {
  return Error::system(fmt::format("{}: {}", what, std::strerror(code)), place);
}

/// In a user namespace that does not map root (unprivileged containers), root's folders show as this user's.
bool rootIsOverflow(uid_t uid) {
  if (uid != 65534) return false;
  std::ifstream map("/proc/self/uid_map");
  for (uint64_t inside, outside, count; map >> inside >> outside >> count;)
    if (inside == 0 && count > 0) return false;
  return map.eof();
}

/// A parent that others can write lets them put their folder in place of ours; not so with the sticky bit. A
/// group of the user's own name and number (umask 002) holds nobody else.
bool trustedParent(const struct stat &status) {
  if (status.st_uid != 0 && status.st_uid != geteuid() && !rootIsOverflow(status.st_uid)) return false;
  if (status.st_mode & S_ISVTX) return true;
  bool privateGroup = status.st_gid == getegid() && getegid() == geteuid();
  return !(status.st_mode & S_IWOTH) && (privateGroup || !(status.st_mode & S_IWGRP));
}

std::deque<std::string> components(std::string_view path) {
  std::deque<std::string> parts;
  while (!path.empty()) {
    size_t end = std::min(path.find('/'), path.size());
    if (std::string_view part = path.substr(0, end); !part.empty() && part != ".") parts.emplace_back(part);
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return parts;
}

/// Opens one component without following it, making it if asked.
sys::File step(const sys::File &at, const std::string &part, bool create) {
  sys::File next = sys::openAt(at.get(), part.c_str(), O_PATH);
  if (next || errno != ENOENT || !create) return next;
  if (sys::makeDir(at.get(), part.c_str()) != 0 && errno != EEXIST) return {};
  return sys::openAt(at.get(), part.c_str(), O_PATH);
}

std::string advice(const struct stat &status) {
  if (status.st_uid != geteuid() && status.st_uid != 0)
    return fmt::format("it belongs to user {}, not to {}", status.st_uid, geteuid());
  return fmt::format("others can write it (mode {:o})", status.st_mode & 07777);
}

Expected<sys::File> walk(const std::string &path, bool create) {
  std::deque<std::string> parts = components(path);
  sys::File at = sys::openAt(AT_FDCWD, "/", O_PATH | O_DIRECTORY);
  if (!at) return failure("cannot be opened", "/", errno);
  for (int links = 0; !parts.empty();) {
    std::string part = std::move(parts.front());
    parts.pop_front();
    bool last = parts.empty();
    sys::File next = step(at, part, create);
    if (!next) return failure(fmt::format("cannot open '{}'", part), path, errno);
    struct stat status;
    if (sys::stat(next.get(), status) != 0) return failure("cannot be examined", path, errno);
    if (S_ISLNK(status.st_mode)) {
      if (last) return Error::system("is a symbolic link, which is not followed: name its target", path);
      if (status.st_uid != 0 && status.st_uid != geteuid() && !rootIsOverflow(status.st_uid))
        return Error::system(fmt::format("'{}' is somebody else's symbolic link", part), path);
      std::string target;
      if (++links > 40 || sys::readLink(next.get(), target) != 0)
        return Error::system(fmt::format("'{}' is a link that cannot be followed", part), path);
      std::deque<std::string> linked = components(target);
      parts.insert(parts.begin(), linked.begin(), linked.end());
      if (target.starts_with('/')) at = sys::openAt(AT_FDCWD, "/", O_PATH | O_DIRECTORY);
      if (!at) return failure("cannot be opened", "/", errno);
      continue;
    }
    if (!S_ISDIR(status.st_mode)) return Error::system(fmt::format("'{}' is not a folder", part), path);
    if (!(last ? trusted(status) : trustedParent(status)))
      return Error::system(fmt::format("is not safe: '{}': {}", part, advice(status)), path);
    at = std::move(next);
  }
  return at;
}

std::string absolute(const std::string &path) {
  if (path.starts_with('/')) return path;
  char buffer[PATH_MAX];
  const char *here = getcwd(buffer, sizeof buffer);
  return fmt::format("{}/{}", here ? here : "", path);
}

std::string withoutSlash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

} // namespace

bool trusted(const struct stat &status) {
  return (status.st_uid == geteuid() || status.st_uid == 0) && !(status.st_mode & (S_IWGRP | S_IWOTH));
}

Expected<Folder> openFolder(const std::string &path, bool create) {
  std::string full = withoutSlash(absolute(path));
  Expected<sys::File> found = walk(full, create);
  if (!found) return found.takeError();
  Folder folder;
  folder.path = full;
  folder.file = sys::openAt(found->get(), ".", O_RDONLY | O_DIRECTORY);
  if (!folder.file) return failure("cannot be opened", full, errno);
  folder.writable = sys::access(folder.file.get(), W_OK | X_OK) == 0;
  struct statfs system;
  folder.network = sys::statFs(folder.file.get(), system) == 0 && isNetworkFileSystem(long(system.f_type));
  return folder;
}

bool isNetworkFileSystem(long type) {
  // linux/magic.h, and the sources of the file systems outside the kernel.
  constexpr uint32_t types[] = {
      0x6969,     // NFS
      0x517B,     // SMB
      0xFF534D42, // CIFS
      0xFE534D42, // SMB2
      0x0BD00BD0, // Lustre
      0x47504653, // GPFS
      0x00C36400, // Ceph
      0x5346414F, // AFS
      0x6B414653, // kAFS
      0x73757245, // Coda
      0x01021997, // 9p
      0x65735546, // FUSE: sshfs, s3fs, BeeGFS clients and others
      0x19830326, // BeeGFS
      0x7461636F, // OCFS2
      0x01161970, // GFS2
      0x20030528, // OrangeFS
      0xAAD7AAEA, // PanFS
      0x564C,     // NCP
      0xBEEFDEAD, // SNFS (StorNext)
      0x013111A8, // IBRIX
      0x786F4256, // VirtualBox shared folders
  };
  return std::find(std::begin(types), std::end(types), uint32_t(type)) != std::end(types);
}

Places Places::fromEnvironment() {
  Places places;
  places.cacheDir = config::value(config::Knob::CacheDir);
  places.xdgCacheHome = config::systemVariable("XDG_CACHE_HOME");
  places.home = config::systemVariable("HOME");
  places.xdgRuntimeDir = config::systemVariable("XDG_RUNTIME_DIR");
  return places;
}

FolderChoice chooseFolder(const Places &places) {
  FolderChoice choice;
  std::string path;
  if (places.cacheDir) {
    choice.source = "QUERN_CACHE_DIR";
    path = *places.cacheDir;
  } else if (places.xdgCacheHome && places.xdgCacheHome->starts_with('/')) {
    choice.source = "XDG_CACHE_HOME";
    path = *places.xdgCacheHome + "/quern";
  } else if (places.home && places.home->starts_with('/') && withoutSlash(*places.home) != "/") {
    choice.source = "HOME";
    path = *places.home + "/.cache/quern";
    // A home that does not exist is not made.
    struct stat status;
    if (::stat(places.home->c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
      choice.warning = fmt::format("the home folder {} does not exist", *places.home), path.clear();
  } else {
    choice.warning = "there is no home folder (HOME) for the cache";
  }
  if (!path.empty()) {
    Expected<Folder> folder = openFolder(path, true);
    if (folder) {
      choice.folder = std::move(*folder);
      return choice;
    }
    choice.warning = fmt::format("the cache folder cannot be used: {}", folder.error().str());
  }
  Expected<Folder> own = openFolder(fmt::format("{}/quern-{}/cache", places.temporary, geteuid()), true);
  if (own && own->writable) {
    choice.warning += fmt::format("; using {}. Set QUERN_CACHE_DIR to a folder of your own", own->path);
    choice.source = "temporary";
    choice.folder = std::move(*own);
  } else {
    choice.warning += "; compiled kernels are not kept. Set QUERN_CACHE_DIR to a folder of your own";
    choice.source = "none";
  }
  return choice;
}

Expected<Folder> openLockFolder(const Places &places) {
  if (places.xdgRuntimeDir && places.xdgRuntimeDir->starts_with('/')) {
    Expected<Folder> folder = openFolder(*places.xdgRuntimeDir + "/quern", true);
    if (folder && folder->writable && !folder->network) return folder;
  }
  return openFolder(fmt::format("{}/quern-{}", places.temporary, geteuid()), true);
}

} // namespace quern::cache
