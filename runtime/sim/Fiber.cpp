// Stacks and context switches, with what AddressSanitizer wants to know about them.
#include "runtime/sim/Fiber.h"
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QSIM_ASAN 1
#endif
#endif
#if defined(QSIM_ASAN) || defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(save, bottom, size) (void)0
#define __sanitizer_finish_switch_fiber(save, bottom, size) (void)0
#define __asan_unpoison_memory_region(address, size) (void)0
#endif

namespace quern::sim {
namespace context = boost::context::detail;

static context::fcontext_t scheduler; // where the running fiber returns to
[[maybe_unused]] static void *schedulerFake;
[[maybe_unused]] static const void *schedulerBottom;
[[maybe_unused]] static size_t schedulerSize;

char *StackPool::stack(size_t index) {
  const size_t guard = sysconf(_SC_PAGESIZE), span = bytes + guard;
  if (index / perChunk >= sizeof chunks / sizeof *chunks) return nullptr;
  char *&chunk = chunks[index / perChunk];
  if (!chunk) {
    void *memory = mmap(nullptr, perChunk * span, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    for (size_t i = 0; i < perChunk; ++i) mprotect((char *)memory + i * span, guard, PROT_NONE);
    chunk = (char *)memory;
  }
  return chunk + index % perChunk * span + guard;
}

static void fiberEntry(context::transfer_t from) {
  __sanitizer_finish_switch_fiber(nullptr, &schedulerBottom, &schedulerSize);
  scheduler = from.fctx;
  static_cast<Fiber *>(from.data)->body();
  finishFiber();
}

/// Gives back what AddressSanitizer keeps for a fiber that was stopped for good: megabytes each, after some
/// thousands of them too much for a fork. It does so only for who leaves a fiber, so this poses as that one.
[[maybe_unused]] static void dropFakeStack(Fiber &fiber) {
  __sanitizer_start_switch_fiber(&schedulerFake, fiber.stack, StackPool::bytes);
  __sanitizer_finish_switch_fiber(fiber.fakeStack, &schedulerBottom, &schedulerSize);
  __sanitizer_start_switch_fiber(nullptr, schedulerBottom, schedulerSize);
  __sanitizer_finish_switch_fiber(schedulerFake, nullptr, nullptr);
  fiber.fakeStack = nullptr;
}

void startFiber(Fiber &fiber, char *stack, void (*body)()) {
  __asan_unpoison_memory_region(stack, StackPool::bytes);
  if (fiber.fakeStack) dropFakeStack(fiber);
  fiber.stack = stack;
  fiber.body = body;
  fiber.context = context::make_fcontext(stack + StackPool::bytes, StackPool::bytes, fiberEntry);
}

void enterFiber(Fiber &fiber) {
  __sanitizer_start_switch_fiber(&schedulerFake, fiber.stack, StackPool::bytes);
  context::transfer_t back = context::jump_fcontext(fiber.context, &fiber);
  __sanitizer_finish_switch_fiber(schedulerFake, nullptr, nullptr);
  fiber.context = back.fctx;
}

void leaveFiber(Fiber &fiber) {
  __sanitizer_start_switch_fiber(&fiber.fakeStack, schedulerBottom, schedulerSize);
  context::transfer_t back = context::jump_fcontext(scheduler, nullptr);
  __sanitizer_finish_switch_fiber(fiber.fakeStack, &schedulerBottom, &schedulerSize);
  fiber.fakeStack = nullptr; // in use; what is left here is that of a fiber that was stopped
  scheduler = back.fctx;
}

void finishFiber() {
  __sanitizer_start_switch_fiber(nullptr, schedulerBottom, schedulerSize);
  context::jump_fcontext(scheduler, nullptr);
  __builtin_unreachable();
}

} // namespace quern::sim
