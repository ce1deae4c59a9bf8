// How many compilations may run at once, from made-up machines; and that all processes share the slots.
#include "cache_support.h"
#include "runtime/cache/JobSlots.h"
#include "runtime/config/Knobs.h"
#include <atomic>
#include <thread>
#include <unistd.h>

namespace quern::cache {
namespace {

constexpr uint64_t gigabyte = uint64_t(1) << 30;

/// A root folder with files of /proc and /sys.
struct MadeUpRoot {
  test::TempFolder top;
  void file(const std::string &path, const std::string &text) {
    std::filesystem::path at = top.path / path;
    std::filesystem::create_directories(at.parent_path());
    test::writeBytes(at, text);
  }
  Machine machine() { return readMachine(top.path.string()); }
};

TEST(CacheJobs, TheLeastCounts) {
  Machine machine;
  machine.affinity = 64;
  EXPECT_EQ(jobLimit(machine, gigabyte, {}), 64);
  machine.cgroupCpus = 3.5;
  EXPECT_EQ(jobLimit(machine, gigabyte, {}), 4);
  machine.freeBytes = 2 * gigabyte + 1;
  EXPECT_EQ(jobLimit(machine, gigabyte, {}), 2);
  EXPECT_EQ(jobLimit(machine, gigabyte / 2, {}), 4);
  machine.freeThreads = 3 * threadsPerCompilation;
  EXPECT_EQ(jobLimit(machine, gigabyte / 2, {}), 3);
  machine.freeBytes = 0;
  EXPECT_EQ(jobLimit(machine, gigabyte, {}), 1) << "never none";
  EXPECT_EQ(jobLimit(machine, gigabyte, "7"), 7);
  for (const char *bad : {"0", "-1", "x", "7x", "1025", ""})
    EXPECT_EQ(jobLimit(machine, gigabyte, bad), 1) << bad;
}

TEST(CacheJobs, NothingIsKnown) {
  MadeUpRoot root;
  Machine machine = root.machine();
  EXPECT_GE(machine.affinity, 1);
  EXPECT_EQ(machine.freeBytes, UINT64_MAX);
  EXPECT_EQ(machine.freeThreads, INT64_MAX);
}

// A container of 1 GB and 64 processes (cgroup version 2), below a group of 2 CPUs.
TEST(CacheJobs, CgroupVersion2) {
  MadeUpRoot root;
  root.file("proc/meminfo", "MemTotal: 1000000000 kB\nMemFree: 1 kB\nMemAvailable:   900000000 kB\n");
  root.file("proc/self/cgroup", "0::/jobs/mine\n");
  root.file("sys/fs/cgroup/jobs/cpu.max", "200000 100000\n");
  root.file("sys/fs/cgroup/jobs/memory.max", "max\n");
  root.file("sys/fs/cgroup/jobs/memory.current", "123\n");
  root.file("sys/fs/cgroup/jobs/mine/cpu.max", "max 100000\n");
  root.file("sys/fs/cgroup/jobs/mine/memory.max", "1073741824\n");
  root.file("sys/fs/cgroup/jobs/mine/memory.current", "805306368\n");
  root.file("sys/fs/cgroup/jobs/mine/memory.stat",
            "anon 268435456\nfile 536870912\ninactive_file 536870912\n");
  root.file("sys/fs/cgroup/jobs/mine/pids.max", "64\n");
  root.file("sys/fs/cgroup/jobs/mine/pids.current", "40\n");
  Machine machine = root.machine();
  EXPECT_EQ(machine.cgroupCpus, 2.0);
  EXPECT_EQ(machine.freeBytes, 805306368u); // 256 MB are taken; cached files do not count
  EXPECT_EQ(machine.freeThreads, 24);
  machine.affinity = 32;
  EXPECT_EQ(jobLimit(machine, bytesPerCompilation, {}), 1);
  EXPECT_EQ(jobLimit(machine, bytesPerCompilation / 4, {}), 2);
}

TEST(CacheJobs, CgroupVersion1) {
  MadeUpRoot root;
  root.file("proc/self/cgroup", "5:memory:/box/one\n4:cpu,cpuacct:/box\n3:pids:/\n1:name=systemd:/x\n0::/\n");
  root.file("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "150000\n");
  root.file("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
  root.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  root.file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  // The path is the host's: here only the mount itself exists.
  root.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
  root.file("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n");
  root.file("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1048576\n");
  root.file("sys/fs/cgroup/pids/pids.max", "max\n");
  Machine machine = root.machine();
  EXPECT_EQ(machine.cgroupCpus, 1.5);
  EXPECT_EQ(machine.freeBytes, 1073741824u + 1048576u);
  EXPECT_EQ(machine.freeThreads, INT64_MAX);
}

TEST(CacheJobs, GarbageIsNoLimit) {
  MadeUpRoot root;
  root.file("proc/meminfo", "MemAvailable: much\n");
  root.file("proc/self/cgroup", "0::\nx\n::\n0::/a/b\n");
  root.file("sys/fs/cgroup/a/b/cpu.max", "");
  root.file("sys/fs/cgroup/a/cpu.max", "100000");
  root.file("sys/fs/cgroup/a/memory.max", "99999999999999999999999\n");
  root.file("sys/fs/cgroup/a/memory.current", "\n");
  Machine machine = root.machine();
  EXPECT_EQ(machine.cgroupCpus, 1e9);
  EXPECT_EQ(machine.freeBytes, UINT64_MAX);
}

// QUERN_JOBS=2 in this process and its children: never more than two at once, over threads and processes.
TEST(CacheJobs, SlotsAreSharedByProcesses) {
  test::TestCache cache;
  cache.opened();
  setenv("QUERN_JOBS", "2", 1); // read once per process: a child reads it anew only if nobody has read it
  int result = test::waitChild(test::spawnChild([&] {
    if (config::value(config::Knob::Jobs) != "2") return 77;
    std::string running = cache.top.at("running");
    auto work = [&] {
      LockFolder locks(openFolder(cache.locks, true));
      for (int i = 0; i < 8; ++i) {
        JobSlot slot(bytesPerCompilation, locks);
        if (!slot.held()) return 1;
        JobSlot inner(bytesPerCompilation, locks); // of the same compilation
        std::string mine = running + std::to_string(getpid()) + "-" + std::to_string(gettid());
        test::writeBytes(mine, "");
        int now = 0;
        for (const auto &file : std::filesystem::directory_iterator(cache.top.path))
          now += file.path().string().starts_with(running);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        std::filesystem::remove(mine);
        if (now > 2) return 2;
      }
      return 0;
    };
    std::vector<pid_t> children;
    for (int p = 0; p < 5; ++p) children.push_back(test::spawnChild(work));
    std::atomic<int> failed{0};
    {
      std::thread first([&] { failed += work() != 0; }), second([&] { failed += work() != 0; });
      first.join();
      second.join();
    }
    for (pid_t child : children) failed += test::waitChild(child) != 0;
    return failed ? 1 : 0;
  }));
  unsetenv("QUERN_JOBS");
  if (result == 77) GTEST_SKIP() << "QUERN_JOBS was read before this test";
  EXPECT_EQ(result, 0);
}

TEST(CacheJobs, WaitsForABoundedTime) {
  test::TestCache cache;
  cache.opened();
  LockFolder locks(openFolder(cache.locks, true));
  std::vector<Lock> taken(1024); // more than any limit
  int held = 0;
  for (int slot = 0; slot < 200; ++slot) {
    Lock lock;
    held += locks.tryLock("jobs", uint64_t(slot), lock) == LockFolder::Outcome::Held;
    taken[size_t(slot)] = std::move(lock);
  }
  ASSERT_EQ(held, 200);
  if (jobLimit() > 200) GTEST_SKIP() << "this machine allows more jobs than the test takes";
  JobSlot slot(bytesPerCompilation, locks, std::chrono::milliseconds(30));
  EXPECT_FALSE(slot.held());
  LockFolder none(Expected<Folder>(Error::system("no folder")));
  std::thread([&] {
    JobSlot without(bytesPerCompilation, none);
    EXPECT_FALSE(without.held());
  }).join();
}

} // namespace
} // namespace quern::cache
