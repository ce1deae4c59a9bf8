// Finds a loaded libgomp among the process's shared objects and keeps it loaded.
#include "runtime/launch/OpenMP.h"
#include <atomic>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <mutex>

namespace quern {
namespace {

struct Search {
  unsigned long long seenAdds; // loads that the last search knew about
  unsigned long long adds = 0;
  std::string gomp, torch;
};

/// Called for each object under the loader's lock: only notes names.
int visit(dl_phdr_info *info, size_t, void *data) {
  auto &search = *static_cast<Search *>(data);
  search.adds = info->dlpi_adds;
  if (search.adds == search.seenAdds) return 1; // nothing was loaded since: stop at the first object
  const char *path = info->dlpi_name ? info->dlpi_name : "";
  const char *slash = std::strrchr(path, '/');
  const char *file = slash ? slash + 1 : path;
  if (search.gomp.empty() && std::strstr(file, "libgomp")) search.gomp = path;
  if (search.torch.empty() && std::strstr(file, "libtorch_cpu.so")) search.torch = path;
  return 0;
}

/// Entry points seen from the loaded object `path` (itself and what it depends on), if they come from a
/// libgomp.
OpenMP *openFrom(const std::string &path) {
  void *handle = path.empty() ? nullptr : dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (!handle) return nullptr;
  auto found = new OpenMP; // kept, like the handle, until the process ends
  found->parallel = reinterpret_cast<decltype(found->parallel)>(dlsym(handle, "GOMP_parallel"));
  found->maxThreads = reinterpret_cast<decltype(found->maxThreads)>(dlsym(handle, "omp_get_max_threads"));
  found->inParallel = reinterpret_cast<decltype(found->inParallel)>(dlsym(handle, "omp_in_parallel"));
  Dl_info where{};
  if (found->parallel && found->maxThreads && found->inParallel &&
      dladdr(reinterpret_cast<void *>(found->parallel), &where) && std::strstr(where.dli_fname, "libgomp")) {
    found->description = std::string("libgomp (") + where.dli_fname + ")";
    return found;
  }
  delete found;
  dlclose(handle);
  return nullptr;
}

} // namespace

const OpenMP *loadedOpenMP() {
  static std::atomic<const OpenMP *> known{nullptr};
  static std::atomic<unsigned long long> seenAdds{0};
  if (const OpenMP *omp = known.load(std::memory_order_acquire)) return omp;
  Search search{seenAdds.load(std::memory_order_relaxed), 0, {}, {}};
  dl_iterate_phdr(visit, &search);
  if (search.adds == search.seenAdds) return nullptr;
  static std::mutex lock;
  std::lock_guard<std::mutex> hold(lock);
  if (const OpenMP *omp = known.load(std::memory_order_acquire)) return omp;
  // Several copies may be loaded (wheels bring their own): PyTorch's is the one whose workers spin.
  const OpenMP *omp = openFrom(search.torch);
  if (!omp) omp = openFrom(search.gomp);
  known.store(omp, std::memory_order_release);
  seenAdds.store(search.adds, std::memory_order_relaxed);
  return omp;
}

} // namespace quern
