// See Tuning.h: records as a launch sees them.
#include "runtime/cache/Notice.h"
#include "runtime/config/Knobs.h"
#include "runtime/launch/CpuFeatures.h"
#include "runtime/launch/ParallelFor.h"
#include "runtime/tune/CpuSpace.h"
#include "runtime/tune/GpuSpace.h"
#include "runtime/tune/Record.h"
#include <fmt/format.h>
#include <mutex>
#include <unordered_map>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace quern::tune {
namespace {

/// Answers of this process, also the negative ones. Never destroyed: threads may launch while it ends.
struct Answers {
  std::mutex mutex;
  std::unordered_map<std::string, std::optional<std::string>> byKey;
};
Answers &answers() {
  static auto &all = *new Answers;
  return all;
}

/// "AMD EPYC 9B14"; the processor's own words.
std::string cpuName() {
  std::string text;
#if defined(__x86_64__)
  unsigned most = __get_cpuid_max(0x80000000u, nullptr);
  for (unsigned leaf = 0x80000002u; leaf <= 0x80000004u && leaf <= most; ++leaf) {
    unsigned words[4] = {};
    __get_cpuid(leaf, &words[0], &words[1], &words[2], &words[3]);
    text.append(reinterpret_cast<const char *>(words), sizeof words);
  }
#endif
  text.resize(text.find('\0') == text.npos ? text.size() : text.find('\0'));
  while (!text.empty() && text.back() == ' ') text.pop_back();
  while (text.starts_with(' ')) text.erase(0, 1);
  return text.empty() ? "unknown CPU" : text;
}

} // namespace

DeviceIdentity cpuIdentity() { return {cpuName(), "cpu", numThreads()}; }

DeviceIdentity identityOf(const gpu::Backend &backend) {
  std::string name = backend.name(), suffix = fmt::format(" ({})", backend.arch());
  if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  return {name, backend.arch(), backend.multiprocessors()};
}

Status checkTunable(const jit::Request &request, std::string_view schedule) {
  if (schedule.empty()) return {}; // the default
  if (request.target != "cpu") return checkGpuTunable(schedule);
  return checkCpuTunable(request.features.empty() ? cpuFeatures() : request.features, schedule);
}

std::optional<std::string> tunedSchedule(const jit::Request &request, const DeviceIdentity &device) {
  // What a caller or a knob fixes is not the tuner's; the simulator's times rank nothing.
  if (!request.schedule.empty() || device.arch == "sim") return std::nullopt;
  cache::Key key = tuningKey(request, device, Policy::Device);
  std::string text = key.text();
  Answers &all = answers();
  std::lock_guard lock(all.mutex);
  auto found = all.byKey.find(text);
  if (found != all.byKey.end()) return found->second;
  std::optional<std::string> answer;
  jit::Request full = request;
  if (auto record = findRecord(cache::Store::user(), key, full); record && !record->schedule.empty())
    answer = record->schedule;
  return all.byKey.emplace(std::move(text), std::move(answer)).first->second;
}

} // namespace quern::tune
