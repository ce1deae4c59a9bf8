// Exact edges of the room, the folders and the listing: one file more or less, one refused call, one owner.
#include "cache_support.h"
#include "runtime/cache/Limit.h"
#include "runtime/cache/Listing.h"
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace quern::cache {
namespace {

using test::contentOf;
using test::Hooked;
using test::numbered;
using test::TestCache;

/// Entries 0 to count - 1, of one block each, the first one the oldest.
void fill(const TestCache &cache, DiskStore &store, int count) {
  for (int i = 0; i < count; ++i) {
    ASSERT_TRUE(store.publish(numbered(i), contentOf(i)));
    std::string path = cache.folder + "/" + entryPath(entryName(numbered(i).text()));
    struct timespec times[2] = {{1'700'000'000 + i, 0}, {1'700'000'000 + i, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
}

TEST(CacheEdges, NotOneFileMoreThanMustGo) {
  TestCache cache;
  auto store = cache.open(8 * 4096); // an eighth of it is one file
  fill(cache, *store, 8);
  EXPECT_EQ(cache.files().size(), 8u) << "the limit itself may be reached";
  ASSERT_TRUE(store->publish(numbered(8), contentOf(8)));
  EXPECT_EQ(store->stats().evicted, 1);
  EXPECT_FALSE(store->find(numbered(0)));
  EXPECT_TRUE(store->find(numbered(1)));
}

std::atomic<int> refusals{0};
sys::Fault refuseDeletions(sys::Call call) {
  return {call == sys::Call::Unlink && refusals-- > 0 ? EPERM : 0, false};
}

TEST(CacheEdges, WhatCannotBeDeletedFreesNothing) {
  TestCache cache;
  auto store = cache.open(8 * 4096);
  fill(cache, *store, 8);
  refusals = 3;
  Hooked hooked(refuseDeletions);
  EXPECT_TRUE(store->publish(numbered(8), contentOf(8)));
  EXPECT_LE(cache.files().size(), 8u);
  EXPECT_TRUE(store->find(numbered(0)));
  EXPECT_FALSE(store->find(numbered(3))) << "the next one in its place";
}

TEST(CacheEdges, AFullDiskFreesWhatIsWantedAndAnEighth) {
  for (auto [bytes, gone] : {std::pair(1, 2), std::pair(5 * 4096, 5)}) {
    TestCache cache;
    auto store = cache.open();
    fill(cache, *store, 16);
    Room room;
    EXPECT_TRUE(room.freeUp(cache.opened(), uint64_t(bytes)));
    EXPECT_EQ(room.evicted(), gone) << bytes;
  }
  TestCache empty;
  EXPECT_FALSE(Room().freeUp(empty.opened(), 1));
}

std::atomic<int> fullWrites{0};
sys::Fault overQuota(sys::Call call) {
  return {call == sys::Call::Write && fullWrites-- > 0 ? EDQUOT : 0, false};
}

TEST(CacheEdges, AQuotaIsAFullDisk) {
  TestCache cache;
  test::Notices notices;
  auto store = cache.open();
  fill(cache, *store, 8);
  fullWrites = 1;
  Hooked hooked(overQuota);
  EXPECT_TRUE(store->publish(numbered(8), contentOf(8)));
  EXPECT_EQ(store->stats().evicted, 1);
  EXPECT_TRUE(store->find(numbered(8)));
  EXPECT_TRUE(notices.texts().empty());
}

/// A folder that is there to be read: nothing in it is deleted, whatever this process could do.
TEST(CacheEdges, AReadOnlyStoreDeletesNothing) {
  TestCache cache;
  test::Notices notices;
  ASSERT_TRUE(cache.open()->publish(numbered(1), contentOf(1)));
  ASSERT_TRUE(cache.open()->publish(numbered(2), contentOf(2)));
  std::filesystem::path second = cache.folder + "/" + entryPath(entryName(numbered(2).text()));
  test::writeBytes(second, "damaged");
  StoreOptions options;
  options.folder = cache.opened();
  options.folder->writable = false;
  DiskStore store(std::move(options));
  EXPECT_FALSE(store.find(numbered(2)));
  EXPECT_FALSE(store.publish(numbered(3), contentOf(3)));
  store.discard(numbered(1));
  EXPECT_EQ(cache.files().size(), 2u);
  EXPECT_TRUE(store.find(numbered(1)));
}

TEST(CacheEdges, DiscardLeavesAnotherKeysEntry) {
  TestCache cache;
  auto store = cache.open();
  ASSERT_TRUE(store->publish(numbered(1), contentOf(1)));
  std::filesystem::path second = cache.folder + "/" + entryPath(entryName(numbered(2).text()));
  std::filesystem::create_directories(second.parent_path());
  std::filesystem::copy_file(cache.files().at(0), second); // as if both keys had one hash
  store->discard(numbered(2));
  EXPECT_TRUE(std::filesystem::exists(second));
  store->discard(numbered(1));
  EXPECT_FALSE(store->find(numbered(1)));
}

TEST(CacheEdges, ALimitOfZeroIsNone) {
  for (auto [text, limit] : {std::pair("0", UINT64_MAX), std::pair("1K", uint64_t(1024))})
    EXPECT_EQ(test::waitChild(test::spawnChild([&] {
                setenv("QUERN_CACHE_LIMIT", text, 1);
                return limitFromEnvironment() == limit ? 0 : 1;
              })),
              0)
        << text;
}

TEST(CacheEdges, OfEquallyNearEntriesTheLastUsed) {
  TestCache cache;
  auto store = cache.open();
  fill(cache, *store, 12); // the later one is later in time, and anywhere in the order of names
  auto found = nearest(cache.opened(), numbered(99));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->differing, 1u);
  EXPECT_EQ(found->entry.keyText, numbered(11).text());
}

TEST(CacheEdges, AFieldThatOnlyOneKeyHasCounts) {
  TestCache cache;
  ASSERT_TRUE(cache.open()->publish(numbered(1), contentOf(1)));
  Key more = numbered(1), less = numbered(1);
  more.add("schedule", "bm=64");
  less.fields.pop_back();
  for (const Key &key : {more, less}) {
    auto found = nearest(cache.opened(), key);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->differing, 1u) << key.text();
  }
  EXPECT_EQ(nearest(cache.opened(), numbered(1))->differing, 0u);
}

/// An intact entry under the right name, of a key that no writer writes.
TEST(CacheEdges, AKeyThatIsNotInNormalForm) {
  TestCache cache;
  std::string text = "gpu\nno field\n";
  ASSERT_EQ(publishEntryFile(cache.opened(), entryName(text), encodeEntry(text, contentOf(1))), 0);
  VerifyReport report = verify(cache.opened());
  EXPECT_EQ(report.good, 0);
  ASSERT_EQ(report.bad.size(), 1u);
  EXPECT_EQ(report.bad[0].why, "its key is not in normal form");
}

/// Near the limit processes take turns: until the file is there, nobody else may count.
TEST(CacheEdges, RoomIsHeldUntilTheFileIsThere) {
  TestCache cache;
  Folder folder = cache.opened();
  LockFolder locks(openFolder(cache.locks, true));
  struct stat status;
  ASSERT_EQ(sys::stat(folder.file.get(), status), 0);
  uint64_t number = status.st_ino ^ (uint64_t(status.st_dev) << 32);
  Room room;
  Lock hold, other;
  ASSERT_TRUE(room.makeFor(folder, &locks, 8 * 4096, 1, hold));
  EXPECT_EQ(locks.tryLock("room", number, other), LockFolder::Outcome::Busy);
  hold.release();
  EXPECT_EQ(locks.tryLock("room", number, other), LockFolder::Outcome::Held);
}

TEST(CacheEdges, OnlyGenerationsAndTheirOwnShardsAreListed) {
  TestCache cache;
  ASSERT_TRUE(cache.open()->publish(numbered(1), contentOf(1)));
  std::filesystem::path entry = cache.files().at(0);
  for (const char *strange : {"version/ab", "v/ab", "v1x/ab", "x1/ab"}) {
    std::filesystem::create_directories(cache.folder + "/" + strange);
    test::writeBytes(cache.folder + "/" + strange + "/notes.txt", "a user's own file");
  }
  EXPECT_EQ(listFiles(cache.opened()).size(), 1u);
  std::filesystem::path wrong = cache.folder + std::string("/v1/zz");
  std::filesystem::create_directories(wrong);
  std::filesystem::copy_file(entry, wrong / entry.filename());
  EXPECT_EQ(listFiles(cache.opened()).size(), 2u) << "it takes room";
  EXPECT_EQ(listNames(cache.opened()).size(), 1u) << "and is found by nobody";
}

TEST(CacheEdges, LookingMakesNoFolder) {
  TestCache cache;
  EXPECT_FALSE(openFolder(cache.top.at("missing/cache"), false));
  EXPECT_FALSE(std::filesystem::exists(cache.top.at("missing")));
  EXPECT_TRUE(openFolder(cache.top.at("missing/cache"), true));
}

/// Another process makes the folder first.
std::string folderOfOthers;
sys::Fault othersMakeIt(sys::Call call) {
  if (call != sys::Call::MakeDir || folderOfOthers.empty()) return {};
  ::mkdir(std::exchange(folderOfOthers, {}).c_str(), 0700);
  return {EEXIST, false};
}
TEST(CacheEdges, TwoProcessesMakeOneFolder) {
  TestCache cache;
  folderOfOthers = cache.top.at("ours");
  {
    Hooked hooked(othersMakeIt);
    auto opened = openFolder(cache.top.at("ours/cache"), true);
    EXPECT_TRUE(opened) << opened.error().str();
  }
  Folder folder = cache.opened();
  folderOfOthers = cache.folder + "/v1";
  Hooked hooked(othersMakeIt);
  EXPECT_EQ(publishEntryFile(folder, entryName(numbered(1).text()), encodeEntry(numbered(1), contentOf(1))),
            0);
}

TEST(CacheEdges, NobodysFolderIsNotRoots) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a folder away";
  TestCache cache;
  std::filesystem::create_directories(cache.top.at("theirs/cache"));
  ASSERT_EQ(chown(cache.top.at("theirs").c_str(), 65534, 65534), 0);
  auto opened = openFolder(cache.top.at("theirs/cache"), false);
  ASSERT_FALSE(opened) << "root is mapped here: 65534 is somebody else";
  EXPECT_THAT(opened.error().str(), testing::HasSubstr("it belongs to user 65534"));
}

std::atomic<int> denials{0};
sys::Fault denyAccess(sys::Call call) {
  return {call == sys::Call::Access && denials-- > 0 ? EROFS : 0, false};
}

TEST(CacheEdges, FoldersThatCannotBeWritten) {
  TestCache cache;
  Places places;
  places.temporary = cache.top.path.string();
  places.xdgRuntimeDir = cache.top.at("run");
  std::filesystem::create_directory(*places.xdgRuntimeDir);
  Hooked hooked(denyAccess);
  denials = 0;
  auto locks = openLockFolder(places);
  ASSERT_TRUE(locks);
  EXPECT_THAT(locks->path, testing::StartsWith(*places.xdgRuntimeDir));
  denials = 1; // the folder of the runtime is read-only
  locks = openLockFolder(places);
  ASSERT_TRUE(locks);
  EXPECT_THAT(locks->path, testing::Not(testing::StartsWith(*places.xdgRuntimeDir)));
  denials = 1000; // so is the temporary one, and there is no other: nothing could be kept there
  EXPECT_EQ(chooseFolder(places).source, "none");
}

} // namespace
} // namespace quern::cache
