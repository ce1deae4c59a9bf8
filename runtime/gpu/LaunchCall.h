// One launch of Quern's own device code: arguments by value, in the order of the kernel's parameters and of
// exactly their types.
#pragma once
#include "runtime/gpu/Backend.h"
#include <algorithm>
#include <tuple>

namespace quern::gpu {

struct LaunchCall {
  Backend &backend;
  Stream stream;
  bool dependent = false; // LaunchConfig::dependent
  std::vector<Range> ranges = {};

  /// Names what the kernel may touch; only backends that check look at it.
  void reads(const char *name, const void *data, int64_t bytes) { add(name, data, bytes, false); }
  void writes(const char *name, const void *data, int64_t bytes) { add(name, data, bytes, true); }

  /// A grid of `items` blocks, at most so many that each multiprocessor is filled a few times; kernels walk
  /// the rest. At least one.
  unsigned gridFor(int64_t items) const {
    return unsigned(std::clamp<int64_t>(items, 1, int64_t(backend.multiprocessors()) * 16));
  }

  template <class... Args>
  Status operator()(const char *kernel, unsigned grid, unsigned block, Args... args) {
    auto loaded = backend.loadDevice(kernel, stream);
    if (!loaded) return loaded.takeError();
    std::tuple<Args...> values(args...);
    return std::apply(
        [&](auto &...value) {
          void *params[] = {const_cast<void *>(static_cast<const void *>(&value))...};
          return backend.launch(*loaded, {grid, block, 1, 0, dependent}, params, ranges, stream);
        },
        values);
  }

private:
  void add(const char *name, const void *data, int64_t bytes, bool writable) {
    if (backend.checksRanges() && data && bytes > 0)
      ranges.push_back({name, data, uint64_t(bytes), writable});
  }
};

} // namespace quern::gpu
