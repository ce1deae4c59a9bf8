// See OwnFile.h.
#include "runtime/config/OwnFile.h"
#include <cstring>
#include <dlfcn.h>

namespace quern::config {

std::filesystem::path ownFile() {
  Dl_info info;
  std::error_code ignored;
  // A program that was found on the PATH has its bare name here, which says nothing about where it is.
  if (dladdr(reinterpret_cast<void *>(&ownFile), &info) && info.dli_fname && std::strchr(info.dli_fname, '/'))
    if (auto path = std::filesystem::canonical(info.dli_fname, ignored); !ignored) return path;
  auto path = std::filesystem::canonical("/proc/self/exe", ignored);
  return ignored ? std::filesystem::path() : path;
}

} // namespace quern::config
