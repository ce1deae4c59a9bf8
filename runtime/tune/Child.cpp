// See Child.h. A socket, not pipes: a write to a dead child is then an error and no signal.
#include "runtime/tune/Child.h"
#include "runtime/config/OwnFile.h"
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace quern::tune {
namespace {

using Clock = std::chrono::steady_clock;
using protocol::Json;

std::string howItEnded(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("exit status {}", WEXITSTATUS(status));
}

} // namespace

Status Child::start() {
  kill();
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Error::system(fmt::format("no socket: {}", std::strerror(errno)), "tune");
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
  posix_spawn_file_actions_addclosefrom_np(&actions, 3); // files of the host that lack close-on-exec
#endif
  sigset_t none, all;
  sigemptyset(&none), sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::string command = "tune-worker";
  char *argv[] = {executable.data(), command.data(), nullptr};
  int failure = posix_spawn(&pid, executable.c_str(), &actions, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failure) {
    pid = -1;
    close(ends[0]);
    return Error::system(fmt::format("cannot be started: {}", std::strerror(failure)), executable);
  }
  socket = ends[0];
  return {};
}

void Child::kill() {
  if (socket >= 0) close(std::exchange(socket, -1));
  rest.clear();
  if (pid <= 0) return;
  ::kill(-pid, SIGKILL), ::kill(pid, SIGKILL);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid = -1;
}

Reply Child::ended(Reply reply) {
  int status = 0;
  reply.state = Reply::Died, reply.how = "gone";
  if (pid > 0) {
    ::kill(-pid, SIGKILL); // it closed its side: if it still lives, it is of no use
    pid_t got;
    do got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got == pid) reply.how = howItEnded(status);
    pid = -1;
  }
  kill();
  return reply;
}

Reply Child::ask(const Json &question, double seconds) {
  Reply reply;
  if (!alive()) return reply.state = Reply::NotStarted, reply;
  std::string text = protocol::line(question);
  for (size_t done = 0; done < text.size();) {
    ssize_t count = send(socket, text.data() + done, text.size() - done, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ended(std::move(reply));
    done += size_t(count);
  }
  auto start = Clock::now();
  for (;;) {
    if (size_t end = rest.find('\n'); end != rest.npos) {
      Json json = Json::parse(rest.substr(0, end), nullptr, false);
      rest.erase(0, end + 1);
      if (!json.is_object()) return ended(std::move(reply)); // not our worker
      if (json.contains("phase") || json.contains("running")) {
        reply.progress = std::move(json), start = Clock::now();
        continue;
      }
      reply.json = std::move(json);
      return reply;
    }
    double left = seconds - std::chrono::duration<double>(Clock::now() - start).count();
    pollfd peer{socket, POLLIN, 0};
    int ready = left > 0 ? poll(&peer, 1, int(std::min(left, 1e6) * 1000) + 1) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return kill(), reply.state = Reply::TimedOut, reply;
    char buffer[1 << 16];
    ssize_t count = read(socket, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ended(std::move(reply));
    rest.append(buffer, size_t(count));
  }
}

Expected<std::string> workerExecutable(const std::string &wanted) {
  namespace fs = std::filesystem;
  std::vector<fs::path> places;
  std::error_code ignored;
  if (!wanted.empty()) {
    places = {wanted};
  } else {
    fs::path folder = config::ownFile().parent_path();
    for (const fs::path &bin : {folder, folder.parent_path() / "bin", folder / "bin"})
      places.push_back(bin / "quern");
  }
  std::string tried;
  for (const fs::path &place : places) {
    if (!fs::is_directory(place, ignored) && access(place.c_str(), X_OK) == 0) return place.string();
    tried += "\n  " + place.string();
  }
  Error error =
      Error::user("the program `quern`, which measures in a process of its own, was not found", "tune");
  error.detail = "looked for:" + tried;
  return error;
}

} // namespace quern::tune
