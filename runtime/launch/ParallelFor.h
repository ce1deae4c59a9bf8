// The only way Quern uses more than one CPU thread: the process's own libgomp when one is loaded (as under
// PyTorch, whose spinning workers would otherwise hold the cores), else oneTBB. Results never depend on which
// one or on the thread count.
#pragma once
#include <cstdint>
#include <functional>

namespace quern {

/// Threads that parallelFor uses: QUERN_NUM_THREADS, else setNumThreads, else the OpenMP setting of the
/// loaded libgomp, else the process's CPU affinity. 1 in a forked child, where no thread pool survives.
int numThreads();
/// 0 restores the default.
void setNumThreads(int count);
/// "libgomp (path)" or "oneTBB".
const char *threadLibrary();

/// Calls body(task, worker) for each task in [0, tasks), tasks handed out in ascending order; worker in [0,
/// numThreads()). Runs on the calling thread alone when tasks < 2 or one thread is set. Calls from inside a
/// parallelFor run serially. Bodies run in the default floating-point mode (FloatEnvironment.h) on every
/// thread; a body that throws ends the process.
void parallelFor(int64_t tasks, const std::function<void(int64_t task, int worker)> &body);
/// The same with worker in [0, threads): for callers that keep something per worker, as numThreads() may
/// change between calls.
void parallelFor(int64_t tasks, int threads, const std::function<void(int64_t task, int worker)> &body);

} // namespace quern
