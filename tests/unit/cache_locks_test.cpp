// Locks by themselves: given back, bounded, named.
#include "cache_support.h"
#include <atomic>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace quern::cache {
namespace {

using test::TestCache;
using test::waitChild;

// A process that was started without a word to this library (a bare clone()) shares the open file: the lock
// is given back all the same.
TEST(CacheLocks, AReleasedLockIsFreeWhoeverSharesItsFile) {
  for (bool bytes : {true, false}) {
    TestCache cache;
    cache.opened();
    LockFolder locks(openFolder(cache.locks, true));
    if (!bytes)
      sys::setHook([](sys::Call call) {
        static std::atomic<int> tries{0};
        return sys::Fault{call == sys::Call::Lock && tries++ % 2 == 0 ? EINVAL : 0, false};
      });
    Lock lock, again;
    EXPECT_EQ(locks.tryLock("making", 1, lock), LockFolder::Outcome::Held);
    pid_t sharer = pid_t(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    if (sharer == 0)
      for (;;) pause();
    ASSERT_GT(sharer, 0);
    lock.release();
    EXPECT_EQ(locks.tryLock("making", 1, again), LockFolder::Outcome::Held) << (bytes ? "byte" : "file");
    sys::setHook(nullptr);
    kill(sharer, SIGKILL);
    EXPECT_EQ(waitChild(sharer), -SIGKILL);
  }
}

// What a fork could not close is not locked.
TEST(CacheLocks, NoMoreLocksThanAForkCanClose) {
  TestCache cache;
  cache.opened();
  LockFolder locks(openFolder(cache.locks, true));
  std::vector<Lock> held(256);
  for (size_t i = 0; i < held.size(); ++i)
    ASSERT_EQ(locks.tryLock("making", i, held[i]), LockFolder::Outcome::Held) << i;
  Lock one;
  EXPECT_EQ(locks.tryLock("making", 1000, one), LockFolder::Outcome::Unavailable);
  EXPECT_EQ(locks.tryLock("making", 7, one), LockFolder::Outcome::Busy);
  held[9].release();
  EXPECT_EQ(locks.tryLock("making", 1000, one), LockFolder::Outcome::Held);
}

// The note of another key that came to lie in the same place names nobody.
TEST(CacheLocks, AHolderIsNamedForItsOwnKeyAlone) {
  TestCache cache;
  cache.opened();
  LockFolder locks(openFolder(cache.locks, true));
  EXPECT_EQ(locks.holder(5), "another process");
  locks.signHolder(5);
  EXPECT_THAT(locks.holder(5), testing::StartsWith(fmt::format("process {} (", getpid())));
  EXPECT_EQ(locks.holder(5 + 256), "another process");
}

// A folder that cannot be written holds no locks.
TEST(CacheLocks, AReadOnlyFolderOfLocks) {
  TestCache cache;
  Expected<Folder> folder = openFolder(cache.locks, true);
  ASSERT_TRUE(folder);
  folder->writable = false;
  LockFolder locks(std::move(folder));
  Lock lock;
  EXPECT_EQ(locks.tryLock("making", 1, lock), LockFolder::Outcome::Unavailable);
}

} // namespace
} // namespace quern::cache
