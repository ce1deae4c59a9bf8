// CPU features: what LLVM sees on the host, changed by QUERN_CPU_FEATURES for tests and for images meant for
// another machine.
#include "codegen/cpu/Schedule.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/TargetParser/Host.h"
#include <cstdlib>
#include <map>

namespace quern::cpu {

std::string hostFeatures() {
  std::map<std::string, bool> features; // ordered: the string is part of an image's identity
  for (auto &entry : llvm::sys::getHostCPUFeatures()) features[entry.getKey().str()] = entry.getValue();
  if (const char *env = std::getenv("QUERN_CPU_FEATURES")) {
    std::string_view text = env;
    size_t from = 0;
    while (from <= text.size()) {
      size_t comma = std::min(text.find(',', from), text.size());
      std::string item(text.substr(from, comma - from));
      from = comma + 1;
      if (item.size() < 2 || (item[0] != '+' && item[0] != '-')) continue;
      bool on = item[0] == '+';
      std::string feature = item.substr(1);
      features[feature] = on;
      // A group name, or a base feature without which the others make no sense, takes its whole family along.
      std::string family = feature == "avx512" || feature == "avx512f" ? "avx512"
                           : feature == "amx" || feature == "amx-tile" ? "amx"
                                                                       : "";
      if (!family.empty() && !on)
        for (auto &[key, value] : features)
          if (key.rfind(family, 0) == 0) value = false;
      if (feature == "amx" && on) features["amx-tile"] = features["amx-bf16"] = true;
      if (feature == "avx2" && !on)
        for (auto &[key, value] : features)
          if (key.rfind("avx", 0) == 0 || key.rfind("amx", 0) == 0 || key == "fma" || key == "f16c" ||
              key == "vaes" || key == "vpclmulqdq" || key == "gfni" || key == "xop" || key == "fma4")
            value = false;
    }
    features.erase("amx"), features.erase("avx512");
  }
  std::string text;
  for (auto &[key, on] : features) text += (text.empty() ? "" : ",") + std::string(on ? "+" : "-") + key;
  return text;
}

} // namespace quern::cpu
