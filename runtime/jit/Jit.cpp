// libquern-jit.so: requests in, images or printed stages out.
#include "runtime/jit/Jit.h"
#include "codegen/Pipeline.h"
#include "codegen/cpu/GenerateKernel.h"
#include "codegen/cpu/ReadProblem.h"
#include "codegen/emit/SharedObject.h"
#include "codegen/emit/X86.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "runtime/jit/CompilerStamp.h"
#include "runtime/jit/Gpu.h"
#include "runtime/jit/Session.h"
#include "llvm/IRReader/IRReader.h"
#include "llvm/Support/SourceMgr.h"
#include <fmt/format.h>

using namespace mlir;

namespace quern::jit {
namespace {

constexpr std::string_view stageNames[] = {"quern", "scheduled", "instr", "llvm", "asm"};
enum Stage { Quern, Scheduled, Instr, Llvm, Asm };

std::optional<Stage> stageOf(std::string_view text) {
  for (int i = 0; i < 5; ++i)
    if (text == stageNames[i]) return Stage(i);
  return std::nullopt;
}

/// A kernel on its way through the stages. `module` holds it up to instr, `llvmModule` after.
struct Compilation {
  Session session;
  OwningOpRef<ModuleOp> module;
  std::unique_ptr<llvm::LLVMContext> llvmContext = std::make_unique<llvm::LLVMContext>();
  std::unique_ptr<llvm::Module> llvmModule;
  std::string features, schedule, kernelName;
  cpu::ImageFacts facts;

  explicit Compilation(const Request &r) : features(r.features), kernelName(r.kernel) {}

  Status fromProgram(const Request &r) {
    auto emitted = session.fromProgram(r);
    if (!emitted) return emitted.takeError();
    module = std::move(*emitted);
    return {};
  }

  /// LLVM ends the process when it meets instructions that the features do not have.
  Status checkIsa(cpu::Isa isa) {
    if (isa <= cpu::isaOf(features)) return {};
    return ::quern::Error::user(
        fmt::format("isa {} needs CPU features that are not there; this CPU offers {}", cpu::name(isa),
                    cpu::name(cpu::isaOf(features))),
        "schedule");
  }

  Status schedules(const Request &r) {
    auto schedule = cpu::Schedule::parse(r.schedule, cpu::defaultSchedule(cpu::isaOf(features)));
    if (!schedule) return schedule.takeError();
    if (Status ok = checkIsa(schedule->isa); !ok) return ok;
    for (auto kernel : module->getOps<mlir::quern::KernelOp>())
      if (Status ok = cpu::assignSchedule(kernel, r, schedule->str()); !ok) return ok;
    return {};
  }

  /// User errors that the pass would only report as a diagnostic.
  Status checkProblem(bool toCode = true) {
    for (auto kernel : module->getOps<mlir::quern::KernelOp>()) {
      kernelName = kernel.getSymName().str();
      auto problem = cpu::readProblem(kernel);
      if (!problem) return problem.takeError();
      schedule = problem->schedule.str();
      if (Status ok = checkIsa(problem->schedule.isa); toCode && !ok) return ok;
    }
    return {};
  }

  Status runPasses(void (*build)(OpPassManager &)) { return session.run(*module, build); }

  Status toLLVM() {
    auto found = cpu::getImageFacts(*module);
    if (!found)
      return ::quern::Error::user("the module has no quern.image attribute: it is not at the instr stage");
    facts = *found;
    if (Status ok = checkIsa(facts.isa); !ok) return ok;
    if (Status ok = runPasses(buildLLVMPipeline); !ok) return ok;
    llvmModule = translateModuleToLLVMIR(*module, *llvmContext, kernelName);
    if (!llvmModule) return session.failed("translation to LLVM IR failed");
    return optimize();
  }

  Status optimize() {
    auto target = x86::createTarget(features);
    if (!target) return target.takeError();
    x86::optimize(*llvmModule, **target, features);
    return {};
  }
};

Expected<std::string> emit(const EmitRequest &request) {
  auto wanted = stageOf(request.stage);
  if (!wanted)
    return ::quern::Error::user(
        fmt::format("stage '{}' is not one of ast, quern, scheduled, instr, llvm, asm", request.stage),
        "--emit");
  Compilation c(request.request);
  int at = -1; // the stage that `module` or `llvmModule` is at
  if (request.inputStage.empty()) {
    if (Status ok = c.fromProgram(request.request); !ok) return ok.takeError();
    at = Quern;
  } else {
    auto given = stageOf(request.inputStage);
    if (!given || *given == Asm)
      return ::quern::Error::user(
          fmt::format("cannot read stage '{}': quern, scheduled, instr and llvm can be read back",
                      request.inputStage),
          "--input-stage");
    if (*given > *wanted)
      return ::quern::Error::user(
          fmt::format("stage {} comes before {}: cannot go back", request.stage, request.inputStage),
          "--emit");
    if (Status ok = checkDepth(request.inputText); !ok) return ok.takeError();
    at = *given;
    if (at == Llvm) {
      llvm::SMDiagnostic diagnostic;
      c.llvmModule =
          llvm::parseIR(llvm::MemoryBufferRef(request.inputText, "input"), diagnostic, *c.llvmContext);
      if (!c.llvmModule)
        return ::quern::Error::user(diagnostic.getMessage().str(),
                                    fmt::format("input:{}", diagnostic.getLineNo()));
    } else {
      auto parsed = c.session.parse(request.inputText);
      if (!parsed) return parsed.takeError();
      c.module = std::move(*parsed);
    }
  }
  if (at == Quern && *wanted > Quern) {
    if (Status ok = c.schedules(request.request); !ok) return ok.takeError();
    at = Scheduled;
  }
  if (at == Scheduled && *wanted > Scheduled) {
    if (Status ok = c.checkProblem(*wanted >= Llvm); !ok) return ok.takeError();
    if (Status ok = c.runPasses(buildCpuInstrPipeline); !ok) return ok.takeError();
    at = Instr;
  }
  if (*wanted < Llvm) return printed(*c.module);
  if (at == Instr)
    if (Status ok = c.toLLVM(); !ok) return ok.takeError();
  if (*wanted == Llvm) {
    std::string text;
    llvm::raw_string_ostream out(text);
    c.llvmModule->print(out, nullptr);
    return text;
  }
  auto target = x86::createTarget(c.features);
  if (!target) return target.takeError();
  c.llvmModule->setDataLayout((*target)->createDataLayout());
  c.llvmModule->setTargetTriple((*target)->getTargetTriple());
  return x86::assembly(*c.llvmModule, **target);
}

Expected<CompiledCpu> compile(const Request &request) {
  Compilation c(request);
  if (Status ok = c.fromProgram(request); !ok) return ok.takeError();
  if (Status ok = c.schedules(request); !ok) return ok.takeError();
  if (Status ok = c.checkProblem(); !ok) return ok.takeError();
  if (Status ok = c.runPasses(buildCpuInstrPipeline); !ok) return ok.takeError();
  if (Status ok = c.toLLVM(); !ok) return ok.takeError();
  auto target = x86::createTarget(c.features);
  if (!target) return target.takeError();
  auto object = x86::object(*c.llvmModule, **target);
  if (!object) return object.takeError();
  auto elf = x86::linkShared(*object);
  if (!elf) return elf.takeError();
  CompiledCpu compiled{{}, std::move(*elf)};
  CpuImage &image = compiled.image;
  image.schedule = c.schedule;
  image.features = c.features;
  image.bands = c.facts.bands;
  image.ordered = c.facts.ordered;
  image.workBytesPerRow = c.facts.workBytesPerRow;
  image.prepareMinRows = c.facts.prepareMinRows;
  image.scratchBytes = c.facts.scratchBytes;
  image.maxSegmentRows = c.facts.maxSegmentRows;
  image.denormalScales = c.facts.denormalScales;
  return compiled;
}

} // namespace
} // namespace quern::jit

/// Puts a result where the caller wants it.
template <class T> static bool give(::quern::Expected<T> result, T *value, ::quern::Error *error) {
  if (result)
    *value = std::move(*result);
  else
    *error = result.takeError();
  return bool(result);
}

#define QUERN_EXPORT extern "C" __attribute__((visibility("default")))

QUERN_EXPORT bool quernJitCompile(const ::quern::jit::Request *request, ::quern::jit::CompiledCpu *compiled,
                                  ::quern::Error *error) {
  return give(::quern::jit::compile(*request), compiled, error);
}

QUERN_EXPORT bool quernJitEmit(const ::quern::jit::EmitRequest *request, std::string *text,
                               ::quern::Error *error) {
  auto result =
      request->request.target == "cpu" ? ::quern::jit::emit(*request) : ::quern::jit::emitGpu(*request);
  return give(std::move(result), text, error);
}

QUERN_EXPORT bool quernJitCompileGpu(const ::quern::jit::Request *request, ::quern::jit::GpuImage *image,
                                     ::quern::Error *error) {
  return give(::quern::jit::compileGpu(*request), image, error);
}

QUERN_EXPORT uint64_t quernJitStamp() { return ::quern::jit::boundaryStamp(::quern::jit::compilerStamp); }

QUERN_EXPORT const ::quern::jit::SimLibrary *quernJitSim() { return &::quern::jit::theSimLibrary(); }
