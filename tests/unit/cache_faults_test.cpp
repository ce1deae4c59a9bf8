// Every failing system call, one after the other: a wrong answer never, a crash never, one warning at most;
// and when the calls work again, so does the cache.
#include "cache_support.h"
#include "runtime/cache/Listing.h"
#include <cerrno>
#include <fmt/format.h>

namespace quern::cache {
namespace {

using test::contentOf;
using test::FailNth;
using test::numbered;
using test::TestCache;

struct How {
  const char *name;
  sys::Fault fault;
  bool forEver;
};
const How ways[] = {
    {"io", {EIO, false}, false},
    {"io_for_ever", {EIO, false}, true},
    {"no_space", {ENOSPC, false}, false},
    {"no_space_for_ever", {ENOSPC, false}, true},
    {"quota_for_ever", {EDQUOT, false}, true},
    {"interrupted", {EINTR, false}, false},
    {"interrupted_for_ever", {EINTR, false}, true},
    {"stale", {ESTALE, false}, false},
    {"stale_for_ever", {ESTALE, false}, true},
    {"denied_for_ever", {EACCES, false}, true},
    {"read_only_for_ever", {EROFS, false}, true},
    {"no_unnamed_files", {EOPNOTSUPP, false}, false},
    {"too_many_files_for_ever", {EMFILE, false}, true},
    {"short", {0, true}, false},
    {"short_for_ever", {0, true}, true},
};

class CacheFaults : public testing::TestWithParam<std::tuple<How, bool>> {
protected:
  How how = std::get<0>(GetParam());
  test::Notices notices;
  void SetUp() override {
    if (std::get<1>(GetParam())) sys::setFileSystemType(0x6969); // NFS: synced before it is linked
  }
  void TearDown() override { sys::setFileSystemType(0); }

  /// Runs `body` with its n-th call failing, n = 1, 2, ... until none fails.
  void eachCall(const std::function<void(int64_t n)> &prepare, const std::function<void()> &body,
                const std::function<void()> &after) {
    int64_t n = 1;
    for (;; ++n) {
      SCOPED_TRACE(fmt::format("{}, call {}", how.name, n));
      forgetNotices();
      size_t before = notices.texts().size();
      prepare(n);
      bool fired;
      {
        FailNth failing(n, how.fault, how.forEver);
        body();
        fired = failing.fired();
      }
      after();
      EXPECT_LE(notices.texts().size(), before + 1);
      if (!fired || HasFailure()) break;
    }
    EXPECT_GT(n, 5) << "no calls to fail";
  }
};

TEST_P(CacheFaults, WhilePublishing) {
  TestCache cache;
  std::unique_ptr<DiskStore> store;
  eachCall(
      [&](int64_t) {
        std::filesystem::remove_all(cache.folder);
        store = cache.open();
      },
      [&] {
        // What was made is launched, whatever becomes of the disk.
        bool made = false;
        auto result = store->findOrMake(numbered(1), [] { return Expected<Content>(contentOf(1)); }, &made);
        ASSERT_TRUE(result);
        EXPECT_TRUE(made);
        EXPECT_EQ(*result, contentOf(1));
      },
      [&] {
        std::optional<Content> found = store->find(numbered(1));
        if (found) EXPECT_EQ(*found, contentOf(1));
        EXPECT_TRUE(store->publish(numbered(1), contentOf(1)));
        EXPECT_EQ(store->find(numbered(1)), contentOf(1));
        sweep(cache.opened());
        // On a network a temporary file whose unlinking failed waits for eviction: its writer may live
        // elsewhere.
        EXPECT_LE(cache.files().size(), std::get<1>(GetParam()) ? 2u : 1u) << "left behind";
        EXPECT_TRUE(verify(cache.opened()).bad.empty());
      });
}

TEST_P(CacheFaults, WhileReading) {
  TestCache cache;
  auto store = cache.open();
  ASSERT_TRUE(store->publish(numbered(1), contentOf(1)));
  eachCall([&](int64_t) { store = cache.open(); },
           [&] {
             std::optional<Content> found = store->find(numbered(1));
             if (found) EXPECT_EQ(*found, contentOf(1));
           },
           // A failing read is no damage: the entry stays.
           [&] { EXPECT_EQ(store->find(numbered(1)), contentOf(1)); });
}

TEST_P(CacheFaults, WhileOpening) {
  TestCache cache;
  Places places;
  places.cacheDir = cache.folder + "/deep/folder";
  places.temporary = cache.folder;
  eachCall([&](int64_t) { std::filesystem::remove_all(cache.folder), cache.opened(); },
           [&] {
             FolderChoice choice = chooseFolder(places);
             EXPECT_EQ(choice.source == "none", !choice.folder);
             EXPECT_EQ(choice.source == "QUERN_CACHE_DIR", choice.warning.empty()) << choice.warning;
             LockFolder locks(openLockFolder(places));
           },
           [&] { EXPECT_EQ(chooseFolder(places).source, "QUERN_CACHE_DIR"); });
}

TEST_P(CacheFaults, WhileMakingRoom) {
  TestCache cache;
  std::unique_ptr<DiskStore> store;
  eachCall(
      [&](int64_t) {
        std::filesystem::remove_all(cache.folder);
        store = cache.open(20'000);
        for (int i = 1; i <= 4; ++i) ASSERT_TRUE(store->publish(numbered(i), contentOf(i)));
      },
      [&] { store->publish(numbered(5), contentOf(5)); },
      [&] {
        for (int i = 1; i <= 5; ++i)
          if (std::optional<Content> found = store->find(numbered(i))) EXPECT_EQ(*found, contentOf(i));
        EXPECT_TRUE(store->publish(numbered(6), contentOf(6)));
        EXPECT_TRUE(verify(cache.opened()).bad.empty());
      });
}

INSTANTIATE_TEST_SUITE_P(Ways, CacheFaults, testing::Combine(testing::ValuesIn(ways), testing::Bool()),
                         [](const auto &info) {
                           return fmt::format("{}{}", std::get<0>(info.param).name,
                                              std::get<1>(info.param) ? "_nfs" : "");
                         });

} // namespace
} // namespace quern::cache
