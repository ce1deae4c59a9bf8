// Threads: the loaded libgomp's team or a oneTBB arena runs a fixed number of workers; tasks come from one
// atomic counter.
#include "runtime/launch/ParallelFor.h"
#include "runtime/config/Knobs.h"
#include "runtime/launch/FloatEnvironment.h"
#include "runtime/launch/OpenMP.h"
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <sched.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

namespace quern {
namespace {

constexpr int maxThreads = 1024;

/// Pools do not survive fork(): their threads exist in the parent only, and a team that waits for them never
/// returns. libgomp's pool may have been started by anybody (PyTorch), so a forked child never uses one.
std::atomic<bool> inForkedChild{false};
[[maybe_unused]] const int forkHandler =
    pthread_atfork(nullptr, nullptr, [] { inForkedChild.store(true, std::memory_order_relaxed); });

std::atomic<int> requestedThreads{0};
thread_local bool insideParallelFor = false;

int threadsFromEnvironment() {
  static const int count = [] {
    auto given = config::value(config::Knob::NumThreads);
    if (!given) return 0;
    const char *text = given->c_str();
    char *end = nullptr;
    long value = std::strtol(text, &end, 10);
    if (*end == 0 && value >= 1 && value <= maxThreads) return int(value);
    std::fprintf(
        stderr,
        "quern: warning: QUERN_NUM_THREADS is '%s'; expected a whole number in 1..%d; it is ignored\n", text,
        maxThreads);
    return 0;
  }();
  return count;
}

int threadsFromAffinity() {
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 4) { // the kernel refuses a set smaller than its own
    std::unique_ptr<cpu_set_t, void (*)(cpu_set_t *)> set(CPU_ALLOC(cpus), [](cpu_set_t *s) { CPU_FREE(s); });
    size_t bytes = CPU_ALLOC_SIZE(cpus);
    if (set && sched_getaffinity(0, bytes, set.get()) == 0) return std::max(1, CPU_COUNT_S(bytes, set.get()));
  }
  return 1;
}

/// What the workers of one call share.
struct Work {
  int64_t tasks;
  const std::function<void(int64_t, int)> &body;
  std::atomic<int64_t> nextTask{0};
  std::atomic<int> nextWorker{0};

  /// One worker. `noexcept`: an exception cannot cross a team of threads, so it ends the process here, where
  /// it is visible.
  void run() noexcept {
    if (nextTask.load(std::memory_order_relaxed) >= tasks) return; // a late worker finds nothing to do
    FloatEnvironment mode;
    int worker = nextWorker.fetch_add(1, std::memory_order_relaxed);
    insideParallelFor = true;
    for (int64_t task; (task = nextTask.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(task, worker);
    insideParallelFor = false;
  }
};

/// Arenas live until the process ends: taking them down at exit would race with threads that still run.
tbb::task_arena &arenaOf(int threads) {
  static std::mutex lock;
  static auto &arenas = *new std::map<int, std::unique_ptr<tbb::task_arena>>;
  std::lock_guard<std::mutex> hold(lock);
  auto &arena = arenas[threads];
  if (!arena) arena = std::make_unique<tbb::task_arena>(threads);
  return *arena;
}

void runOnTBB(Work &work, int threads) noexcept {
  using tbb::global_control;
  // More threads than cores are had only by asking.
  std::unique_ptr<global_control> more;
  if (size_t(threads) > global_control::active_value(global_control::max_allowed_parallelism))
    more = std::make_unique<global_control>(global_control::max_allowed_parallelism, threads);
  arenaOf(threads).execute(
      [&] { tbb::parallel_for(0, threads, [&](int) { work.run(); }, tbb::simple_partitioner()); });
}

/// Serial execution keeps the caller's nesting state, so that a serial outer call does not hide threads from
/// a later one.
void runSerially(int64_t tasks, const std::function<void(int64_t, int)> &body) noexcept {
  FloatEnvironment mode;
  bool outer = insideParallelFor;
  insideParallelFor = true;
  for (int64_t task = 0; task < tasks; ++task) body(task, 0);
  insideParallelFor = outer;
}

} // namespace

int numThreads() {
  if (inForkedChild.load(std::memory_order_relaxed)) return 1;
  if (int count = threadsFromEnvironment()) return count;
  if (int count = requestedThreads.load(std::memory_order_relaxed)) return count;
  if (const OpenMP *omp = loadedOpenMP()) return std::clamp(omp->maxThreads(), 1, maxThreads);
  static const int affinity = std::min(threadsFromAffinity(), maxThreads);
  return affinity;
}

void setNumThreads(int count) { requestedThreads.store(std::clamp(count, 0, maxThreads)); }

const char *threadLibrary() {
  const OpenMP *omp = loadedOpenMP();
  return omp ? omp->description.c_str() : "oneTBB";
}

void parallelFor(int64_t tasks, int threads, const std::function<void(int64_t, int)> &body) {
  threads = int(std::min<int64_t>(threads, tasks));
  if (threads < 2 || insideParallelFor || inForkedChild.load(std::memory_order_relaxed))
    return runSerially(tasks, body);
  Work work{tasks, body};
  const OpenMP *omp = loadedOpenMP();
  if (!omp) return runOnTBB(work, threads);
  if (omp->inParallel()) return runSerially(tasks, body);
  omp->parallel([](void *data) { static_cast<Work *>(data)->run(); }, &work, unsigned(threads), 0);
}

void parallelFor(int64_t tasks, const std::function<void(int64_t, int)> &body) {
  parallelFor(tasks, numThreads(), body);
}

} // namespace quern
