// The libgomp that the process has already loaded, if any. Quern never loads one itself.
#pragma once
#include <string>

namespace quern {

/// Entry points of one libgomp (GCC's libgomp ABI: GOMP_parallel takes function, data, threads, flags).
struct OpenMP {
  void (*parallel)(void (*)(void *), void *, unsigned, unsigned) = nullptr;
  int (*maxThreads)() = nullptr;
  int (*inParallel)() = nullptr;
  std::string description; // "libgomp (path)"
};

/// The loaded libgomp or null. Looks again, at the cost of one look at the loader's counter, whenever
/// libraries were loaded since the last call, until one is found: PyTorch may be imported later. The answer
/// then stays.
const OpenMP *loadedOpenMP();

} // namespace quern
