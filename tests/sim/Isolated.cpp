// See Isolated.h.
#include "tests/sim/Isolated.h"
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace quern::simtest {
namespace {

using Clock = std::chrono::steady_clock;

struct Child {
  size_t index;
  pid_t pid;
  int pipe;
  Clock::time_point deadline;
  std::string text;
};

Child start(size_t index, double secondsLimit, const std::function<std::string(size_t)> &work) {
  int ends[2];
  if (pipe(ends) != 0) std::perror("pipe"), std::abort();
  std::fflush(nullptr);
  pid_t pid = fork();
  if (pid < 0) std::perror("fork"), std::abort();
  if (pid == 0) {
    for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) std::signal(signal, SIG_DFL);
    if (!freopen("/dev/null", "w", stderr)) _exit(2); // LLVM's stack dump of a crash that is expected
    close(ends[0]);
    std::string text = work(index);
    for (size_t at = 0; at < text.size();) {
      ssize_t sent = write(ends[1], text.data() + at, text.size() - at);
      if (sent <= 0) _exit(2);
      at += size_t(sent);
    }
    _exit(0);
  }
  close(ends[1]);
  auto limit = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(secondsLimit));
  return {index, pid, ends[0], Clock::now() + limit, {}};
}

/// False when the child has closed its end.
bool readSome(Child &child) {
  char buffer[65536];
  ssize_t got = read(child.pipe, buffer, sizeof buffer);
  if (got > 0) child.text.append(buffer, size_t(got));
  return got > 0;
}

Ended finish(Child &child, bool late) {
  if (late) kill(child.pid, SIGKILL);
  close(child.pipe);
  int status = 0;
  waitpid(child.pid, &status, 0);
  Ended ended{std::move(child.text), 0, late};
  if (!late && WIFSIGNALED(status)) ended.signal = WTERMSIG(status);
  if (!late && WIFEXITED(status) && WEXITSTATUS(status)) ended.signal = SIGABRT;
  return ended;
}

} // namespace

void runIsolated(size_t count, unsigned jobs, double secondsLimit,
                 const std::function<std::string(size_t)> &work,
                 const std::function<void(size_t, const Ended &)> &done) {
  std::vector<Child> running;
  for (size_t next = 0; next < count || !running.empty();) {
    while (next < count && running.size() < jobs) running.push_back(start(next++, secondsLimit, work));
    std::vector<pollfd> polls;
    for (const Child &child : running) polls.push_back({child.pipe, POLLIN, 0});
    poll(polls.data(), nfds_t(polls.size()), 200);
    for (size_t i = running.size(); i-- > 0;) {
      bool ended = polls[i].revents && !readSome(running[i]);
      bool late = !ended && Clock::now() > running[i].deadline;
      if (!ended && !late) continue;
      Ended how = finish(running[i], late);
      size_t index = running[i].index;
      running.erase(running.begin() + long(i));
      done(index, how);
    }
  }
}

} // namespace quern::simtest
