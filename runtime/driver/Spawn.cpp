// vfork() and not posix_spawn(), which has no attribute for the parent's death; and not fork(), which copies
// the page tables of a training process and runs its atfork handlers. glibc's posix_spawn does the same.
#include "runtime/driver/Spawn.h"
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace quern::driver {
namespace {

struct Start {
  char *const *argv;
  int output;
  pid_t parent;
  volatile int failure = 0; // an errno, from the child: behind the compiler's back
};

void closeFrom(int first) {
#ifdef SYS_close_range
  if (syscall(SYS_close_range, unsigned(first), ~0u, 0) == 0) return;
#endif
  rlimit files{}; // kernels before 5.9
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  for (rlim_t file = rlim_t(first); file < std::min<rlim_t>(files.rlim_cur, 1 << 16); ++file)
    close(int(file));
}

/// Runs in the child on its parent's memory: only system calls, nothing that allocates or locks.
[[noreturn]] void become(Start &start) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != start.parent) _exit(127); // it died before: no signal will come
  setpgid(0, 0);
  struct sigaction standard = {}; // of this process alone: handlers are copied, not shared
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, &standard, nullptr);
  // The host may have closed its first three files: then the pipe may have one of their numbers.
  int output = fcntl(start.output, F_DUPFD, 3);
  int input = open("/dev/null", O_RDONLY);
  if (output >= 0 && input >= 0 && dup2(input, 0) == 0 && dup2(output, 1) == 1 && dup2(output, 2) == 2) {
    closeFrom(3);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execve(start.argv[0], start.argv, environ);
  }
  start.failure = errno;
  _exit(127);
}

} // namespace

int spawnTool(pid_t &pid, char *const argv[], int output) {
  Start start{argv, output, getpid()};
  // A handler of this process must not run in the child, on this memory.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child = vfork();
  if (child == 0) become(start);
  int failure = child < 0 ? errno : start.failure; // the child has run the program, or has ended
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child > 0 && failure) {
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  pid = child;
  return failure;
}

} // namespace quern::driver
