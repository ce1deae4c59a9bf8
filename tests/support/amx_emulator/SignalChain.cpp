// SignalChain: see the header. Python's faulthandler and LLVM's crash handlers both set SIGILL when they
// start, after a preloaded library was initialised; therefore sigaction() and signal() are wrapped here.
#include "SignalChain.h"
#include <atomic>
#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace quern::amx {
namespace {

// A trap reads the current action while another thread may publish a new one, and neither may lock. So
// actions are written to a fresh slot and then published; a slot is reused only after 63 more changes.
constexpr unsigned slots = 64;
struct sigaction actions[slots]; // slot 0 is zero: SIG_DFL
std::atomic<unsigned> nextSlot{1}, current{0};
std::atomic<bool> installed{false};

using Sigaction = int (*)(int, const struct sigaction *, struct sigaction *);
using Signal = sighandler_t (*)(int, sighandler_t);
std::atomic<Sigaction> libcSigaction{nullptr};
std::atomic<Signal> libcSignal{nullptr};

/// The next definition behind this library's. Resolved in the constructor below, or earlier by another
/// library's constructor.
template <class F> F resolve(std::atomic<F> &slot, const char *name) {
  F function = slot.load(std::memory_order_acquire);
  if (!function) {
    function = reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
    slot.store(function, std::memory_order_release);
  }
  return function;
}

[[gnu::constructor(101)]] void resolveEarly() {
  resolve(libcSigaction, "sigaction");
  resolve(libcSignal, "signal");
}

/// Returns the action that was in force.
struct sigaction publish(const struct sigaction &action) {
  unsigned slot;
  do slot = nextSlot.fetch_add(1, std::memory_order_relaxed) % slots;
  while (slot == current.load(std::memory_order_acquire));
  actions[slot] = action;
  return actions[current.exchange(slot, std::memory_order_acq_rel)];
}

struct sigaction defaultAction() {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  return action;
}

} // namespace

int realSigaction(int signal, const struct sigaction *action, struct sigaction *old) {
  return resolve(libcSigaction, "sigaction")(signal, action, old);
}

bool isInstalled() { return installed.load(std::memory_order_acquire); }

bool installInFront(void (*handler)(int, siginfo_t *, void *)) {
  struct sigaction previous;
  if (realSigaction(SIGILL, nullptr, &previous)) return false;
  publish(previous); // before the first trap can come
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (realSigaction(SIGILL, &action, nullptr)) return false;
  installed.store(true, std::memory_order_release);
  return true;
}

void callNext(int signal, siginfo_t *info, void *context) {
  const struct sigaction action = actions[current.load(std::memory_order_acquire)];
  const bool fromCpu = info->si_code > 0; // else kill(), raise(), sigqueue()
  if (!(action.sa_flags & SA_SIGINFO) && (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) {
    if (action.sa_handler == SIG_IGN && !fromCpu) return;
    struct sigaction fatal = defaultAction();
    realSigaction(SIGILL, &fatal, nullptr);
    // A trap is raised again by returning to its instruction; a sent signal is sent again and waits until
    // this handler returns.
    if (!fromCpu) syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
    return;
  }
  if (action.sa_flags & SA_RESETHAND) publish(defaultAction());
  sigset_t mask = action.sa_mask, before;
  pthread_sigmask(SIG_BLOCK, &mask, &before);
  if (action.sa_flags & SA_NODEFER) {
    sigemptyset(&mask);
    sigaddset(&mask, SIGILL);
    pthread_sigmask(SIG_UNBLOCK, &mask, nullptr);
  }
  if (action.sa_flags & SA_SIGINFO)
    action.sa_sigaction(signal, info, context);
  else
    action.sa_handler(signal);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

} // namespace quern::amx

using namespace quern::amx;

extern "C" int sigaction(int signal, const struct sigaction *action, struct sigaction *old) noexcept {
  if (signal != SIGILL || !isInstalled()) return realSigaction(signal, action, old);
  const struct sigaction wanted = action ? *action : defaultAction(); // `old` may be `action`
  const struct sigaction before = action ? publish(wanted) : actions[current.load(std::memory_order_acquire)];
  if (old) *old = before;
  return 0;
}

extern "C" sighandler_t signal(int signal, sighandler_t handler) noexcept {
  if (signal != SIGILL || !isInstalled()) return resolve(libcSignal, "signal")(signal, handler);
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART; // BSD semantics, as in glibc
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGILL);
  return publish(action).sa_handler;
}
