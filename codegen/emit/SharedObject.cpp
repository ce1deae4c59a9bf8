// See SharedObject.h. lld reads and writes paths: both ends are descriptors of this process.
#include "codegen/emit/SharedObject.h"
#include "compiler/support/FileLimit.h"
#include "lld/Common/Driver.h"
#include "llvm/Support/raw_ostream.h"
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

LLD_HAS_DRIVER(elf)

namespace quern::x86 {
namespace {

/// The object, as a file in memory.
class Input {
  int fd;

public:
  explicit Input(std::string_view bytes) : fd(memfd_create("object", MFD_CLOEXEC)) {
    while (fd >= 0 && !bytes.empty()) {
      ssize_t n = write(fd, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        close(fd), fd = -1;
        return;
      }
      bytes.remove_prefix(size_t(n));
    }
  }
  Input(const Input &) = delete;
  ~Input() {
    if (fd >= 0) close(fd);
  }
  explicit operator bool() const { return fd >= 0; }
  std::string path() const { return fmt::format("/proc/self/fd/{}", fd); }
};

/// Where the result goes: a pipe, because lld renames a finished file onto a regular path, and writes to
/// anything else as it is.
class Output {
  int ends[2] = {-1, -1};
  std::thread reader;

public:
  std::string bytes;

  Output() {
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    reader = std::thread([this] {
      char buffer[1 << 16];
      for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) != 0;)
        if (n > 0)
          bytes.append(buffer, size_t(n));
        else if (errno != EINTR)
          return;
    });
  }
  Output(const Output &) = delete;
  ~Output() { finish(); }
  explicit operator bool() const { return ends[1] >= 0; }
  std::string path() const { return fmt::format("/proc/self/fd/{}", ends[1]); }
  /// Waits for the last byte.
  void finish() {
    if (ends[1] < 0) return;
    close(ends[1]);
    reader.join();
    close(ends[0]);
    ends[0] = ends[1] = -1;
  }
};

} // namespace

Expected<std::string> linkShared(std::string_view object) {
  if (!isWithinFileLimit(object.size()))
    return Error::system(
        fmt::format("a kernel of {} bytes is longer than the files that this process may write; "
                    "raise its limit (ulimit -f)",
                    object.size()),
        "lld");
  Input input(object);
  Output output;
  if (!input || !output)
    return Error::system(fmt::format("no file in memory for the linker: {}", std::strerror(errno)), "lld");
  std::string in = input.path(), out = output.path();
  const char *args[] = {"ld.lld",           "-shared",    "--threads=1", "--gc-sections", "--build-id=none",
                        "--hash-style=gnu", "-Bsymbolic", "-znow",       "-zrelro",       "-znoexecstack",
                        "--no-rosegment",   in.c_str(),   "-o",          out.c_str()};
  std::string said;
  llvm::raw_string_ostream stream(said);
  static std::mutex oneAtATime; // lld's state is global
  static bool usable = true;    // after a crash inside it, it is not
  std::lock_guard lock(oneAtATime);
  if (!usable) return Error::internal("the linker failed before and cannot be used again", "lld");
  lld::Result result = lld::lldMain(args, stream, stream, {{lld::Gnu, &lld::elf::link}});
  usable = result.canRunAgain;
  output.finish();
  if (result.retCode == 0 && !output.bytes.empty()) return std::move(output.bytes);
  Error error = Error::internal(fmt::format("the linker ended with status {}", result.retCode), "lld");
  error.detail = said;
  return error;
}

} // namespace quern::x86
