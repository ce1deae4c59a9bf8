// Which instruction set this run of the tests is about. The tests named Core* run once per instruction set
// and schedule (tests/CMakeLists.txt sets QUERN_CPU_FEATURES or QUERN_CPU_SCHEDULE and QUERN_TEST_ISA).
#include "tests/unit/jit_support.h"
#include <algorithm>
#include <cstdlib>
#include <dlfcn.h>
#include <fmt/format.h>
#include <fstream>
#include <set>
#include <sstream>

namespace quern::jittest {
namespace {

constexpr const char *isaNames[] = {"x86-64", "avx2", "avx512", "avx512bf16", "amx"};
int levelOf(const std::string &isa) {
  return int(std::find(std::begin(isaNames), std::end(isaNames), isa) - std::begin(isaNames));
}

/// What this CPU has, as Linux says it: independent of LLVM's opinion.
int hostLevel() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  std::set<std::string> flags;
  while (std::getline(file, line) && flags.empty())
    if (line.rfind("flags", 0) == 0) {
      std::istringstream words(line);
      for (std::string w; words >> w;) flags.insert(w);
    }
  auto all = [&](std::initializer_list<const char *> names) {
    return std::all_of(names.begin(), names.end(), [&](const char *n) { return flags.count(n) > 0; });
  };
  if (!all({"avx2", "fma", "f16c"})) return 0;
  if (!all({"avx512f", "avx512bw", "avx512vl", "avx512dq"})) return 1;
  if (!all({"avx512_bf16"})) return 2;
  return all({"amx_tile", "amx_bf16"}) ? 4 : 3;
}

bool emulated() {
  auto installed = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "quern_amx_emulator_installed"));
  return installed && installed();
}

const char *wantedIsa() { return std::getenv("QUERN_TEST_ISA"); }

/// Skips everything where this run could not differ from another one.
struct Target : testing::Environment {
  void SetUp() override {
    fmt::print("seed {} (QUERN_TEST_SEED changes it), {}\n", seed(), currentSchedule());
    if (const char *wanted = wantedIsa()) {
      if (hostLevel() == levelOf(wanted))
        GTEST_SKIP() << "this CPU's own instruction set is " << wanted << ": the plain run has tested it";
      if (hostLevel() < levelOf(wanted) && !emulated())
        GTEST_SKIP() << "this CPU has no " << wanted << ", only " << isaNames[hostLevel()];
      if (emulated() && hostLevel() < 3)
        GTEST_SKIP() << "AMX kernels use AVX-512 BF16, which is not emulated";
    }
    if (std::getenv("QUERN_CPU_SCHEDULE") && levelOf(currentIsa()) == std::size(isaNames))
      GTEST_SKIP() << "this schedule is not for this CPU: " << currentSchedule();
  }
};
const auto *target [[maybe_unused]] = testing::AddGlobalTestEnvironment(new Target);

TEST(CoreIsa, IsTheOneAskedFor) {
  const char *wanted = wantedIsa();
  EXPECT_EQ(currentIsa(), wanted ? wanted : isaNames[hostLevel()]);
}

/// Runs last under the emulator (the file's name says nothing about order, so it makes its own kernel call).
TEST(CoreIsa, TileInstructionsRan) {
  if (currentIsa() != "amx") GTEST_SKIP() << "not the AMX target";
  if (!emulated()) GTEST_SKIP() << "this CPU has AMX: its instructions cannot be counted";
  auto count = reinterpret_cast<uint64_t (*)(int)>(dlsym(RTLD_DEFAULT, "quern_amx_emulator_count"));
  auto nameOf = reinterpret_cast<const char *(*)(int)>(dlsym(RTLD_DEFAULT, "quern_amx_emulator_name"));
  ASSERT_TRUE(count && nameOf);
  constexpr int tdpbf16ps = 7;
  ASSERT_STREQ(nameOf(tdpbf16ps), "tdpbf16ps");
  Case c{"linear", "linear", {}};
  c.options.dims = {{"T", 20}, {"N", 64}, {"K", 128}};
  c.options.seed = seed();
  Call call(c);
  uint64_t before = count(tdpbf16ps);
  call.expectCorrect();
  // 64 x 128 weights and two groups of 16 tokens: 4 x 2 tiles of C, 128 / 32 steps of k.
  EXPECT_EQ(count(tdpbf16ps) - before, 4u * 2u * 4u);
}

} // namespace
} // namespace quern::jittest
