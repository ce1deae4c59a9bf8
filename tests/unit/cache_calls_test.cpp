// What each system call of the cache is told: flags, modes, what follows when it is interrupted or refused.
#include "cache_support.h"
#include "runtime/cache/Listing.h"
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace quern::cache {
namespace {

using test::contentOf;
using test::Hooked;
using test::numbered;
using test::TestCache;

sys::Fault noUnnamedFiles(sys::Call call) { return {call == sys::Call::OpenUnnamed ? EOPNOTSUPP : 0, false}; }

/// Every call is interrupted once.
sys::Fault interrupted(sys::Call) {
  static std::atomic<unsigned> count{0};
  return {count++ % 2 ? 0 : EINTR, false};
}
sys::Fault interruptedByName(sys::Call call) {
  return call == sys::Call::OpenUnnamed ? noUnnamedFiles(call) : interrupted(call);
}

TEST(CacheCalls, ASignalCostsNothing) {
  for (sys::Hook hook : {interrupted, interruptedByName}) {
    TestCache cache;
    test::Notices notices;
    cache.opened();
    Hooked hooked(hook);
    auto store = cache.open();
    ASSERT_TRUE(store->publish(numbered(1), contentOf(1, 20'000)));
    EXPECT_EQ(store->find(numbered(1)), contentOf(1, 20'000));
    EXPECT_TRUE(store->findOrMake(numbered(2), [] { return Expected<Content>(contentOf(2)); }));
    EXPECT_TRUE(store->find(numbered(2)));
    EXPECT_TRUE(notices.texts().empty());
  }
}

sys::Fault noLinks(sys::Call call) { return {call == sys::Call::Link ? EPERM : 0, false}; }
sys::Fault noLinksOrUnnamedFiles(sys::Call call) {
  return call == sys::Call::Link ? noLinks(call) : noUnnamedFiles(call);
}
/// The first link of an entry: of the unnamed file, by way of /proc.
std::atomic<int> linksToFail{0};
sys::Fault firstLinks(sys::Call call) {
  return {call == sys::Call::Link && linksToFail-- > 0 ? EACCES : 0, false};
}

TEST(CacheCalls, WithoutLinksAFileIsRenamedAndReplacesNone) {
  for (sys::Hook hook : {noLinks, noLinksOrUnnamedFiles}) {
    TestCache cache;
    test::Notices notices;
    Folder folder = cache.opened();
    Hooked hooked(hook);
    auto store = cache.open();
    ASSERT_TRUE(store->publish(numbered(1), contentOf(1)));
    EXPECT_EQ(store->find(numbered(1)), contentOf(1));
    std::string other = encodeEntry(numbered(1), contentOf(7));
    EXPECT_EQ(publishEntryFile(folder, entryName(numbered(1).text()), other), EEXIST);
    EXPECT_EQ(store->find(numbered(1)), contentOf(1)) << "the first one wins";
    EXPECT_EQ(cache.files().size(), 1u) << "no temporary file is left";
    EXPECT_TRUE(notices.texts().empty());
  }
}

TEST(CacheCalls, WhatCannotBeLinkedIsPublishedByName) {
  TestCache cache;
  Folder folder = cache.opened();
  linksToFail = 1;
  Hooked hooked(firstLinks);
  EXPECT_EQ(publishEntryFile(folder, entryName(numbered(1).text()), encodeEntry(numbered(1), contentOf(1))),
            0);
  EXPECT_LT(linksToFail, 0) << "a link by name came after";
  EXPECT_EQ(cache.open()->find(numbered(1)), contentOf(1));
  EXPECT_EQ(cache.files().size(), 1u);
}

/// /proc is not there: the file itself is linked, by its descriptor, where the kernel lets this user.
std::atomic<int> linksAsked{0}, namesRemoved{0};
sys::Fault noProc(sys::Call call) {
  namesRemoved += call == sys::Call::Unlink;
  return {call == sys::Call::Link && linksAsked++ == 0 ? ENOENT : 0, false};
}
TEST(CacheCalls, WithoutProcTheFileItselfIsLinked) {
  TestCache cache;
  Folder folder = cache.opened();
  int probe = openat(folder.file.get(), ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
  if (probe < 0) GTEST_SKIP() << "no unnamed files on this file system";
  bool allowed = linkat(probe, "", folder.file.get(), "probe", AT_EMPTY_PATH) == 0;
  close(probe);
  linksAsked = 0, namesRemoved = 0;
  Hooked hooked(noProc);
  EXPECT_EQ(publishEntryFile(folder, entryName(numbered(1).text()), encodeEntry(numbered(1), contentOf(1))),
            0);
  EXPECT_EQ(namesRemoved, allowed ? 0 : 1) << "otherwise by a temporary name";
  EXPECT_EQ(cache.open()->find(numbered(1)), contentOf(1));
}

TEST(CacheCalls, FilesArePrivateWhateverTheMask) {
  mode_t before = umask(0);
  for (sys::Hook hook : {sys::Hook(nullptr), sys::Hook(noUnnamedFiles)}) {
    TestCache cache;
    Hooked hooked(hook);
    ASSERT_TRUE(cache.open()->publish(numbered(1), contentOf(1)));
    struct stat status;
    ASSERT_EQ(::stat(cache.files().at(0).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600u);
    for (auto folder = cache.files().at(0).parent_path(); folder != cache.top.path;
         folder = folder.parent_path()) {
      ASSERT_EQ(::stat(folder.c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 07777, 0700u) << folder;
    }
  }
  umask(before);
}

TEST(CacheCalls, NoProgramInheritsAFile) {
  TestCache cache;
  Folder folder = cache.opened();
  sys::File file = sys::openAt(folder.file.get(), "x", O_RDWR | O_CREAT, 0600);
  ASSERT_TRUE(file);
  EXPECT_TRUE(fcntl(file.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(fcntl(folder.file.get(), F_GETFD) & FD_CLOEXEC);
}

TEST(CacheCalls, ClosingKeepsTheError) {
  errno = ENOTTY;
  {
    sys::File wrong(1 << 20);
  } // close() says EBADF
  EXPECT_EQ(errno, ENOTTY);
}

TEST(CacheCalls, AFileThatBecameShorterIsNoFile) {
  TestCache cache;
  Folder folder = cache.opened();
  test::writeBytes(cache.top.at("short"), "12345");
  sys::File file = sys::openAt(AT_FDCWD, cache.top.at("short").c_str(), O_RDONLY);
  std::string bytes;
  EXPECT_EQ(sys::readAll(file.get(), 5, bytes), 0);
  EXPECT_EQ(bytes, "12345");
  EXPECT_EQ(sys::readAll(file.get(), 6, bytes), -1);
  EXPECT_EQ(errno, EIO);
}

/// What counts is the user that a program acts for, not the one that started it.
TEST(CacheCalls, AccessIsTheEffectiveUsers) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can act for another user";
  TestCache cache;
  Folder folder = cache.opened();
  EXPECT_EQ(test::waitChild(test::spawnChild([&] {
              if (sys::access(folder.file.get(), W_OK) != 0) return 1;
              if (seteuid(12345) != 0) return 2;
              return sys::access(folder.file.get(), W_OK) == 0 ? 3 : 0;
            })),
            0);
}

/// A sweep of another process, between the writing and the publishing of a named file.
const Folder *swept = nullptr;
int sweptFiles = -1;
sys::Fault sweepBeforeTheLink(sys::Call call) {
  if (call != sys::Call::Link || !swept) return noUnnamedFiles(call);
  const Folder *folder = std::exchange(swept, nullptr);
  sweptFiles = sweep(*folder);
  return {};
}
TEST(CacheCalls, ASweepLeavesWhatIsBeingWritten) {
  TestCache cache;
  Folder folder = cache.opened();
  swept = &folder, sweptFiles = -1;
  Hooked hooked(sweepBeforeTheLink);
  EXPECT_EQ(publishEntryFile(folder, entryName(numbered(1).text()), encodeEntry(numbered(1), contentOf(1))),
            0);
  EXPECT_EQ(sweptFiles, 0);
  EXPECT_EQ(cache.open()->find(numbered(1)), contentOf(1));
}

TEST(CacheCalls, ListingIsNoUse) {
  TestCache cache;
  ASSERT_TRUE(cache.open()->publish(numbered(1), contentOf(1)));
  std::filesystem::path path = cache.files().at(0);
  struct timespec times[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_EQ(verify(cache.opened()).good, 1);
  EXPECT_EQ(listEntries(cache.opened()).at(0).modified, 1'000'000'000);
  struct stat status;
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mtim.tv_sec, 1'000'000'000);
}

TEST(CacheCalls, WhatIsNoFileOfAnEntrysSize) {
  TestCache cache;
  ASSERT_TRUE(cache.open()->publish(numbered(1), contentOf(1)));
  std::filesystem::path path = cache.files().at(0);
  std::string name = path.filename().string();
  Folder folder = cache.opened();
  auto expectWrongSize = [&](const char *what) {
    ReadEntry entry = readEntryFile(folder, name, nullptr, true);
    EXPECT_EQ(entry.result, ReadResult::Damaged) << what;
    EXPECT_EQ(entry.why, "not a file of an entry's size") << what;
    std::filesystem::remove_all(path);
  };
  ASSERT_EQ(truncate(path.c_str(), off_t(maxEntryBytes) + 1), 0); // sparse
  expectWrongSize("too long");
  std::filesystem::create_directory(path);
  expectWrongSize("a folder");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  expectWrongSize("a pipe");
  test::writeBytes(cache.top.at("target"), encodeEntry(numbered(1), contentOf(1)));
  std::filesystem::create_symlink(cache.top.at("target"), path);
  EXPECT_EQ(readEntryFile(folder, name, nullptr, true).result, ReadResult::Absent);
  EXPECT_TRUE(listNames(folder).empty()) << "a link is no entry";
}

} // namespace
} // namespace quern::cache
