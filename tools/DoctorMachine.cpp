// The processor, the compiler, and a kernel that shows that both work.
#include "runtime/driver/Process.h"
#include "runtime/jit/Jit.h"
#include "runtime/launch/CpuFeatures.h"
#include "runtime/launch/Kernel.h"
#include "runtime/launch/ParallelFor.h"
#include "runtime/oracle/Compare.h"
#include "runtime/oracle/Generate.h"
#include "runtime/oracle/Interpreter.h"
#include "tools/Doctor.h"
#include "tools/Load.h"
#include <chrono>
#include <fmt/format.h>
#include <sched.h>
#include <thread>

namespace quern::tools {
namespace {

/// The value of a line "key : value" of /proc/cpuinfo.
std::string cpuInfo(std::string_view key) {
  auto text = driver::readFile("/proc/cpuinfo");
  if (!text) return "";
  size_t at = text->find(key);
  if (at == std::string::npos) return "";
  size_t colon = text->find(':', at), end = text->find('\n', at);
  if (colon == std::string::npos || colon > end) return "";
  return text->substr(std::min(colon + 2, end), end - std::min(colon + 2, end));
}

/// As isaOf() of codegen/cpu/Schedule.h: what each kind of kernel needs.
std::string instructionSet(const std::string &features) {
  auto has = [&](std::string_view feature) {
    return ("," + features + ",").find(fmt::format(",+{},", feature)) != std::string::npos;
  };
  if (!has("avx2") || !has("fma") || !has("f16c")) return "x86-64";
  if (!has("avx512f") || !has("avx512bw") || !has("avx512vl") || !has("avx512dq")) return "avx2";
  if (!has("avx512bf16")) return "avx512";
  return has("amx-tile") && has("amx-bf16") ? "amx" : "avx512bf16";
}

/// The file that is mapped into this process and has `part` in its name.
std::string mappedFile(std::string_view part) {
  auto maps = driver::readFile("/proc/self/maps");
  if (!maps) return "";
  size_t at = maps->find(part);
  if (at == std::string::npos) return "";
  size_t begin = maps->rfind('\n', at) + 1, slash = maps->find('/', begin);
  return maps->substr(slash, maps->find('\n', slash) - slash);
}

/// A dense kernel on 4 tokens, against the oracle. Its time, or what went wrong.
Expected<double> runSmallKernel() {
  auto source = loadText("linear");
  if (!source) return source.takeError();
  auto module = Module::load(source->text, source->name);
  if (!module) return module.takeError();
  const syntax::Program &program = (*module)->program();
  const syntax::Kernel &kernel = *program.findKernel("linear");
  oracle::GenerateOptions options;
  options.dims = {{"T", 4}, {"N", 64}, {"K", 64}};
  options.act = DType::F32;
  options.layout = Layout::Cpu;
  auto arguments = oracle::generate(program, kernel, options);
  if (!arguments) return arguments.takeError();
  auto binding = bindArguments(program, kernel, arguments->args);
  if (!binding) return binding.takeError();
  oracle::OutputBuffer output(binding->outputs[0]);
  auto start = std::chrono::steady_clock::now();
  if (Status ok = (*module)->run(kernel, arguments->args, {output.view}); !ok) return ok.takeError();
  double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  auto expected = oracle::interpret(program, kernel, arguments->args);
  if (!expected) return expected.takeError();
  auto compared = oracle::compare((*expected)[0], output.view, oracle::Gates());
  if (!compared.pass || !output.guardsIntact())
    return Error::internal("a wrong result: " + compared.verdict());
  return ms;
}

} // namespace

Section lookAtCpu() {
  Section section{"CPU", {}};
  std::string model = cpuInfo("model name");
  cpu_set_t allowed;
  int usable = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 0;
  section.add(
      {Mark::Ok, "processor", model.empty() ? "unknown" : model, "",
       fmt::format("{} CPUs, of which this process may use {}", std::thread::hardware_concurrency(), usable),
       ""});
  std::string features = cpuFeatures(), plain = cpuFeatures("");
  std::string set = instructionSet(features), best = instructionSet(plain);
  std::string why = "the best that this CPU and the kernel offer";
  if (features.empty())
    why = "not an x86-64 processor: plain code";
  else if (features != plain)
    why = fmt::format("QUERN_CPU_FEATURES changes what there is ({})", best);
  section.add({Mark::Ok, "instruction set", set, "", why, ""});
  section.add({Mark::Ok, "threads", std::to_string(numThreads()), "", threadLibrary(), ""});
  return section;
}

Section lookAtCompiler(bool &works) {
  Section section{"Compiler", {}};
  if (auto library = jit::simLibrary(); !library) {
    const Error &error = library.error();
    bool stale = error.detail.find("not a Quern compiler of this version") != std::string::npos;
    section.add({stale ? Mark::Problem : Mark::Missing, "compiler library", "", "", error.detail,
                 stale ? "build libquern-jit.so and quern from the same sources"
                       : "install the quern wheel, or run scripts/setup.sh"});
    return section;
  }
  std::string llvm = mappedFile("libLLVM");
  section.add({Mark::Ok, "compiler library", "libquern-jit.so", mappedFile("libquern-jit"),
               "opened only when a kernel is not in the cache", ""});
  section.add({Mark::Ok, "LLVM and MLIR", llvm.empty() ? "linked in" : llvm.substr(llvm.rfind('/') + 1), llvm,
               "", ""});
  auto ms = runSmallKernel();
  works = bool(ms);
  if (works)
    section.add({Mark::Ok, "test kernel", "correct", "",
                 stats().compilations ? fmt::format("compiled and run in {:.0f} ms", *ms)
                                      : fmt::format("from the cache, in {:.1f} ms", *ms),
                 ""});
  else
    section.add({Mark::Problem, "test kernel", "", "", ms.error().str(),
                 "report this with the output of quern doctor --json"});
  return section;
}

} // namespace quern::tools
