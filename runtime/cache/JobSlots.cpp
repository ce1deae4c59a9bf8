// Limits of the machine, and slots as locks.
#include "runtime/cache/JobSlots.h"
#include "runtime/config/Knobs.h"
#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <fstream>
#include <sched.h>
#include <sstream>
#include <thread>
#include <vector>

namespace quern::cache {
namespace {

thread_local int depth = 0;

std::string readText(const std::string &path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// The number after `label` ("" : at the start); nothing for "max", "-1" or a file that is not there.
std::optional<uint64_t> number(std::string_view text, std::string_view label = "") {
  size_t at = 0;
  if (!label.empty()) {
    at = text.starts_with(label) ? 0 : text.find("\n" + std::string(label));
    if (at == text.npos) return std::nullopt;
    at = text.find_first_of("0123456789", at + label.size());
    if (at == text.npos) return std::nullopt;
  }
  uint64_t value;
  auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

/// The folder of a cgroup and all above it, up to the mount. In a container the path may belong to the host
/// and not exist: only the mount is left then.
std::vector<std::string> levels(const std::string &mount, std::string path) {
  std::vector<std::string> folders;
  for (; path.size() > 1; path.resize(path.rfind('/'))) folders.push_back(mount + path);
  folders.push_back(mount);
  return folders;
}

void limitBytes(Machine &machine, std::optional<uint64_t> most, std::optional<uint64_t> used,
                std::optional<uint64_t> reclaimable) {
  if (!most || !used) return;
  uint64_t taken = *used - std::min(*used, reclaimable.value_or(0)); // page cache goes when memory is wanted
  machine.freeBytes = std::min(machine.freeBytes, *most - std::min(*most, taken));
}

void limitThreads(Machine &machine, const std::string &folder) {
  std::optional<uint64_t> most = number(readText(folder + "/pids.max"));
  std::optional<uint64_t> used = number(readText(folder + "/pids.current"));
  if (most && used)
    machine.freeThreads = std::min(machine.freeThreads, int64_t(*most - std::min(*most, *used)));
}

void readVersion2(Machine &machine, const std::string &folder) {
  std::string cpu = readText(folder + "/cpu.max"); // "quota period" or "max period"
  std::optional<uint64_t> quota = number(cpu), period;
  if (size_t space = cpu.find(' '); space != cpu.npos)
    period = number(std::string_view(cpu).substr(space + 1));
  if (quota && period && *period)
    machine.cgroupCpus = std::min(machine.cgroupCpus, double(*quota) / double(*period));
  limitBytes(machine, number(readText(folder + "/memory.max")), number(readText(folder + "/memory.current")),
             number(readText(folder + "/memory.stat"), "inactive_file"));
  limitThreads(machine, folder);
}

void readVersion1(Machine &machine, std::string_view controllers, const std::string &root,
                  const std::string &path) {
  auto has = [&](std::string_view name) {
    return ("," + std::string(controllers) + ",").find("," + std::string(name) + ",") != std::string::npos;
  };
  std::string mount = root + "/sys/fs/cgroup/";
  if (has("cpu"))
    for (const std::string &folder : levels(mount + "cpu", path)) {
      std::optional<uint64_t> quota = number(readText(folder + "/cpu.cfs_quota_us"));
      std::optional<uint64_t> period = number(readText(folder + "/cpu.cfs_period_us"));
      if (quota && period && *period)
        machine.cgroupCpus = std::min(machine.cgroupCpus, double(*quota) / double(*period));
    }
  if (has("memory"))
    for (const std::string &folder : levels(mount + "memory", path))
      limitBytes(machine, number(readText(folder + "/memory.limit_in_bytes")),
                 number(readText(folder + "/memory.usage_in_bytes")),
                 number(readText(folder + "/memory.stat"), "total_inactive_file"));
  if (has("pids"))
    for (const std::string &folder : levels(mount + "pids", path)) limitThreads(machine, folder);
}

} // namespace

Machine readMachine(const std::string &root) {
  Machine machine;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    machine.affinity = std::max(1, CPU_COUNT(&set));
  else // more CPUs than the set holds
    machine.affinity = std::max(1, int(std::thread::hardware_concurrency()));
  if (std::optional<uint64_t> kilobytes = number(readText(root + "/proc/meminfo"), "MemAvailable:"))
    machine.freeBytes = *kilobytes * 1024;
  // Lines "id:controllers:path"; version 2 is "0::path".
  std::istringstream groups(readText(root + "/proc/self/cgroup"));
  for (std::string line; std::getline(groups, line);) {
    size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (!controllers.empty()) {
      readVersion1(machine, controllers, root, path);
      continue;
    }
    for (const char *mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"})
      for (const std::string &folder : levels(root + mount, path)) readVersion2(machine, folder);
  }
  return machine;
}

int jobLimit(const Machine &machine, uint64_t bytesPerJob, const std::optional<std::string> &wanted) {
  if (wanted) {
    int jobs = 0;
    auto [end, error] = std::from_chars(wanted->data(), wanted->data() + wanted->size(), jobs);
    if (error == std::errc() && end == wanted->data() + wanted->size() && jobs >= 1 && jobs <= 1024)
      return jobs;
  }
  double jobs = std::min<double>(machine.affinity, std::ceil(machine.cgroupCpus));
  jobs = std::min(jobs, double(machine.freeBytes / std::max<uint64_t>(1, bytesPerJob)));
  jobs = std::min(jobs, double(machine.freeThreads / threadsPerCompilation));
  return std::clamp(int(jobs), 1, 1024);
}

int jobLimit(uint64_t bytesPerJob) {
  return jobLimit(readMachine(), bytesPerJob, config::value(config::Knob::Jobs));
}

JobSlot::JobSlot(uint64_t bytesPerJob, const LockFolder &locks, std::chrono::milliseconds patience) {
  using namespace std::chrono_literals;
  if (++depth > 1) return;
  auto deadline = std::chrono::steady_clock::now() + patience;
  // The first slots first: a process of a lower limit sees the others' jobs in them.
  for (auto pause = 5ms;; pause = std::min<std::chrono::milliseconds>(2 * pause, 100ms)) {
    int limit = jobLimit(bytesPerJob);
    for (int slot = 0; slot < limit; ++slot) {
      LockFolder::Outcome outcome = locks.tryLock("jobs", uint64_t(slot), lock);
      if (outcome != LockFolder::Outcome::Busy) return;
    }
    if (std::chrono::steady_clock::now() >= deadline) return;
    std::this_thread::sleep_for(pause);
  }
}

JobSlot::~JobSlot() { --depth; }

} // namespace quern::cache
