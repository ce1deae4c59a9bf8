// Ctrl-C ends a long command between two pieces of work: what is finished is kept, and said.
#pragma once

namespace quern::tools {

/// Exit code of a command that the user ended, as shells give it: 128 + SIGINT.
constexpr int interruptedExit = 130;

/// While it lives, the first SIGINT or SIGTERM is remembered and the second ends the process at once.
class InterruptGuard {
public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard &) = delete;
  InterruptGuard &operator=(const InterruptGuard &) = delete;
};
bool interrupted();

} // namespace quern::tools
