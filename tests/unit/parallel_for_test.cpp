// parallelFor: every task once, in ascending order, on both libraries, nested, and in a forked child. What
// depends on the state of a fresh process (libraries loaded, environment read once) runs in a death test,
// which starts the binary anew.
#include "runtime/launch/FloatEnvironment.h"
#include "runtime/launch/ParallelFor.h"
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <mutex>
#include <numeric>
#include <set>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace quern;

namespace {

/// A failure inside a death test: said on stderr, seen by the parent as exit code 1.
void require(bool condition, const char *what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::_Exit(1);
}

/// Tasks run once each, start in ascending order of their hand-out, with distinct workers at any time.
void checkCoverage(int threads) {
  setNumThreads(threads);
  for (int64_t tasks : {0, 1, 2, 3, 7, 1000, 20000}) {
    std::vector<std::atomic<int>> runs(tasks);
    std::vector<std::atomic<int>> busy(threads);
    std::vector<std::vector<int64_t>> seen(threads);
    std::atomic<bool> good{true};
    parallelFor(tasks, [&](int64_t task, int worker) {
      if (task < 0 || task >= tasks || worker < 0 || worker >= threads) {
        good = false;
        return;
      }
      good = good && busy[worker].exchange(1) == 0;
      ++runs[task];
      seen[worker].push_back(task);
      busy[worker] = 0;
    });
    require(good, "task and worker in range, one task per worker at a time");
    for (auto &count : runs) require(count == 1, "each task once");
    for (auto &list : seen) require(std::is_sorted(list.begin(), list.end()), "ascending tasks per worker");
  }
  setNumThreads(0);
}

/// All workers wait for each other: passes only when they run at once.
void checkConcurrency(int threads = 2) {
  setNumThreads(threads);
  std::mutex lock;
  std::condition_variable both;
  int arrived = 0;
  bool together = true;
  std::set<std::thread::id> ids;
  parallelFor(threads, [&](int64_t, int) {
    std::unique_lock<std::mutex> hold(lock);
    ids.insert(std::this_thread::get_id());
    ++arrived;
    both.notify_all();
    together = both.wait_for(hold, std::chrono::seconds(20), [&] { return arrived == threads; }) && together;
  });
  require(together && int(ids.size()) == threads, "all threads at once");
  setNumThreads(0);
}

/// While task 0 is held back, the other worker takes tasks 1, 2, 3, ... in this order.
void checkAscendingStart() {
  setNumThreads(2);
  std::mutex lock;
  std::vector<int64_t> order;
  std::atomic<bool> release{false};
  parallelFor(50, [&](int64_t task, int) {
    {
      std::lock_guard<std::mutex> hold(lock);
      order.push_back(task);
      if (task == 49) release = true;
    }
    for (int i = 0; task == 0 && !release && i < 20000; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  require(release, "the other worker finished while task 0 waited");
  std::vector<int64_t> others;
  std::copy_if(order.begin(), order.end(), std::back_inserter(others), [](int64_t t) { return t != 0; });
  for (size_t i = 0; i < others.size(); ++i) require(others[i] == int64_t(i) + 1, "ascending starts");
  setNumThreads(0);
}

/// The first outer task ends at once, so that its thread is free while the second one's inner tasks sleep.
void checkNested() {
  setNumThreads(3);
  std::atomic<int> inner{0};
  std::atomic<bool> serial{true};
  parallelFor(2, [&](int64_t outer, int) {
    if (outer == 0) return;
    auto self = std::this_thread::get_id();
    int64_t next = 0;
    parallelFor(40, [&](int64_t task, int worker) {
      serial = serial && worker == 0 && task == next++ && std::this_thread::get_id() == self;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ++inner;
    });
  });
  require(serial && inner == 40, "nested calls run serially on their thread");
  checkConcurrency(); // and leave no trace
}

/// The forked child has no pool; the parent's still works afterwards.
void checkFork() {
  setNumThreads(2);
  std::atomic<int> warm{0};
  parallelFor(64, [&](int64_t, int) { ++warm; });
  pid_t child = fork();
  if (child == 0) {
    alarm(20); // a hang ends here
    auto self = std::this_thread::get_id();
    int64_t next = 0;
    bool serial = numThreads() == 1;
    auto body = [&](int64_t task, int worker) {
      serial = serial && task == next++ % 64 && worker == 0 && std::this_thread::get_id() == self;
    };
    parallelFor(64, body);
    parallelFor(64, 2, body); // also where a count was asked for
    std::_Exit(serial && next == 128 ? 0 : 1);
  }
  int status = -1;
  require(child > 0 && waitpid(child, &status, 0) == child, "fork");
  require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "forked child runs serially");
  require(numThreads() == 2, "the parent keeps its threads");
  checkConcurrency();
}

/// A caller that flushes subnormals does not change what bodies compute, on any thread, and keeps its own
/// mode.
void checkFloatMode() {
#if defined(__x86_64__)
  setNumThreads(2);
  unsigned before = _mm_getcsr();
  _mm_setcsr(0x9fc0); // flush to zero, denormals are zero
  volatile float tiny = 1e-38f;
  std::atomic<int> kept{0};
  parallelFor(100, [&](int64_t, int) { kept += tiny * 0.5f != 0; });
  parallelFor(1, [&](int64_t, int) { kept += tiny * 0.5f != 0; });
  unsigned after = _mm_getcsr();
  _mm_setcsr(before);
  require(kept == 101, "subnormals kept on every thread");
  require((after & 0x8040) == 0x8040, "the caller's mode restored");
#endif
}

/// Several application threads at once.
void checkConcurrentCallers() {
  setNumThreads(2);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < 20; ++i) parallelFor(100, [&](int64_t task, int) { sum += task; });
    });
  for (auto &caller : callers) caller.join();
  require(sum == 4 * 20 * 4950, "sum of concurrent callers");
}

void checkAll() {
  for (int threads : {1, 2, 3, 16}) checkCoverage(threads);
  checkConcurrency();
  checkConcurrency(int(std::min(60u, std::thread::hardware_concurrency())) + 2); // more than there are cores
  checkAscendingStart();
  checkNested();
  checkFork();
  checkFloatMode();
  checkConcurrentCallers();
}

[[noreturn]] void runWithoutLibgomp() {
  require(std::string(threadLibrary()) == "oneTBB", "oneTBB without libgomp");
  checkAll();
  std::_Exit(0);
}

constexpr int noLibgomp = 77;

/// libgomp arrives after the first calls, as when PyTorch is imported late.
[[noreturn]] void runWithLateLibgomp() {
  require(std::string(threadLibrary()) == "oneTBB", "oneTBB before libgomp is loaded");
  checkConcurrency();
  if (!dlopen("libgomp.so.1", RTLD_NOW)) std::_Exit(noLibgomp);
  require(std::string(threadLibrary()).rfind("libgomp (/", 0) == 0, "libgomp is found once it is loaded");
  checkAll();
  auto setThreads =
      reinterpret_cast<void (*)(int)>(dlsym(dlopen("libgomp.so.1", RTLD_NOW), "omp_set_num_threads"));
  setNumThreads(0);
  setThreads(5);
  require(numThreads() == 5, "the OpenMP setting is followed");
  setNumThreads(3);
  require(numThreads() == 3, "setNumThreads goes before the OpenMP setting");
  std::_Exit(0);
}

[[noreturn]] void runWithEnvironment(const char *value, int expected) {
  setenv("QUERN_NUM_THREADS", value, 1);
  require(numThreads() == expected, "QUERN_NUM_THREADS");
  unsetenv("QUERN_NUM_THREADS");
  require(numThreads() == expected, "read once");
  setNumThreads(2);
  require(numThreads() == expected, "the environment goes before setNumThreads");
  std::_Exit(0);
}

[[noreturn]] void runWithBadEnvironment(const char *value) {
  setenv("QUERN_NUM_THREADS", value, 1);
  setNumThreads(2);
  require(numThreads() == 2 && numThreads() == 2, "a bad QUERN_NUM_THREADS is ignored");
  std::_Exit(0);
}

class ParallelFor : public testing::Test {
protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(ParallelFor, OnOneTBB) { EXPECT_EXIT(runWithoutLibgomp(), testing::ExitedWithCode(0), ""); }

TEST_F(ParallelFor, OnLibgompLoadedLate) {
  bool missing = false;
  EXPECT_EXIT(
      runWithLateLibgomp(),
      [&](int status) {
        missing = WIFEXITED(status) && WEXITSTATUS(status) == noLibgomp;
        return missing || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
      },
      "");
  if (missing) GTEST_SKIP() << "no libgomp.so.1 on this machine to load";
}

TEST_F(ParallelFor, ThreadsFromTheEnvironment) {
  EXPECT_EXIT(runWithEnvironment("7", 7), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(runWithEnvironment("1024", 1024), testing::ExitedWithCode(0), "");
}

TEST_F(ParallelFor, BadEnvironmentGivesOneWarning) {
  for (const char *value : {"0", "-1", "two", "3x", "1025", "99999999999999999999"})
    EXPECT_EXIT(runWithBadEnvironment(value), testing::ExitedWithCode(0),
                std::string("^quern: warning: QUERN_NUM_THREADS is '") + value +
                    "'; expected a whole number in 1..1024; it is ignored\n$");
}

TEST_F(ParallelFor, AThrowingBodyEndsTheProcess) {
  EXPECT_DEATH(parallelFor(4, [](int64_t, int) { throw 1; }), "terminate");
}

TEST_F(ParallelFor, DefaultAndLimits) {
  setNumThreads(0);
  int normal = numThreads();
  EXPECT_GE(normal, 1);
  setNumThreads(-5);
  EXPECT_EQ(numThreads(), normal);
  setNumThreads(1 << 30);
  EXPECT_EQ(numThreads(), 1024);
  setNumThreads(0);
  EXPECT_EQ(numThreads(), normal);
}

TEST_F(ParallelFor, WorkersStayBelowTheGivenCount) {
  std::atomic<int> highest{0}, runs{0};
  parallelFor(1000, 2, [&](int64_t, int worker) {
    int seen = highest;
    while (worker > seen && !highest.compare_exchange_weak(seen, worker)) {
    }
    ++runs;
  });
  EXPECT_LT(highest, 2);
  EXPECT_EQ(runs, 1000);
}

} // namespace
