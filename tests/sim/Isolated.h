// Work in a process of its own: a fault may crash or never end.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace quern::simtest {

/// How one piece of work ended.
struct Ended {
  std::string text;  // what it returned
  int signal = 0;    // it crashed
  bool late = false; // it did not end in time
};

/// Runs work(0) .. work(count - 1), `jobs` at a time, each in a child process that has a copy of all memory;
/// `done` is called in this process, in the order in which they end. Children must not use this process's
/// threads.
void runIsolated(size_t count, unsigned jobs, double secondsLimit,
                 const std::function<std::string(size_t)> &work,
                 const std::function<void(size_t, const Ended &)> &done);

} // namespace quern::simtest
