// One fiber per CUDA thread (Boost.Context). The scheduler runs on the caller's stack; a fiber always
// switches back to it. A fiber that is stopped by a fatal issue is never resumed and its stack is used again,
// so nothing on a fiber's stack may own memory across a call that can switch.
#pragma once
#include <boost/context/detail/fcontext.hpp>
#include <cstddef>

namespace quern::sim {

/// Stacks with a guard page below each, kept for the life of the process.
class StackPool {
public:
  static constexpr size_t bytes = 256 << 10;
  /// The lowest address of stack `index`; the stacks up to it exist afterwards. Null when there is no memory.
  char *stack(size_t index);

private:
  static constexpr size_t perChunk = 64;
  char *chunks[256] = {}; // 16,384 stacks: more than a cluster can need
};

struct Fiber {
  boost::context::detail::fcontext_t context = nullptr;
  char *stack = nullptr;
  void *fakeStack = nullptr; // AddressSanitizer's
  void (*body)() = nullptr;
};
/// Makes a fiber on `stack` that will run `body` when it is first entered.
void startFiber(Fiber &fiber, char *stack, void (*body)());
/// From the scheduler: runs the fiber until it switches back.
void enterFiber(Fiber &fiber);
/// From the fiber: back to the scheduler. Returns when the fiber is entered again.
void leaveFiber(Fiber &fiber);
/// From the fiber, for the last time.
[[noreturn]] void finishFiber();

} // namespace quern::sim
