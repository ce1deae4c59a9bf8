// CPU features: what LLVM sees on the host, changed by QUERN_CPU_FEATURES for tests and for images meant for
// another machine.
#include "codegen/cpu/Schedule.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/TargetParser/Host.h"
#include <cstdlib>
#include <map>
#include <sys/syscall.h>
#include <unistd.h>

namespace quern::cpu {
namespace {

using Features = std::map<std::string, bool>; // ordered: the printed string is part of an image's identity

/// Linux grants tile registers per process on request (Documentation/arch/x86/xstate.rst).
bool tilesPermitted() {
  constexpr long requestPermission = 0x1023, tileData = 18;
  return syscall(SYS_arch_prctl, requestPermission, tileData) == 0;
}

void switchOff(Features &features, std::string_view prefix) {
  for (auto &[key, on] : features)
    if (key.rfind(prefix, 0) == 0) on = false;
}

/// One item of QUERN_CPU_FEATURES. Without a base feature the ones built on it make no sense, so they go
/// along.
void apply(Features &features, const std::string &feature, bool on) {
  if (feature == "amx") {
    if (on)
      features["amx-tile"] = features["amx-bf16"] = true;
    else
      switchOff(features, "amx");
    return;
  }
  if (feature != "avx512") features[feature] = on;
  if (on) return;
  if (feature == "amx-tile") switchOff(features, "amx");
  if (feature == "avx512" || feature == "avx512f") switchOff(features, "avx512");
  if (feature == "avx2" || feature == "avx") {
    switchOff(features, "avx"), switchOff(features, "amx");
    for (const char *user : {"fma", "f16c", "fma4", "xop", "vaes", "vpclmulqdq", "gfni"})
      if (features.count(user)) features[user] = false;
  }
}

} // namespace

std::string hostFeatures() {
  Features features;
  for (auto &entry : llvm::sys::getHostCPUFeatures()) features[entry.getKey().str()] = entry.getValue();
  if (features["amx-tile"] && !tilesPermitted()) switchOff(features, "amx");
  if (const char *env = std::getenv("QUERN_CPU_FEATURES")) {
    std::string_view text = env;
    for (size_t from = 0; from <= text.size();) {
      size_t comma = std::min(text.find(',', from), text.size());
      std::string item(text.substr(from, comma - from));
      if (item.size() > 1 && (item[0] == '+' || item[0] == '-'))
        apply(features, item.substr(1), item[0] == '+');
      from = comma + 1;
    }
  }
  std::string text;
  for (auto &[key, on] : features) text += (text.empty() ? "" : ",") + std::string(on ? "+" : "-") + key;
  return text;
}

} // namespace quern::cpu
