// Several processes on one cache: each entry made once; killed, stopped and forked processes hurt nobody.
#include "cache_support.h"
#include "runtime/cache/Listing.h"
#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace quern::cache {
namespace {

using namespace std::chrono_literals;
using test::contentOf;
using test::numbered;
using test::spawnChild;
using test::TestCache;
using test::waitChild;

/// Counts over processes: one byte each in a file.
void count(const std::string &path) {
  int file = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  ssize_t written = write(file, "x", 1);
  (void)written;
  close(file);
}
uint64_t counted(const std::string &path) {
  std::error_code absent;
  uint64_t size = std::filesystem::file_size(path, absent);
  return absent ? 0 : size;
}

/// Waits until `condition` holds, at most 20 s.
bool eventually(const std::function<bool()> &condition) {
  for (int i = 0; i < 10'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return false;
}

// 16 processes warm the same 40 entries at once, each in an order of its own.
TEST(CacheProcess, SixteenProcessesMakeEachEntryOnce) {
  TestCache cache;
  constexpr int processes = 16, keys = 40;
  std::vector<pid_t> children;
  for (int p = 0; p < processes; ++p)
    children.push_back(spawnChild([&] {
      auto store = cache.open();
      for (int i = 0; i < keys; ++i) {
        int number = (i * 7 + p * 5) % keys;
        auto result = store->findOrMake(numbered(number), [&]() -> Expected<Content> {
          count(cache.top.at(fmt::format("made{}", number)));
          std::this_thread::sleep_for(3ms);
          return contentOf(number);
        });
        if (!result || *result != contentOf(number)) return 1;
      }
      return 0;
    }));
  for (pid_t child : children) EXPECT_EQ(waitChild(child), 0);
  for (int i = 0; i < keys; ++i) EXPECT_EQ(counted(cache.top.at(fmt::format("made{}", i))), 1u) << i;
  VerifyReport report = verify(cache.opened());
  EXPECT_EQ(report.good, keys);
  EXPECT_TRUE(report.bad.empty());
  EXPECT_EQ(report.temporary, 0);
}

// Writers are killed at 200 random moments; nothing that is found is wrong, and all is as if they had never
// been.
TEST(CacheProcess, KilledAtRandomMoments) {
  TestCache cache;
  std::mt19937_64 random{test::testSeed()};
  cache.opened();
  for (int round = 0; round < 200; ++round) {
    bool named = round % 2; // every second one without unnamed files
    pid_t child = spawnChild([&] {
      if (named)
        sys::setHook([](sys::Call call) {
          return sys::Fault{call == sys::Call::OpenUnnamed ? EOPNOTSUPP : 0, false};
        });
      auto store = cache.open(300'000);
      for (int i = 0;; i = (i + 1) % 60) {
        auto result = store->findOrMake(numbered(i), [&] { return Expected<Content>(contentOf(i, 20'000)); });
        if (!result || *result != contentOf(i, 20'000)) return 1;
      }
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 6000));
    kill(child, SIGKILL);
    ASSERT_EQ(waitChild(child), -SIGKILL) << "it found something wrong";
    if (round % 20 == 19) {
      VerifyReport report = verify(cache.opened());
      ASSERT_TRUE(report.bad.empty()) << report.bad[0].path << ": " << report.bad[0].why;
      ASSERT_LE(report.bytes, 320'000u);
    }
  }
  Folder folder = cache.opened();
  sweep(folder);
  EXPECT_EQ(verify(folder).temporary, 0);
  auto store = cache.open(UINT64_MAX, 100ms);
  for (int i = 0; i < 60; ++i)
    EXPECT_TRUE(store->findOrMake(numbered(i), [&] { return Expected<Content>(contentOf(i, 20'000)); }));
  EXPECT_EQ(store->stats().waited, 0) << "a lock outlived its holder";
}

// A holder that is stopped, not dead, holds its lock: the others wait for their time, then make the entry
// too.
TEST(CacheProcess, AStoppedHolderDelaysTheOthersOnce) {
  TestCache cache;
  pid_t holder = spawnChild([&] {
    auto store = cache.open();
    auto result = store->findOrMake(numbered(1), [&]() -> Expected<Content> {
      count(cache.top.at("making"));
      raise(SIGSTOP);
      return contentOf(1);
    });
    return result && *result == contentOf(1) ? 0 : 1;
  });
  ASSERT_TRUE(eventually([&] { return counted(cache.top.at("making")) == 1; }));
  ASSERT_EQ(waitpid(holder, nullptr, WUNTRACED), holder);
  std::vector<pid_t> others;
  for (int i = 0; i < 4; ++i)
    others.push_back(spawnChild([&] {
      test::Notices notices;
      auto store = cache.open(UINT64_MAX, 300ms);
      bool made = false;
      auto result =
          store->findOrMake(numbered(1), [&]() -> Expected<Content> { return contentOf(1); }, &made);
      if (!result || *result != contentOf(1)) return 1;
      // Who came when another one had given up and published the entry found it at once.
      if (made && store->stats().waited != 1) return 2;
      if (store->stats().waited) count(cache.top.at("waited"));
      // Whoever waited to the end says for whom; who found the entry meanwhile says nothing.
      for (const std::string &text : notices.texts())
        if (text.find(fmt::format("process {} (", holder)) == text.npos) return 3;
      return 0;
    }));
  for (pid_t other : others) EXPECT_EQ(waitChild(other), 0);
  EXPECT_GE(counted(cache.top.at("waited")), 1u) << "the first to come finds a lock and no entry";
  kill(holder, SIGCONT);
  EXPECT_EQ(waitChild(holder), 0);
  EXPECT_TRUE(verify(cache.opened()).bad.empty());
  EXPECT_EQ(verify(cache.opened()).good, 1);
}

// Another host published it, or the holder was stopped just after: nobody waits for the lock then.
TEST(CacheProcess, AWaiterTakesWhatOthersPublish) {
  TestCache cache;
  pid_t holder = spawnChild([&] {
    auto result = cache.open()->findOrMake(numbered(1), [&]() -> Expected<Content> {
      count(cache.top.at("making"));
      pause();
      return contentOf(1);
    });
    return int(bool(result));
  });
  ASSERT_TRUE(eventually([&] { return counted(cache.top.at("making")) == 1; }));
  pid_t waiter = spawnChild([&] {
    auto store = cache.open(UINT64_MAX, 1h);
    count(cache.top.at("waiting"));
    bool made = true;
    auto result = store->findOrMake(numbered(1), [&]() -> Expected<Content> { return contentOf(2); }, &made);
    count(cache.top.at("done"));
    return result && !made && *result == contentOf(1) ? 0 : 1;
  });
  ASSERT_TRUE(eventually([&] { return counted(cache.top.at("waiting")) == 1; }));
  std::this_thread::sleep_for(20ms);
  EXPECT_TRUE(cache.open()->publish(numbered(1), contentOf(1)));
  // The holder lives on; without looking at the disk the waiter would wait for an hour.
  bool done = eventually([&] { return counted(cache.top.at("done")) == 1; });
  EXPECT_TRUE(done);
  if (!done) kill(waiter, SIGKILL);
  EXPECT_EQ(waitChild(waiter), 0);
  kill(holder, SIGKILL);
  EXPECT_EQ(waitChild(holder), -SIGKILL);
}

TEST(CacheProcess, AKilledHolderFreesItsLock) {
  TestCache cache;
  pid_t holder = spawnChild([&] {
    auto result = cache.open()->findOrMake(numbered(1), [&]() -> Expected<Content> {
      count(cache.top.at("making"));
      pause();
      return contentOf(1);
    });
    return int(bool(result));
  });
  ASSERT_TRUE(eventually([&] { return counted(cache.top.at("making")) == 1; }));
  pid_t waiter = spawnChild([&] {
    auto store = cache.open(UINT64_MAX, 60s);
    static std::string waiting;
    waiting = cache.top.at("waiting");
    sys::setHook([](sys::Call call) {
      static std::atomic<int> tries{0}; // who tries a second time has found the lock held
      if (call == sys::Call::Lock && ++tries == 2) count(waiting);
      return sys::Fault{};
    });
    bool made = false;
    auto result = store->findOrMake(numbered(1), [&]() -> Expected<Content> { return contentOf(1); }, &made);
    return result && made && store->stats().waited == 1 ? 0 : 1;
  });
  ASSERT_TRUE(eventually([&] { return counted(cache.top.at("waiting")) == 1; }));
  kill(holder, SIGKILL);
  EXPECT_EQ(waitChild(holder), -SIGKILL);
  EXPECT_EQ(waitChild(waiter), 0);
}

// A child of fork() that lives on (a data loader) does not hold its dead parent's locks.
TEST(CacheProcess, AForkedChildHoldsNoLock) {
  TestCache cache;
  int hold[2];
  ASSERT_EQ(pipe2(hold, O_CLOEXEC), 0);
  pid_t parent = spawnChild([&] {
    auto result = cache.open()->findOrMake(numbered(1), [&]() -> Expected<Content> {
      if (fork() == 0) {
        char byte;
        close(hold[1]);
        ssize_t got = read(hold[0], &byte, 1); // until the test lets go
        _exit(int(got));
      }
      count(cache.top.at("forked"));
      pause();
      return contentOf(1);
    });
    return int(bool(result));
  });
  ASSERT_TRUE(eventually([&] { return counted(cache.top.at("forked")) == 1; }));
  kill(parent, SIGKILL);
  EXPECT_EQ(waitChild(parent), -SIGKILL);
  test::Notices notices; // one would tell of a wait to the end
  auto store = cache.open(UINT64_MAX, 2s);
  EXPECT_TRUE(store->findOrMake(numbered(1), [&]() -> Expected<Content> { return contentOf(1); }));
  EXPECT_TRUE(notices.texts().empty());
  EXPECT_TRUE(verify(cache.opened()).bad.empty());
  close(hold[1]);
  close(hold[0]);
}

// fork() while eight threads make entries: the child inherits half-made flights and held locks, and must get
// its own results; the parent must not notice.
TEST(CacheProcess, ForkUnderMakingThreads) {
  int result = waitChild(spawnChild([] { // apart from this process, which may have threads of other tests
    TestCache cache;
    auto store = cache.open(UINT64_MAX, 20s);
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; !stop; ++i) {
          int number = (i * 3 + t) % 50;
          auto made = store->findOrMake(numbered(number), [&]() -> Expected<Content> {
            std::this_thread::sleep_for(1ms);
            return contentOf(number);
          });
          if (!made || *made != contentOf(number)) ++wrong;
          if (i % 7 == 0) store->discard(numbered(number));
        }
      });
    std::vector<pid_t> children;
    for (int c = 0; c < 20; ++c) {
      std::this_thread::sleep_for(3ms);
      children.push_back(spawnChild([&] {
        for (int number = 0; number < 50; ++number) {
          auto made =
              store->findOrMake(numbered(number), [&]() -> Expected<Content> { return contentOf(number); });
          if (!made || *made != contentOf(number)) return 1;
        }
        return 0;
      }));
    }
    int failed = 0;
    for (pid_t child : children) failed += waitChild(child) != 0;
    stop = true;
    for (std::thread &thread : threads) thread.join();
    if (wrong) return 2;
    if (!verify(cache.opened()).bad.empty()) return 3;
    return failed ? 4 : 0;
  }));
  EXPECT_EQ(result, 0);
}

// A child that is forked inside a make and returns from it, while others of its parent wait for that make.
TEST(CacheProcess, ForkInsideAMake) {
  int result = waitChild(spawnChild([] {
    TestCache cache;
    auto store = cache.open(UINT64_MAX, 20s);
    std::atomic<bool> stop{false};
    std::vector<std::thread> others;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t)
      others.emplace_back([&] {
        while (!stop) {
          auto made = store->findOrMake(numbered(1), [] { return Expected<Content>(contentOf(1)); });
          if (!made || *made != contentOf(1)) ++wrong;
          store->discard(numbered(1));
        }
      });
    int failed = 0;
    for (int i = 2; i < 40; ++i) {
      pid_t child = -1;
      auto made = store->findOrMake(numbered(i), [&]() -> Expected<Content> {
        child = fork();
        return contentOf(i);
      });
      bool right = made && *made == contentOf(i) && store->find(numbered(i)) == contentOf(i);
      if (child == 0) _exit(right ? 0 : 1);
      failed += !right + (waitChild(child) != 0);
    }
    stop = true;
    for (std::thread &other : others) other.join();
    return failed + wrong ? 1 : 0;
  }));
  EXPECT_EQ(result, 0);
}

// Locks by themselves: held by one, over threads and processes, in a storm; their files stay.
TEST(CacheProcess, LockStorm) {
  TestCache cache;
  cache.opened();
  Expected<Folder> folder = openFolder(cache.locks, true);
  ASSERT_TRUE(folder);
  std::string counter = cache.top.at("counter");
  test::writeBytes(counter, std::string(8, '\0'));
  constexpr int processes = 6, rounds = 50;
  std::vector<pid_t> children;
  for (int p = 0; p < processes; ++p)
    children.push_back(spawnChild([&] {
      LockFolder locks(openFolder(cache.locks, true));
      int file = open(counter.c_str(), O_RDWR | O_CLOEXEC);
      for (int i = 0; i < rounds; ++i) {
        Lock lock;
        auto deadline = std::chrono::steady_clock::now() + 60s;
        if (locks.waitLock("storm", 7, lock, deadline, [] { return false; }) != LockFolder::Outcome::Held)
          return 1;
        uint64_t value;
        if (pread(file, &value, 8, 0) != 8) return 2;
        ++value;
        if (pwrite(file, &value, 8, 0) != 8) return 3;
      }
      return 0;
    }));
  for (pid_t child : children) EXPECT_EQ(waitChild(child), 0);
  uint64_t value = 0;
  memcpy(&value, test::readBytes(counter).data(), 8);
  EXPECT_EQ(value, uint64_t(processes * rounds));
  EXPECT_TRUE(std::filesystem::exists(cache.locks + "/storm"));
}

// The child's copy of a lock is closed; its number may be another file's by the time the child lets go.
TEST(CacheProcess, AChildReleasesNothingOfItsParents) {
  TestCache cache;
  cache.opened();
  LockFolder locks(openFolder(cache.locks, true));
  Lock lock, again;
  ASSERT_EQ(locks.tryLock("making", 1, lock), LockFolder::Outcome::Held);
  EXPECT_EQ(waitChild(spawnChild([&] {
              int file = open("/dev/null", O_RDONLY | O_CLOEXEC); // the lowest free number
              lock.release();
              {
                Lock gone = std::move(lock);
              }
              return fcntl(file, F_GETFD) < 0 ? 1 : 0;
            })),
            0);
  EXPECT_EQ(locks.tryLock("making", 1, again), LockFolder::Outcome::Busy);
}

// Kernels without F_OFD_SETLK lock by flock().
TEST(CacheProcess, LocksWithoutByteRanges) {
  TestCache cache;
  sys::setHook([](sys::Call call) {
    static std::atomic<int> locks{0}; // every lock starts with a try of the byte
    return sys::Fault{call == sys::Call::Lock && locks++ % 2 == 0 ? EINVAL : 0, false};
  });
  LockFolder locks(openFolder(cache.locks, true));
  Lock first, second, other;
  EXPECT_EQ(locks.tryLock("making", 1, first), LockFolder::Outcome::Held);
  EXPECT_EQ(locks.tryLock("making", 1, second), LockFolder::Outcome::Busy);
  EXPECT_EQ(locks.tryLock("making", 2, other), LockFolder::Outcome::Held);
  first.release();
  EXPECT_EQ(locks.tryLock("making", 1, second), LockFolder::Outcome::Held);
  sys::setHook(nullptr);
  EXPECT_TRUE(std::filesystem::exists(cache.locks + "/making-1"));
}

} // namespace
} // namespace quern::cache
