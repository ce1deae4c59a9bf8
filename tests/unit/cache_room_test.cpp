// The size limit, the sweep, the full disk.
#include "cache_support.h"
#include "runtime/cache/Limit.h"
#include "runtime/cache/Listing.h"
#include <atomic>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

namespace quern::cache {
namespace {

using test::contentOf;
using test::numbered;
using test::TestCache;

uint64_t bytesOnDisk(const TestCache &cache) {
  uint64_t sum = 0;
  for (const auto &path : cache.files()) {
    std::error_code gone;
    uint64_t size = std::filesystem::file_size(path, gone);
    if (!gone) sum += onDisk(size);
  }
  return sum;
}

void setModified(const std::filesystem::path &path, time_t time) {
  struct timespec times[2] = {{time, 0}, {time, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
}

std::filesystem::path pathOf(const TestCache &cache, int number) {
  return std::filesystem::path(cache.folder) / entryPath(entryName(numbered(number).text()));
}

// Ten times the limit in entries of many sizes: never above it, at no step, and most of it used.
TEST(CacheRoom, TenTimesTheLimit) {
  TestCache cache;
  constexpr uint64_t limit = 1 << 20;
  auto store = cache.open(limit);
  std::mt19937_64 random{test::testSeed()};
  uint64_t written = 0;
  for (int i = 0; written < 10 * limit; ++i) {
    size_t size = 100 + random() % 60'000;
    ASSERT_TRUE(store->publish(numbered(i), contentOf(i, size)));
    written += size;
    ASSERT_LE(bytesOnDisk(cache), limit) << "after entry " << i;
    EXPECT_EQ(store->find(numbered(i)), contentOf(i, size)) << "the newest stays";
  }
  EXPECT_GT(bytesOnDisk(cache), limit / 2);
  EXPECT_GT(store->stats().evicted, 100);
  EXPECT_TRUE(verify(cache.opened()).bad.empty());
}

TEST(CacheRoom, EightProcessesKeepOneLimit) {
  TestCache cache;
  constexpr uint64_t limit = 400'000;
  constexpr int processes = 8, entries = 60;
  std::vector<pid_t> children;
  for (int p = 0; p < processes; ++p)
    children.push_back(test::spawnChild([&] {
      auto store = cache.open(limit);
      for (int i = 0; i < entries; ++i) {
        int number = p * 1000 + i;
        auto result =
            store->findOrMake(numbered(number), [&] { return Expected<Content>(contentOf(number, 7000)); });
        if (!result || *result != contentOf(number, 7000)) return 1;
      }
      return 0;
    }));
  uint64_t most = 0;
  for (int watched = 0; watched < 50; ++watched) {
    uint64_t sum = 0; // others delete meanwhile
    Folder folder = cache.opened();
    for (const CacheFile &file : listFiles(folder)) sum += file.bytes;
    most = std::max(most, sum);
    usleep(2000);
  }
  for (pid_t child : children) EXPECT_EQ(test::waitChild(child), 0);
  EXPECT_LE(most, limit + processes * onDisk(8000));
  EXPECT_LE(bytesOnDisk(cache), limit);
  EXPECT_TRUE(verify(cache.opened()).bad.empty());
}

TEST(CacheRoom, TheOldestGoFirst) {
  TestCache cache;
  constexpr uint64_t limit = 10 * 4096;
  auto store = cache.open(limit);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(store->publish(numbered(i), contentOf(i)));
    setModified(pathOf(cache, i), 1'700'000'000 + 100'000 * i);
  }
  EXPECT_TRUE(store->find(numbered(0))); // used: touched, since it was touched long ago
  ASSERT_TRUE(store->publish(numbered(10), contentOf(10)));
  EXPECT_TRUE(store->find(numbered(0)));
  EXPECT_FALSE(store->find(numbered(1)));
  EXPECT_FALSE(store->find(numbered(2)));
  for (int i = 3; i <= 10; ++i) EXPECT_TRUE(store->find(numbered(i))) << i;
}

TEST(CacheRoom, WhatIsLargerThanTheLimitIsNotKept) {
  TestCache cache;
  auto store = cache.open(8192);
  EXPECT_TRUE(store->publish(numbered(1), contentOf(1)));
  EXPECT_FALSE(store->publish(numbered(2), contentOf(2, 20'000)));
  EXPECT_TRUE(store->find(numbered(1))) << "nothing was evicted in vain";
}

TEST(CacheRoom, OtherGenerationsMakeRoomToo) {
  TestCache cache;
  auto store = cache.open(20 * 4096);
  for (int i = 0; i < 15; ++i) ASSERT_TRUE(store->publish(numbered(i), contentOf(i)));
  std::filesystem::rename(cache.folder + "/v1", cache.folder + "/v7");
  test::writeBytes(cache.folder + "/notes.txt", "a user's own file");
  std::filesystem::create_directories(cache.folder + "/version");
  test::writeBytes(cache.folder + "/version/notes.txt", "a user's own file");
  store = cache.open(20 * 4096);
  for (int i = 100; i < 119; ++i) ASSERT_TRUE(store->publish(numbered(i), contentOf(i)));
  Folder folder = cache.opened();
  EXPECT_GE(verify(folder).good, 15);
  EXPECT_LE(verify(folder).bytes, 20u * 4096);
  EXPECT_EQ(clear(folder).failed, 0);
  EXPECT_EQ(cache.files().size(), 2u) << "files of others stay";
}

// A writer without unnamed files leaves a temporary file when it is killed. Not its age counts, but its lock.
TEST(CacheRoom, SweepsWhatTheDeadLeft) {
  TestCache cache;
  auto store = cache.open();
  ASSERT_TRUE(store->publish(numbered(1), contentOf(1)));
  std::filesystem::path shard = cache.files()[0].parent_path();
  test::writeBytes(shard / ".tmp-1-dead", "half an entry");
  test::writeBytes(shard / ".tmp-2-alive", "half an entry");
  int alive = open((shard / ".tmp-2-alive").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(alive, LOCK_EX), 0);
  setModified(shard / ".tmp-2-alive", 1'000'000'000);
  setModified(shard / ".tmp-1-dead", time(nullptr) + 1000);
  Folder folder = cache.opened();
  EXPECT_EQ(verify(folder).temporary, 2);
  folder.network = true;
  EXPECT_EQ(sweep(folder), 0) << "another host's lock could not be seen";
  folder.network = false;
  EXPECT_EQ(sweep(folder), 1);
  EXPECT_FALSE(std::filesystem::exists(shard / ".tmp-1-dead"));
  EXPECT_TRUE(std::filesystem::exists(shard / ".tmp-2-alive"));
  close(alive);
  EXPECT_TRUE(cache.open()->publish(numbered(2), contentOf(2))); // the first publication sweeps
  EXPECT_FALSE(std::filesystem::exists(shard / ".tmp-2-alive"));
  EXPECT_EQ(verify(folder).good, 2);
}

std::atomic<int> writesAllowed{0};
sys::Fault fullDisk(sys::Call call) {
  return call == sys::Call::Write && --writesAllowed < 0 ? sys::Fault{ENOSPC, false} : sys::Fault{};
}

// The disk fills before the limit is reached: room is made once; without success the cache does without.
TEST(CacheRoom, EvictsWhenTheDiskIsFull) {
  test::Notices notices;
  TestCache cache;
  auto store = cache.open();
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(store->publish(numbered(i), contentOf(i)));
  writesAllowed = 0;
  sys::setHook(fullDisk);
  EXPECT_FALSE(store->publish(numbered(8), contentOf(8)));
  sys::setHook([](sys::Call call) {
    static std::atomic<bool> once{true};
    return call == sys::Call::Write && once.exchange(false) ? sys::Fault{ENOSPC, false} : sys::Fault{};
  });
  EXPECT_TRUE(store->publish(numbered(9), contentOf(9)));
  sys::setHook(nullptr);
  EXPECT_GT(store->stats().evicted, 0);
  EXPECT_EQ(notices.texts().size(), 1u);
  EXPECT_THAT(notices.texts()[0], testing::HasSubstr("No space left on device"));
}

// The same on a real file system of 1 MB, in a child with mounts of its own. Exit 77: cannot be mounted.
TEST(CacheRoom, ASmallFileSystem) {
  TestCache cache;
  std::filesystem::create_directories(cache.folder);
  int result = test::waitChild(test::spawnChild([&] {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", cache.folder.c_str(), "tmpfs", 0, "size=1m,mode=0700") != 0)
      return 77;
    test::Notices notices;
    auto store = cache.open();
    int kept = 0;
    for (int i = 0; i < 200; ++i) {
      auto result = store->findOrMake(numbered(i), [&] { return Expected<Content>(contentOf(i, 20'000)); });
      if (!result || *result != contentOf(i, 20'000)) return 1;
      kept += store->find(numbered(i)).has_value();
    }
    if (kept != 200) return 2; // room was made each time
    if (store->stats().evicted < 100) return 3;
    if (store->publish(numbered(1000), contentOf(1000, 2 << 20))) return 4;
    if (notices.texts().size() != 1) return 5;
    if (!verify(cache.opened()).bad.empty()) return 6;
    // Full of somebody else's bytes: nothing can be freed, and kernels run uncached.
    clear(cache.opened());
    std::string filler(4 << 20, 'x');
    test::writeBytes(cache.folder + "/filler", filler);
    auto result = store->findOrMake(numbered(1), [&] { return Expected<Content>(contentOf(1)); });
    if (!result || *result != contentOf(1)) return 7;
    if (store->find(numbered(1))) return 8;
    std::filesystem::remove(cache.folder + "/filler");
    if (!store->publish(numbered(1), contentOf(1))) return 9;
    return 0;
  }));
  if (result == 77) GTEST_SKIP() << "no file system can be mounted here (needs CAP_SYS_ADMIN)";
  EXPECT_EQ(result, 0);
}

// Inodes run out as well: the file cannot even be created.
TEST(CacheRoom, AFileSystemWithoutInodes) {
  TestCache cache;
  std::filesystem::create_directories(cache.folder);
  int result = test::waitChild(test::spawnChild([&] {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", cache.folder.c_str(), "tmpfs", 0, "size=8m,nr_inodes=64,mode=0700") != 0)
      return 77;
    test::Notices notices;
    auto store = cache.open();
    for (int i = 0; i < 100; ++i) {
      auto result = store->findOrMake(numbered(i), [&] { return Expected<Content>(contentOf(i)); });
      if (!result || *result != contentOf(i)) return 1;
    }
    if (notices.texts().size() > 1) return 2;
    return verify(cache.opened()).bad.empty() ? 0 : 3;
  }));
  if (result == 77) GTEST_SKIP() << "no file system can be mounted here (needs CAP_SYS_ADMIN)";
  EXPECT_EQ(result, 0);
}

TEST(CacheRoom, Sizes) {
  EXPECT_EQ(parseBytes("0"), 0u);
  EXPECT_EQ(parseBytes("123"), 123u);
  EXPECT_EQ(parseBytes("4G"), uint64_t(4) << 30);
  EXPECT_EQ(parseBytes("512m"), uint64_t(512) << 20);
  EXPECT_EQ(parseBytes("1KiB"), 1024u);
  EXPECT_EQ(parseBytes("2TB"), uint64_t(2) << 40);
  for (const char *text :
       {"", "G", "-1", "4X", "4Gb", "4 G", "1.5G", "99999999999999999999", "18446744073709551615K"})
    EXPECT_FALSE(parseBytes(text)) << text;
}

} // namespace
} // namespace quern::cache
