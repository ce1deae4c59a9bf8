// See Interrupt.h.
#include "tools/Interrupt.h"
#include <atomic>
#include <csignal>

namespace quern::tools {
namespace {
std::atomic<bool> seen{false};
static_assert(std::atomic<bool>::is_always_lock_free); // a signal handler may touch nothing else
struct sigaction previousInt, previousTerm;

void remember(int signal) {
  if (seen.exchange(true)) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}
} // namespace

InterruptGuard::InterruptGuard() {
  seen = false;
  struct sigaction action{};
  action.sa_handler = remember;
  action.sa_flags = SA_RESTART; // compilers and files go on undisturbed
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previousInt);
  sigaction(SIGTERM, &action, &previousTerm);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &previousInt, nullptr);
  sigaction(SIGTERM, &previousTerm, nullptr);
}

bool interrupted() { return seen; }

} // namespace quern::tools
