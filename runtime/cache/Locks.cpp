// One byte of a file per lock (F_OFD_SETLK): as many locks as there are keys, in one file. Where the kernel
// has no such locks (gVisor), flock() on one of 256 files, which keys may share.
#include "runtime/cache/Locks.h"
#include "compiler/support/FileLimit.h"
#include "runtime/cache/Once.h"
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <mutex>
#include <pthread.h>
#include <sys/file.h>
#include <thread>
#include <unistd.h>

namespace quern::cache {
namespace {

/// Files of held locks. A lock belongs to the open file, which fork() shares: a child that lived on would
/// hold it.
std::array<std::atomic<int>, 256> heldFiles;
std::atomic<uint64_t> forks{0};

/// Held while a file is opened, noted and locked, so that no fork falls in between.
std::mutex noting;

void beforeFork() { noting.lock(); }
void afterForkInParent() { noting.unlock(); }
void afterForkInChild() {
  for (std::atomic<int> &held : heldFiles)
    if (int file = held.exchange(0) - 1; file >= 0) ::close(file);
  forks.fetch_add(1);
  noting.unlock();
}

// Before any thread can fork.
[[maybe_unused]] const int watching = pthread_atfork(beforeFork, afterForkInParent, afterForkInChild);

int remember(int file) {
  for (size_t i = 0; i < heldFiles.size(); ++i) {
    int free = 0;
    if (heldFiles[i].compare_exchange_strong(free, file + 1)) return int(i);
  }
  return -1;
}

constexpr uint64_t holderSlots = 256;
constexpr off_t holderBytes = 128;
constexpr const char *holderFile = "holders";

} // namespace

uint64_t forkGeneration() { return forks.load(); }

void Lock::release() {
  if (!file) return;
  if (generation != forkGeneration()) {
    file.release(); // closed at the fork; the number may be another file's by now
    return;
  }
  // Unlocked by name, not by closing alone: a process started by a bare clone() may share the file.
  struct flock all = {};
  all.l_type = F_UNLCK;
  all.l_whence = SEEK_SET;
  ::fcntl(file.get(), F_OFD_SETLK, &all);
  ::flock(file.get(), LOCK_UN); // it is one of the two
  heldFiles[size_t(slot)].store(0);
  file = sys::File();
}

LockFolder::LockFolder(Expected<Folder> opened) {
  if (opened && opened->writable) folder = std::move(*opened);
}

const LockFolder &LockFolder::user() {
  return onceOrTwice<LockFolder>([] { return new LockFolder(openLockFolder(Places::fromEnvironment())); });
}

LockFolder::Outcome LockFolder::tryLock(const char *name, uint64_t number, Lock &lock) const {
  if (!folder) return Outcome::Unavailable;
  lock = Lock();
  std::lock_guard<std::mutex> guard(noting);
  // A file of its own per holder: two holders in one process must exclude each other as well.
  sys::File file = sys::openAt(folder->file.get(), name, O_RDWR | O_CREAT, 0600);
  if (!file) return Outcome::Unavailable;
  int result = sys::lockByte(file.get(), off_t(number & 0x3fffffffffffffff));
  if (result != 0 && (errno == EINVAL || errno == ENOSYS)) {
    std::string shared = fmt::format("{}-{}", name, number % 256);
    file = sys::openAt(folder->file.get(), shared.c_str(), O_RDWR | O_CREAT, 0600);
    if (!file) return Outcome::Unavailable;
    result = sys::lockFile(file.get());
  }
  if (result != 0)
    return errno == EAGAIN || errno == EACCES || errno == EWOULDBLOCK ? Outcome::Busy : Outcome::Unavailable;
  lock.slot = remember(file.get());
  if (lock.slot < 0) return Outcome::Unavailable; // a fork could hold it for ever
  lock.file = std::move(file);
  lock.generation = forkGeneration();
  return Outcome::Held;
}

LockFolder::Outcome LockFolder::waitLock(const char *name, uint64_t number, Lock &lock,
                                         std::chrono::steady_clock::time_point deadline,
                                         const std::function<bool()> &enough) const {
  using namespace std::chrono_literals;
  for (auto pause = 1ms;; pause = std::min<std::chrono::milliseconds>(2 * pause, 20ms)) {
    Outcome outcome = tryLock(name, number, lock);
    if (outcome != Outcome::Busy || std::chrono::steady_clock::now() >= deadline || enough()) return outcome;
    std::this_thread::sleep_for(pause);
  }
}

void LockFolder::signHolder(uint64_t number) const {
  if (!folder) return;
  sys::File file = sys::openAt(folder->file.get(), holderFile, O_RDWR | O_CREAT, 0600);
  if (!file) return;
  std::string note = fmt::format("{:016x} {} {}", number, getpid(), program_invocation_short_name);
  note.resize(holderBytes);
  note.back() = 0;
  off_t at = off_t(number % holderSlots) * holderBytes;
  if (!isWithinFileLimit(uint64_t(at) + note.size())) return;
  ssize_t written = ::pwrite(file.get(), note.data(), note.size(), at);
  (void)written;
}

std::string LockFolder::holder(uint64_t number) const {
  char note[holderBytes + 1] = {};
  sys::File file = folder ? sys::openAt(folder->file.get(), holderFile, O_RDONLY) : sys::File();
  if (file && ::pread(file.get(), note, holderBytes, off_t(number % holderSlots) * holderBytes) > 17 &&
      std::string_view(note, 16) == fmt::format("{:016x}", number))
    if (const char *name = std::strchr(note + 17, ' '))
      return fmt::format("process {} ({})", std::string_view(note + 17, size_t(name - note - 17)), name + 1);
  return "another process";
}

} // namespace quern::cache
