// See codegen_sim_support.h.
#include "tests/unit/codegen_sim_support.h"
#include "codegen/gpu/OptimizeNvptx.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/raw_ostream.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <sstream>
#include <sys/mman.h>
#include <unistd.h>

namespace quern::test {
namespace {

OneThread *current = nullptr;

std::string place(void *p) {
  auto offset = static_cast<char *>(p) - current->base;
  return offset >= -1024 && offset < (1 << 20) ? fmt::format("+{}", offset) : "outside";
}
void log(std::string call) { current->calls.push_back(std::move(call)); }

extern "C" {
static uint32_t stubTid() { return current->thread; }
static uint32_t stubZero() { return 0; }
static void *stubBase() { return current->base; }
static void *stubStatic(uint32_t id, uint32_t bytes, uint32_t align) {
  log(fmt::format("qsim_smem_static {} {} {}", id, bytes, align));
  return current->base + 4096 * (id + 1);
}
static void stubGlobal(void *p, uint32_t bytes, uint32_t store) {
  log(fmt::format("qsim_global {} {} {}", place(p), bytes, store ? "store" : "load"));
}
static void stubShared(void *p, uint32_t bytes, uint32_t store) {
  log(fmt::format("qsim_shared {} {} {}", place(p), bytes, store ? "store" : "load"));
}
static void stubAtomic(void *p, uint32_t bytes, uint32_t space) {
  log(fmt::format("qsim_atomic {} {} space {}", place(p), bytes, space));
}
static void stubStoreF32(float value) { current->storedFloats.push_back(value); }
static void stubSync() { log("qsim_syncthreads"); }
static uint32_t stubShuffle(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp) {
  log(fmt::format("qsim_shfl_bfly {:x} {:x} {} {}", mask, value, lane, clamp));
  return value + 1;
}
static uint32_t stubBallot(uint32_t mask, uint32_t predicate) {
  log(fmt::format("qsim_ballot {:x} {}", mask, predicate));
  return predicate ? 1 : 0;
}
// The MMA stands for acc[i] += a[i % 4] + desc.
static void stubWgmma(uint32_t isF16, uint32_t n, float *acc, const uint32_t *a, uint64_t desc) {
  log(fmt::format("qsim_wgmma {} {} {}", isF16 ? "f16" : "bf16", n, desc));
  for (uint32_t i = 0; i < n / 2; ++i) acc[i] += float(a[i % 4] + desc);
}
static void stubFence(float *acc, uint32_t nacc, const uint32_t *a, uint32_t na) {
  log(fmt::format("qsim_wgmma_fence {} {} {} {}", nacc, nacc ? acc[nacc - 1] : 0, na, na ? a[na - 1] : 0));
}
static void stubWait(uint32_t groups, float *acc, uint32_t nacc) {
  log(fmt::format("qsim_wgmma_wait {} {}", groups, nacc));
  for (uint32_t i = 0; i < nacc; ++i) acc[i] *= 2;
}
static void stubCommit() { log("qsim_wgmma_commit"); }
static void stubMulticast(void *to, void *map, int32_t column, int32_t row, void *barrier, uint16_t mask) {
  log(fmt::format("qsim_tma_load2d_multicast {} {} {} {} {} {:x}", place(to), *static_cast<int *>(map),
                  column, row, place(barrier), mask));
}
static float stubEx2(float x) { return x * 2; }
}

constexpr uint64_t windowBytes = uint64_t(1) << 32;

} // namespace

OneThread::OneThread() {
  reserved = mmap(nullptr, 2 * windowBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) std::abort();
  char *window = reinterpret_cast<char *>((uint64_t(reserved) + windowBytes - 1) / windowBytes * windowBytes);
  if (mprotect(window, 1 << 20, PROT_READ | PROT_WRITE) != 0) std::abort();
  base = window + 1024;
  current = this;
}

OneThread::~OneThread() {
  current = nullptr;
  munmap(reserved, 2 * windowBytes);
}

std::vector<sim::Symbol> OneThread::symbols() {
  auto of = [](const char *name, auto *f) { return sim::Symbol{name, reinterpret_cast<void *>(f)}; };
  return {of("qsim_tid_x", &stubTid),
          of("qsim_ctaid_x", &stubZero),
          of("qsim_smem_base", &stubBase),
          of("qsim_smem_static", &stubStatic),
          of("qsim_global", &stubGlobal),
          of("qsim_shared", &stubShared),
          of("qsim_atomic", &stubAtomic),
          of("qsim_store_f32", &stubStoreF32),
          of("qsim_syncthreads", &stubSync),
          of("qsim_shfl_bfly", &stubShuffle),
          of("qsim_ballot", &stubBallot),
          of("qsim_wgmma", &stubWgmma),
          of("qsim_wgmma_fence", &stubFence),
          of("qsim_wgmma_wait", &stubWait),
          of("qsim_wgmma_commit", &stubCommit),
          of("qsim_tma_load2d_multicast", &stubMulticast),
          of("qsim_ex2", &stubEx2)};
}

void OneThread::run(SimModuleText input, const std::string &kernel, std::vector<void *> params) {
  auto code = sim::loadSim(std::move(input.module), std::move(input.context), kernel, symbols());
  ASSERT_TRUE(code) << code.error().str();
  code->entry(params.data());
}

SimModuleText parseIr(const std::string &text) {
  auto target = nvptx::createTarget();
  if (!target) std::abort();
  // The layout counts while parsing: it gives accesses their default alignment.
  std::string layout = fmt::format("target datalayout = \"{}\"\ntarget triple = \"{}\"\n",
                                   (*target)->createDataLayout().getStringRepresentation(), nvptx::triple);
  SimModuleText made{std::make_unique<llvm::LLVMContext>(), nullptr};
  llvm::SMDiagnostic diagnostic;
  bool whole = text.find("target datalayout") != std::string::npos;
  made.module = llvm::parseAssemblyString(whole ? text : layout + text, diagnostic, *made.context);
  if (!made.module) {
    diagnostic.print("the test's IR", llvm::errs());
    std::abort();
  }
  return made;
}

SimModuleText compileCuda(const std::string &text) {
  auto folder = std::filesystem::temp_directory_path() / fmt::format("quern-cuda-test-{}", getpid());
  std::filesystem::create_directories(folder);
  auto source = folder / "test.cu", result = folder / "test.ll";
  std::ofstream(source) << "#include \"kernels/device.cuh\"\nusing namespace quern_device;\n" << text;
  std::string command = fmt::format(
      "{} -x cuda --cuda-device-only --cuda-gpu-arch=sm_90 -nocudainc -nocudalib --cuda-path=/nonexistent "
      "-Xclang -target-feature -Xclang +ptx83 -std=c++17 -O2 -ffp-contract=off -I{} -emit-llvm -S {} -o {}",
      QUERN_DEVICE_CLANG, QUERN_SOURCE_DIR, source.string(), result.string());
  if (std::system(command.c_str()) != 0) std::abort();
  std::ifstream file(result);
  std::stringstream ir;
  ir << file.rdbuf();
  std::filesystem::remove_all(folder);
  return parseIr(ir.str());
}

std::string splitText(SimModuleText input) {
  if (Status status = sim::lateSplit(*input.module); !status) return status.error().str();
  std::string text;
  llvm::raw_string_ostream stream(text);
  input.module->print(stream, nullptr);
  return text;
}

std::string bodyOf(const std::string &moduleText, const std::string &function) {
  size_t at = moduleText.find("@" + function + "(");
  while (at != std::string::npos && moduleText.compare(moduleText.rfind('\n', at) + 1, 6, "define") != 0)
    at = moduleText.find("@" + function + "(", at + 1);
  if (at == std::string::npos) return "";
  return moduleText.substr(at, moduleText.find("\n}", at) - at);
}

} // namespace quern::test
