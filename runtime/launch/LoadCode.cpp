// See LoadCode.h.
#include "runtime/launch/LoadCode.h"
#include "compiler/support/FileLimit.h"
#include "runtime/driver/Process.h"
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

namespace quern {
namespace {

/// The loader takes two paths that are spelled alike for one library, and descriptors are used again: each
/// path gets a spelling of its own, by "/./" and "/" for the binary digits of a counter.
std::string ownSpelling(int fd) {
  static std::atomic<uint64_t> counter{0};
  std::string path = "/proc/self";
  for (uint64_t number = counter.fetch_add(1); number; number >>= 1) path += number & 1 ? "/." : "//";
  return path + fmt::format("/fd/{}", fd);
}

bool writeAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(size_t(n));
  }
  return true;
}

void *openFromMemory(std::string_view elf) {
  constexpr unsigned executable = 0x10; // MFD_EXEC, since Linux 6.3: older kernels refuse the flag
  int fd = memfd_create("quern", MFD_CLOEXEC | executable);
  if (fd < 0) fd = memfd_create("quern", MFD_CLOEXEC);
  if (fd < 0) return nullptr;
  void *handle = nullptr;
  if (writeAll(fd, elf)) handle = dlopen(ownSpelling(fd).c_str(), RTLD_NOW | RTLD_LOCAL);
  close(fd); // the mapping stays
  return handle;
}

} // namespace

void *LoadedCode::find(const std::string &symbol) const { return dlsym(handle, symbol.c_str()); }

Expected<LoadedCode> loadCode(std::string_view elf) {
  if (!isWithinFileLimit(elf.size())) // a file in memory counts too
    return Error::system(
        fmt::format("a kernel of {} bytes is longer than the files that this process may write; "
                    "raise its limit (ulimit -f)",
                    elf.size()),
        "loader");
  if (void *handle = openFromMemory(elf)) return LoadedCode(handle);
  // No /proc, or files in memory may not be executed.
  auto folder = driver::PrivateFolder::create();
  if (!folder) return folder.takeError();
  auto file = folder->write("kernel.so", std::string(elf));
  if (!file) return file.takeError();
  if (void *handle = dlopen(file->c_str(), RTLD_NOW | RTLD_LOCAL)) return LoadedCode(handle);
  return Error::system(fmt::format("the compiled kernel cannot be opened: {}", dlerror()), "loader");
}

} // namespace quern
