// See CpuFeatures.h. Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
#include "runtime/launch/CpuFeatures.h"
#include "runtime/config/Knobs.h"
#include <map>
#include <string_view>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace quern {
namespace {

using Features = std::map<std::string, bool>; // ordered: the printed string is part of an image's identity

#if defined(__x86_64__)
enum Register { Eax, Ebx, Ecx, Edx };
/// The registers that the operating system must save for a feature (bits of XCR0).
enum State : unsigned { None = 0, Ymm = 0x6, Zmm = 0xe6, Tile = 0x60000 };

struct Feature {
  const char *name;
  unsigned leaf, subleaf;
  Register reg;
  int bit;
  State state = None;
};

constexpr unsigned extended = 0x80000001;
constexpr Feature known[] = {
    {"sse3", 1, 0, Ecx, 0},
    {"pclmul", 1, 0, Ecx, 1},
    {"ssse3", 1, 0, Ecx, 9},
    {"fma", 1, 0, Ecx, 12, Ymm},
    {"cx16", 1, 0, Ecx, 13},
    {"sse4.1", 1, 0, Ecx, 19},
    {"sse4.2", 1, 0, Ecx, 20},
    {"crc32", 1, 0, Ecx, 20},
    {"movbe", 1, 0, Ecx, 22},
    {"popcnt", 1, 0, Ecx, 23},
    {"avx", 1, 0, Ecx, 28, Ymm},
    {"f16c", 1, 0, Ecx, 29, Ymm},
    {"sahf", extended, 0, Ecx, 0},
    {"lzcnt", extended, 0, Ecx, 5},
    {"sse4a", extended, 0, Ecx, 6},
    {"prfchw", extended, 0, Ecx, 8},
    {"xop", extended, 0, Ecx, 11, Ymm},
    {"fma4", extended, 0, Ecx, 16, Ymm},
    {"bmi", 7, 0, Ebx, 3},
    {"avx2", 7, 0, Ebx, 5, Ymm},
    {"bmi2", 7, 0, Ebx, 8},
    {"avx512f", 7, 0, Ebx, 16, Zmm},
    {"evex512", 7, 0, Ebx, 16, Zmm},
    {"avx512dq", 7, 0, Ebx, 17, Zmm},
    {"adx", 7, 0, Ebx, 19},
    {"avx512ifma", 7, 0, Ebx, 21, Zmm},
    {"avx512cd", 7, 0, Ebx, 28, Zmm},
    {"avx512bw", 7, 0, Ebx, 30, Zmm},
    {"avx512vl", 7, 0, Ebx, 31, Zmm},
    {"avx512vbmi", 7, 0, Ecx, 1, Zmm},
    {"avx512vbmi2", 7, 0, Ecx, 6, Zmm},
    {"gfni", 7, 0, Ecx, 8},
    {"vaes", 7, 0, Ecx, 9, Ymm},
    {"vpclmulqdq", 7, 0, Ecx, 10, Ymm},
    {"avx512vnni", 7, 0, Ecx, 11, Zmm},
    {"avx512bitalg", 7, 0, Ecx, 12, Zmm},
    {"avx512vpopcntdq", 7, 0, Ecx, 14, Zmm},
    {"amx-bf16", 7, 0, Edx, 22, Tile},
    {"avx512fp16", 7, 0, Edx, 23, Zmm},
    {"amx-tile", 7, 0, Edx, 24, Tile},
    {"amx-int8", 7, 0, Edx, 25, Tile},
    {"avxvnni", 7, 1, Eax, 4, Ymm},
    {"avx512bf16", 7, 1, Eax, 5, Zmm},
    {"avxifma", 7, 1, Eax, 23, Ymm},
};

/// XCR0, or 0 when the system does not tell.
unsigned savedState() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; // OSXSAVE
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return a;
}

/// Linux grants tile registers per process on request (Documentation/arch/x86/xstate.rst).
bool tilesPermitted() {
  constexpr long requestPermission = 0x1023, tileData = 18;
  return syscall(SYS_arch_prctl, requestPermission, tileData) == 0;
}

Features hostFeatures() {
  Features features;
  unsigned saved = savedState();
  bool tiles = false;
  for (const Feature &feature : known) {
    unsigned r[4] = {};
    bool on = __get_cpuid_count(feature.leaf, feature.subleaf, &r[Eax], &r[Ebx], &r[Ecx], &r[Edx]);
    on = on && (r[feature.reg] >> feature.bit & 1) && (saved & feature.state) == feature.state;
    features[feature.name] = on;
    tiles |= on && feature.state == Tile;
  }
  if (tiles && !tilesPermitted())
    for (const char *name : {"amx-tile", "amx-bf16", "amx-int8"}) features[name] = false;
  return features;
}
#else
Features hostFeatures() { return {}; }
#endif

void switchOff(Features &features, std::string_view prefix) {
  for (auto &[key, on] : features)
    if (key.starts_with(prefix)) on = false;
}

/// One change. Without a base feature the ones built on it make no sense, so they go along.
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
      if (features.contains(user)) features[user] = false;
  }
}

} // namespace

std::string cpuFeatures(const std::string &changes) {
  static const Features host = hostFeatures();
  Features features = host;
  for (size_t from = 0; from <= changes.size();) {
    size_t comma = std::min(changes.find(',', from), changes.size());
    std::string item = changes.substr(from, comma - from);
    if (item.size() > 1 && (item[0] == '+' || item[0] == '-'))
      apply(features, item.substr(1), item[0] == '+');
    from = comma + 1;
  }
  std::string text;
  for (auto &[key, on] : features) text += (text.empty() ? "" : ",") + std::string(on ? "+" : "-") + key;
  return text;
}

std::string cpuFeatures() { return cpuFeatures(config::value(config::Knob::CpuFeatures).value_or("")); }

} // namespace quern
