// Every shipped kernel in every family of schedules, through ptxas: no spills, no word about wgmma or
// setmaxnreg, and a record of PTX, registers and shared memory in tests/golden/nvidia_cubins.txt. A change of
// the generated code shows in that file's diff: QUERN_UPDATE_GOLDEN=1 writes it anew.
#include "compiler/syntax/Syntax.h"
#include "runtime/driver/Ptxas.h"
#include "tools/CallRequest.h"
#include "tools/Load.h"
#include <atomic>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <map>
#include <thread>

namespace quern {
namespace {

struct Kernel {
  const char *source, *kernel; // a shipped file, or a codec of `dense`
  std::vector<std::string> dims;
  bool halved = false; // gate and up rows lie N/2 apart: such tiles have 128 rows
  const char *act = "bf16", *regs = "";
};
// The models' own sizes; rank 16 for adapters.
const Kernel shipped[] = {
    {"gpt_oss", "gate_up", {"E=32", "N=5760", "K=2880"}},
    {"gpt_oss", "down", {"E=32", "N=2880", "K=2880"}},
    {"gpt_oss_lora", "gate_up", {"E=32", "N=5760", "K=2880", "P=16"}},
    {"gpt_oss_lora", "down", {"E=32", "N=2880", "K=2880"}},
    {"qwen3", "gate_up", {"E=128", "N=1536", "K=2048"}, true},
    {"qwen3", "down", {"E=128", "N=2048", "K=768"}},
    {"mixtral", "gate_up", {"E=8", "N=28672", "K=4096"}, true},
    {"mixtral", "down", {"E=8", "N=4096", "K=14336"}},
    {"linear", "linear", {"N=4096", "K=4096"}},
    {"linear", "linear_bias", {"N=4096", "K=4096"}},
    {"linear", "lora_linear", {"N=4096", "K=4096", "P=16"}},
};
// Other codecs, dtypes and sizes that are no multiples of a tile, in two families.
const Kernel others[] = {
    {"linear", "linear_bias", {"N=4096", "K=4096"}, false, "f16"},
    // All threads of the producer copy edges: they need more registers.
    {"gpt_oss", "gate_up", {"E=4", "N=200", "K=96"}, false, "bf16", " regs=216/72"},
    {"fp4", "dense", {"N=4096", "K=4096"}},
    {"mxfp4", "dense", {"N=4096", "K=4096"}},
    {"int4", "dense", {"N=4096", "K=4096"}},
    {"zeros", "dense", {"N=4096", "K=4096"}},
};
constexpr const char *dense = "kernel dense(x: act[T, K], w: {0}[N, K]) -> y: act[T, N] {{\n"
                              "  y[t, n] = sum(k) x[t, k] * w[n, k]\n}}\n";
constexpr const char *zeros =
    "codec zeros {\n  table = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]\n"
    "  first = low\n  scale bf16 per 32\n  zero u4 per 32\n}\n";

struct Family {
  const char *name, *schedule, *halved;
};
const Family families[] = {
    {"wide", "bn=256 stages=5 cluster=2 decode=exact", nullptr},
    {"fast", "bn=128 stages=6 cluster=2 decode=fast", nullptr},
    {"fused", "bn=64 stages=6 gather=fused", nullptr},
    {"tall", "bm=192 bn=96 stages=5 regs=152/40", "bn=96 stages=5"},
    {"pairs", "bm=64 bn=64 stages=4 ctas=2 regs=152/40", "bn=32 stages=4 ctas=2 regs=96/40"},
    {"split", "bm=64 bn=16 stages=8 split=4", "bn=16 stages=8 split=4"},
    {"ahead", "bn=256 stages=4 decode=ahead", nullptr},
    {"ahead-fused", "bn=64 stages=6 gather=fused decode=ahead", nullptr},
};

/// FNV-1a, so that the record is the same on every machine.
uint64_t hashOf(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

struct Compiled {
  std::string name, failure;
  jit::GpuImage image;
  driver::PtxasReport report;
  /// The line of the golden file.
  std::string line() const {
    const driver::PtxasKernel *k = report.find(image.entry);
    return fmt::format("{} ptx={:016x} registers={} smem={}", name, hashOf(image.ptx), k ? k->registers : -1,
                       image.smemBytes);
  }
};

Expected<std::shared_ptr<const syntax::Program>> programOf(const Kernel &k) {
  if (std::string_view(k.kernel) != "dense") return tools::loadProgram(k.source);
  std::string codec = k.source, head = codec == "zeros" ? zeros : "use " + codec + "\n";
  return syntax::parseProgram(head + fmt::format(fmt::runtime(dense), codec), codec + ".qn");
}

Compiled compile(const Kernel &k, const Family &family) {
  Compiled c;
  std::string dims, act = k.act;
  for (const std::string &dim : k.dims) dims += (dims.empty() ? "" : ",") + dim;
  c.name = fmt::format("{} {} {} {} {}", k.source, k.kernel, dims, act, family.name);
  auto program = programOf(k);
  if (!program) return c.failure = program.error().str(), c;
  auto kernel = tools::pickKernel(**program, k.kernel);
  if (!kernel) return c.failure = kernel.error().str(), c;
  tools::CallOptions options;
  options.dims = k.dims, options.layout = "gpu", options.act = act;
  auto request = tools::requestFor(**program, **kernel, options);
  if (!request) return c.failure = request.error().str(), c;
  request->target = "sm_90a",
  request->schedule = std::string(k.halved && family.halved ? family.halved : family.schedule) + k.regs;
  auto image = jit::compileGpuThroughLibrary(*request);
  if (!image) return c.failure = image.error().str(), c;
  c.image = *image;
  c.report = driver::parsePtxasLog(c.image.ptxasLog);
  return c;
}

class Cubins : public testing::Test {
protected:
  static inline std::vector<Compiled> all;

  static void SetUpTestSuite() {
    if (driver::findPtxas().empty()) return;
    std::vector<std::pair<const Kernel *, const Family *>> cases;
    for (const Kernel &k : shipped)
      for (const Family &family : families) cases.emplace_back(&k, &family);
    for (const Kernel &k : others)
      for (int family : {1, 2, 6}) // zero points have no fast decode
        cases.emplace_back(&k, &families[std::string_view(k.source) == "zeros" && family == 1 ? 0 : family]);
    all.resize(cases.size());
    std::atomic<size_t> next = 0;
    auto work = [&] {
      for (size_t i; (i = next++) < all.size();) all[i] = compile(*cases[i].first, *cases[i].second);
    };
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i)
      threads.emplace_back(work);
  }
  void SetUp() override {
    if (all.empty()) GTEST_SKIP() << driver::missingPtxas().message;
  }
};

TEST_F(Cubins, NothingSpillsAndPtxasHasNothingToSay) {
  for (const Compiled &c : all) {
    EXPECT_EQ(c.failure, "") << c.name;
    if (!c.failure.empty()) continue;
    const driver::PtxasKernel *k = c.report.find(c.image.entry);
    ASSERT_TRUE(k) << c.name << ": ptxas does not mention '" << c.image.entry << "'\n" << c.image.ptxasLog;
    EXPECT_EQ(k->spillStoreBytes + k->spillLoadBytes, 0) << c.name << " " << c.image.schedule;
    EXPECT_EQ(k->stackBytes, 0) << c.name;
    EXPECT_FALSE(c.report.setmaxnregIgnored()) << c.name;
    EXPECT_FALSE(c.report.wgmmaSerialized()) << c.name;
    EXPECT_FALSE(c.report.wgmmaInjected()) << c.name;
    EXPECT_TRUE(c.report.advisories.empty() && c.report.warnings.empty()) << c.name << "\n"
                                                                          << c.image.ptxasLog;
    // What setmaxnreg shares out is in the PTX, and in the code a register count that allows it.
    EXPECT_NE(c.image.ptx.find("setmaxnreg.inc.sync"), std::string::npos) << c.name;
    EXPECT_NE(c.image.ptx.find("setmaxnreg.dec.sync"), std::string::npos) << c.name;
    EXPECT_LE(k->registers * c.image.threads * c.image.ctasPerSm, 65536) << c.name;
  }
}

TEST_F(Cubins, TheSameRequestGivesTheSameCode) {
  Compiled again = compile(shipped[0], families[1]);
  ASSERT_EQ(again.failure, "");
  EXPECT_EQ(again.image.ptx, all[1].image.ptx);
}

TEST_F(Cubins, CodeIsTheRecordedOne) {
  std::string path = QUERN_SOURCE_DIR "/tests/golden/nvidia_cubins.txt";
  auto ptxas = driver::toolVersion(driver::findPtxas().front().path);
  std::string tools = fmt::format("# LLVM {}, ptxas {}", QUERN_LLVM_VERSION, ptxas ? *ptxas : "unknown");
  if (std::getenv("QUERN_UPDATE_GOLDEN")) {
    std::ofstream file(path);
    file << "# Kernel, family of schedules (jit_nvidia_cubins_test.cpp), hash of the PTX, what ptxas makes "
            "of it.\n"
            "# Written by: QUERN_UPDATE_GOLDEN=1 quern-jit-tests --gtest_filter='Cubins*'\n"
         << tools << "\n";
    for (const Compiled &c : all) file << c.line() << "\n";
    ASSERT_TRUE(file.flush()) << path;
    GTEST_SKIP() << "wrote " << path;
  }
  std::ifstream file(path);
  ASSERT_TRUE(file) << path;
  std::map<std::string, std::string> recorded; // by kernel and family
  std::string recordedTools;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("# LLVM")) recordedTools = line;
    if (!line.starts_with("#")) recorded[line.substr(0, line.find(" ptx="))] = line;
  }
  if (recordedTools != tools)
    GTEST_SKIP() << "the record was made by other tools: '" << recordedTools << "', here '" << tools << "'";
  for (const Compiled &c : all)
    EXPECT_EQ(c.line(), recorded[c.name])
        << "if the change is meant, write the record anew (see the file's head)";
  EXPECT_EQ(recorded.size(), all.size()) << "the record has lines of kernels or families that are gone";
}

} // namespace
} // namespace quern
