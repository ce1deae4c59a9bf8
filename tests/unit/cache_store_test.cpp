// The store in one process: first wins, single flight over threads, memory only, clocks, notices.
#include "cache_support.h"
#include <atomic>
#include <barrier>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <thread>

namespace quern::cache {
namespace {

using test::contentOf;
using test::numbered;
using test::TestCache;

TEST(CacheStore, FindsWhatWasPublished) {
  TestCache cache;
  auto store = cache.open();
  EXPECT_FALSE(store->find(numbered(1)));
  Content content = contentOf(1);
  content.sections.push_back({"", ""});
  content.sections.push_back({"meta", "the first of two sections of one name is found"});
  EXPECT_TRUE(store->publish(numbered(1), content));
  EXPECT_EQ(store->find(numbered(1)), content);
  EXPECT_EQ(*store->find(numbered(1))->find("meta"), "{\"number\":1}");
  EXPECT_FALSE(store->find(numbered(1))->find("other"));
  EXPECT_FALSE(store->find(numbered(2)));
  EXPECT_EQ(cache.open()->find(numbered(1)), content);
  ASSERT_EQ(cache.files().size(), 1u);
  struct stat status;
  ASSERT_EQ(stat(cache.files()[0].c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  EXPECT_EQ(cache.files()[0].filename(), numbered(1).hash() + ".entry");
}

TEST(CacheStore, TheFirstWins) {
  TestCache cache;
  auto store = cache.open();
  EXPECT_TRUE(store->publish(numbered(1), contentOf(1)));
  EXPECT_TRUE(store->publish(numbered(1), contentOf(2)));
  EXPECT_EQ(store->find(numbered(1)), contentOf(1));
  EXPECT_EQ(store->stats().published, 1);
  store->discard(numbered(1));
  EXPECT_FALSE(store->find(numbered(1)));
  store->discard(numbered(1));
  EXPECT_TRUE(store->publish(numbered(1), contentOf(2)));
  EXPECT_EQ(store->find(numbered(1)), contentOf(2));
}

TEST(CacheStore, ACopiedFolderHasEverything) {
  TestCache from, to;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(from.open()->publish(numbered(i), contentOf(i)));
  std::filesystem::copy(from.folder, to.folder, std::filesystem::copy_options::recursive);
  auto store = to.open();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(store->find(numbered(i)), contentOf(i));
}

TEST(CacheStore, MakesWhatIsMissingOnce) {
  TestCache cache;
  auto store = cache.open();
  int makes = 0;
  bool made = false;
  auto make = [&]() -> Expected<Content> {
    ++makes;
    return contentOf(1);
  };
  for (int i = 0; i < 3; ++i) {
    auto result = store->findOrMake(numbered(1), make, &made);
    ASSERT_TRUE(result);
    EXPECT_EQ(*result, contentOf(1));
    EXPECT_EQ(made, i == 0);
  }
  EXPECT_EQ(makes, 1);
  EXPECT_EQ(store->stats().diskHits, 2);
  EXPECT_EQ(store->stats().misses, 1);
}

// What was made is not read back: it is right even if the folder gives something else.
TEST(CacheStore, ReturnsWhatWasMade) {
  TestCache cache;
  auto store = cache.open();
  auto result = store->findOrMake(numbered(1), [&]() -> Expected<Content> {
    EXPECT_TRUE(cache.open()->publish(numbered(1), contentOf(2))); // another host was faster
    return contentOf(1);
  });
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, contentOf(1));
}

TEST(CacheStore, FailuresAreNotKept) {
  TestCache cache;
  auto store = cache.open();
  auto result = store->findOrMake(numbered(1), [] { return Expected<Content>(Error::system("no ptxas")); });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message, "no ptxas");
  EXPECT_TRUE(cache.files().empty());
  EXPECT_TRUE(store->findOrMake(numbered(1), [] { return Expected<Content>(contentOf(1)); }));
}

TEST(CacheStore, AMakerMayAskForOtherKeysAndItsOwn) {
  test::Notices notices;
  TestCache cache;
  auto store = cache.open();
  int depth = 0;
  auto result = store->findOrMake(numbered(1), [&]() -> Expected<Content> {
    auto other = store->findOrMake(numbered(2), [] { return Expected<Content>(contentOf(2)); });
    EXPECT_TRUE(other);
    auto own = store->findOrMake(numbered(1), [&]() -> Expected<Content> {
      ++depth;
      return contentOf(1);
    });
    EXPECT_TRUE(own);
    return own;
  });
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, contentOf(1));
  EXPECT_EQ(depth, 1);
  EXPECT_EQ(store->stats().waited, 0);
  EXPECT_TRUE(notices.texts().empty());
}

// 32 threads x 40 keys, all at once: 40 makes, and the lock of the table is not held during a make.
TEST(CacheStore, ThreadsShareOneMake) {
  TestCache cache;
  auto store = cache.open();
  constexpr int threads = 32, keys = 40;
  std::atomic<int> makes{0}, wrong{0}, atOnce{0}, mostAtOnce{0};
  std::barrier start(threads);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t)
    running.emplace_back([&, t] {
      start.arrive_and_wait();
      for (int i = 0; i < keys; ++i) {
        int number = (i * 7 + t * 3) % keys;
        auto result = store->findOrMake(numbered(number), [&]() -> Expected<Content> {
          ++makes;
          int now = ++atOnce;
          for (int most = mostAtOnce; most < now && !mostAtOnce.compare_exchange_weak(most, now);) {
          }
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
          --atOnce;
          return contentOf(number);
        });
        if (!result || *result != contentOf(number)) ++wrong;
      }
    });
  for (std::thread &thread : running) thread.join();
  EXPECT_EQ(makes, keys);
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(mostAtOnce, 1);
}

TEST(CacheStore, ThreadsShareOneFailure) {
  TestCache cache;
  auto store = cache.open();
  std::atomic<int> makes{0}, failures{0};
  std::barrier start(8);
  std::vector<std::thread> running;
  for (int t = 0; t < 8; ++t)
    running.emplace_back([&] {
      start.arrive_and_wait();
      auto result = store->findOrMake(numbered(1), [&]() -> Expected<Content> {
        ++makes;
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        return Error::user("refused");
      });
      failures += !result && result.error().message == "refused";
    });
  for (std::thread &thread : running) thread.join();
  EXPECT_EQ(failures, 8);
  EXPECT_LT(makes, 8);
}

TEST(CacheStore, AnExceptionLeavesNobodyWaiting) {
  TestCache cache;
  auto store = cache.open();
  std::atomic<bool> making{false};
  std::thread thrower([&] {
    EXPECT_THROW(
        {
          auto result = store->findOrMake(numbered(1), [&]() -> Expected<Content> {
            making = true;
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            throw std::bad_alloc();
          });
          (void)result;
        },
        std::bad_alloc);
  });
  while (!making) std::this_thread::yield();
  auto result = store->findOrMake(numbered(1), [] { return Expected<Content>(contentOf(1)); });
  thrower.join();
  if (!result) EXPECT_EQ(result.error().kind, ErrorKind::Internal);
  EXPECT_TRUE(store->findOrMake(numbered(1), [] { return Expected<Content>(contentOf(1)); }));
}

TEST(CacheStore, WithoutAFolderItMakesEachTime) {
  DiskStore store{StoreOptions()};
  int makes = 0;
  for (int i = 0; i < 2; ++i)
    EXPECT_TRUE(store.findOrMake(numbered(1), [&]() -> Expected<Content> {
      ++makes;
      return contentOf(1);
    }));
  EXPECT_EQ(makes, 2);
  EXPECT_EQ(store.folder(), "");
  EXPECT_FALSE(store.publish(numbered(1), contentOf(1)));
  store.discard(numbered(1));
}

// Times of files say nothing about what is right; a wrong clock may cost an entry its place, no more.
TEST(CacheStore, ClocksOfTenYears) {
  TestCache cache;
  auto store = cache.open();
  ASSERT_TRUE(store->publish(numbered(1), contentOf(1)));
  std::string path = cache.files()[0];
  time_t now = time(nullptr);
  auto modified = [&] {
    struct stat status;
    EXPECT_EQ(stat(path.c_str(), &status), 0);
    return status.st_mtime;
  };
  constexpr time_t years = 10 * 365 * 86400;
  for (time_t shift : {-years, years, time_t(-4000), time_t(4000)}) {
    struct timespec times[2] = {{now + shift, 0}, {now + shift, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    EXPECT_EQ(store->find(numbered(1)), contentOf(1));
    EXPECT_LT(std::abs(modified() - now), 60) << "used: touched";
    for (const char *folder : {"", "v1"})
      utimensat(AT_FDCWD, (cache.folder + "/" + folder).c_str(), times, 0);
    EXPECT_EQ(store->find(numbered(1)), contentOf(1));
    EXPECT_TRUE(store->publish(numbered(2), contentOf(2)));
    store->discard(numbered(2));
  }
  struct timespec recent[2] = {{now - 1800, 0}, {now - 1800, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), recent, 0), 0);
  EXPECT_TRUE(store->find(numbered(1)));
  EXPECT_EQ(modified(), now - 1800) << "touched hourly at most";
}

TEST(CacheStore, SchemaVersionsDoNotMeet) {
  TestCache cache;
  auto store = cache.open();
  ASSERT_TRUE(store->publish(numbered(1), contentOf(1)));
  std::filesystem::rename(cache.folder + "/v1", cache.folder + "/v2");
  EXPECT_FALSE(store->find(numbered(1)));
  EXPECT_TRUE(store->publish(numbered(1), contentOf(1)));
}

TEST(CacheNotice, OncePerTopic) {
  test::Notices notices;
  EXPECT_TRUE(notice("cache", "first"));
  EXPECT_FALSE(notice("cache", "second"));
  EXPECT_TRUE(notice("other", "third"));
  EXPECT_THAT(notices.texts(), testing::ElementsAre("first", "third"));
  for (int i = 0; i < 200; ++i) notice(fmt::format("topic {}", i), "many"); // the table is finite
  EXPECT_LE(notices.texts().size(), 64u);
}

} // namespace
} // namespace quern::cache
