// A tool with a pipe and a deadline; private temporary folders.
#include "runtime/driver/Process.h"
#include "compiler/support/FileLimit.h"
#include "runtime/config/Knobs.h"
#include "runtime/driver/Spawn.h"
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace quern::driver {
namespace {

using Clock = std::chrono::steady_clock;

struct FileDescriptor {
  int fd = -1;
  ~FileDescriptor() { reset(); }
  void reset() {
    if (fd >= 0) close(fd);
    fd = -1;
  }
};

Error systemError(std::string_view what, const std::string &place, int code) {
  return Error::system(fmt::format("{}: {}", what, std::strerror(code)), place);
}

/// Takes the exit status if the child has ended. True: it has.
bool reap(pid_t pid, int flags, ProcessResult &result) {
  int status = 0;
  pid_t got;
  do got = waitpid(pid, &status, flags);
  while (got < 0 && errno == EINTR);
  if (got == 0) return false;
  if (got < 0)
    result.exitStatus = -1; // ECHILD: the host reaps children itself
  else if (WIFSIGNALED(status))
    result.signal = WTERMSIG(status);
  else
    result.exitStatus = WEXITSTATUS(status);
  return true;
}

/// Reads what is there without blocking for longer than `waitMs`. False at the end of the stream.
bool readSome(int fd, int waitMs, size_t limit, ProcessResult &result) {
  pollfd waiting{fd, POLLIN, 0};
  if (poll(&waiting, 1, waitMs) <= 0) return true;
  char buffer[1 << 16];
  ssize_t count = read(fd, buffer, sizeof buffer);
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  if (count == 0) return false;
  size_t room = limit - std::min(limit, result.output.size());
  if (static_cast<size_t>(count) > room) result.truncated = true;
  result.output.append(buffer, std::min<size_t>(count, room));
  return true;
}

} // namespace

Expected<ProcessResult> runProcess(const std::vector<std::string> &arguments, const ProcessOptions &options) {
  std::vector<char *> argv;
  for (const std::string &argument : arguments) argv.push_back(const_cast<char *>(argument.c_str()));
  argv.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return systemError("no pipe", arguments[0], errno);
  FileDescriptor out{ends[0]}, in{ends[1]};
  fcntl(out.fd, F_SETFL, O_NONBLOCK);

  auto start = Clock::now();
  auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  pid_t pid = -1;
  if (int failure = spawnTool(pid, argv.data(), in.fd))
    return systemError("cannot be started", arguments[0], failure);
  in.reset();
  rlim_t seconds = static_cast<rlim_t>(std::min(options.timeoutSeconds, 1e6)) + 1;
  rlimit cpu{seconds, seconds + 1};
  prlimit(pid, RLIMIT_CPU, &cpu, nullptr); // what it starts itself ends too, if this process is killed

  ProcessResult result;
  bool open = true, ended = false;
  while (open || !ended) {
    double left = options.timeoutSeconds - elapsed();
    if (left <= 0) break;
    if (open) {
      open =
          readSome(out.fd, static_cast<int>(std::min(left * 1000 + 1, 100.0)), options.outputLimit, result);
    } else { // it closed its output: the end is near
      timespec pause{0, 500'000};
      nanosleep(&pause, nullptr);
    }
    if (!ended) ended = reap(pid, WNOHANG, result);
    // A grandchild may hold the pipe for ever: what it has now is all that is read.
    if (ended && open) {
      pollfd more{out.fd, POLLIN, 0};
      if (poll(&more, 1, 0) <= 0) {
        open = false;
        kill(-pid, SIGKILL);
      }
    }
  }
  if (!ended) {
    result.timedOut = true;
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL); // its group exists only once the child has run
    reap(pid, 0, result);
  }
  result.seconds = elapsed();
  return result;
}

Expected<PrivateFolder> PrivateFolder::create() {
  std::string own = config::systemVariable("TMPDIR").value_or("");
  std::string tried;
  for (const char *parent : {own.starts_with('/') ? own.c_str() : "/tmp", "/tmp", "/var/tmp", "/dev/shm"}) {
    std::string path = fmt::format("{}/quern-XXXXXX", parent);
    if (mkdtemp(path.data())) return PrivateFolder(path);
    tried += fmt::format("  {}: {}\n", parent, std::strerror(errno));
  }
  Error error = Error::system("no folder for temporary files; set TMPDIR to one");
  error.detail = "tried:\n" + tried;
  return error;
}

PrivateFolder::PrivateFolder(PrivateFolder &&other) noexcept : folder(std::exchange(other.folder, {})) {}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  if (!folder.empty()) std::filesystem::remove_all(folder, ignored);
}

Expected<std::string> PrivateFolder::write(const std::string &name, const std::string &bytes) const {
  std::string path = folder + "/" + name;
  if (!isWithinFileLimit(bytes.size())) return systemError("cannot be written", path, EFBIG);
  FileDescriptor file{open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)};
  if (file.fd < 0) return systemError("cannot be created", path, errno);
  for (size_t done = 0; done < bytes.size();) {
    ssize_t count = ::write(file.fd, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return systemError("cannot be written", path, errno);
    done += static_cast<size_t>(count);
  }
  return path;
}

Expected<std::string> readFile(const std::string &path) {
  FileDescriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return systemError("cannot be opened", path, errno);
  std::string bytes;
  struct stat info;
  if (fstat(file.fd, &info) == 0 && info.st_size > 0) bytes.reserve(static_cast<size_t>(info.st_size));
  char buffer[1 << 16];
  for (;;) {
    ssize_t count = read(file.fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return systemError("cannot be read", path, errno);
    if (count == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(count));
  }
}

} // namespace quern::driver
