// See Gpu.h.
#include "runtime/jit/Gpu.h"
#include "codegen/Pipeline.h"
#include "codegen/cpu/ReadProblem.h"
#include "codegen/emit/Nvptx.h"
#include "codegen/gpu/DefaultSchedule.h"
#include "codegen/gpu/OptimizeNvptx.h"
#include "codegen/gpu/ReadFacts.h"
#include "codegen/nvidia/RealizePrimitives.h"
#include "codegen/sim/DeviceKernel.h"
#include "codegen/sim/LateSplit.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "runtime/driver/Ptxas.h"
#include "runtime/jit/Session.h"
#include "llvm/IRReader/IRReader.h"
#include "llvm/Support/SourceMgr.h"
#include <fmt/format.h>
#include <list>
#include <mutex>

using namespace mlir;

namespace quern::jit {
namespace {

constexpr std::string_view stageNames[] = {"quern", "scheduled", "tile", "instr", "llvm", "ptx", "cubin"};
enum Stage { Quern, Scheduled, Tile, Instr, Llvm, Ptx, Cubin };

std::optional<Stage> stageOf(std::string_view text) {
  for (int i = 0; i < 7; ++i)
    if (text == stageNames[i]) return Stage(i);
  return std::nullopt;
}

/// A kernel on its way through the stages.
struct Compilation {
  const Request &request;
  Session session;
  OwningOpRef<ModuleOp> module;
  std::unique_ptr<llvm::LLVMContext> llvmContext = std::make_unique<llvm::LLVMContext>();
  std::unique_ptr<llvm::Module> llvmModule;
  std::unique_ptr<llvm::TargetMachine> target;
  std::string ptx, kernelName = request.kernel;

  explicit Compilation(const Request &r) : request(r) {}

  Status toScheduled() {
    for (auto kernel : module->getOps<mlir::quern::KernelOp>()) {
      // The problem does not depend on the schedule; the default schedule does on the problem.
      if (Status ok = cpu::assignSchedule(kernel, request, ""); !ok) return ok;
      auto problem = cpu::readProblem(kernel);
      if (!problem) return problem.takeError();
      // Fields that a caller sets belong to the wide default, so that a line means the same for every batch.
      int64_t rows = request.schedule.empty() ? request.rowsPerExpert : 0;
      auto schedule = gpu::Schedule::read(request.schedule, gpu::defaultSchedule(*problem, rows));
      if (!schedule) return schedule.takeError();
      if (request.schedule.find("regs=") == std::string::npos) gpu::fitRegisters(*schedule, *problem);
      // The default's stages hold codes: decoded weights take four times their room.
      if (schedule->decode == gpu::Decode::Ahead && request.schedule.find("stages=") == std::string::npos)
        schedule->fitStages();
      if (Status ok = schedule->validate(); !ok) return ok;
      if (Status ok = cpu::assignSchedule(kernel, request, schedule->str()); !ok) return ok;
    }
    return {};
  }

  /// What the kernel is, and user errors that the pass would only report as a diagnostic.
  Expected<gpu::TileKernel> check(gpu::Schedule *used = nullptr) {
    for (auto kernel : module->getOps<mlir::quern::KernelOp>()) {
      kernelName = kernel.getSymName().str();
      auto problem = cpu::readProblem(kernel);
      if (!problem) return problem.takeError();
      auto schedule = gpu::Schedule::parse(problem->scheduleText, gpu::Schedule());
      if (!schedule) return schedule.takeError();
      if (used) *used = *schedule;
      return gpu::readTileKernel(*problem, *schedule);
    }
    return ::quern::Error::user("the module has no kernel", "input");
  }

  Status toLLVM() {
    if (Status ok = session.run(*module, buildLLVMPipeline); !ok) return ok;
    llvmModule = translateModuleToLLVMIR(*module, *llvmContext, kernelName);
    if (!llvmModule) return session.failed("translation to LLVM IR failed");
    auto made = nvptx::createTarget();
    if (!made) return made.takeError();
    target = std::move(*made);
    nvptx::setTarget(*llvmModule, *target);
    return nvptx::optimize(*llvmModule, *target);
  }

  Status toPtx() {
    if (!target) {
      auto made = nvptx::createTarget();
      if (!made) return made.takeError();
      target = std::move(*made);
    }
    if (Status ok = nvidia::realizePrimitives(*llvmModule); !ok) return ok;
    auto text = nvptx::emitPtx(*llvmModule, *target);
    if (!text) return text.takeError();
    ptx = std::move(*text);
    return {};
  }
};

Error badStage(std::string_view stage) {
  return ::quern::Error::user(
      fmt::format("stage '{}' is not one of ast, quern, scheduled, tile, instr, llvm, ptx, cubin", stage),
      "--emit");
}

/// Puts the text of an earlier stage where that stage's form belongs.
Status readBack(Compilation &c, const EmitRequest &request, Stage given) {
  if (given == Ptx) return c.ptx = request.inputText, Status();
  if (given == Llvm) {
    llvm::SMDiagnostic diagnostic;
    c.llvmModule =
        llvm::parseIR(llvm::MemoryBufferRef(request.inputText, "input"), diagnostic, *c.llvmContext);
    if (c.llvmModule) return {};
    return ::quern::Error::user(diagnostic.getMessage().str(),
                                fmt::format("input:{}", diagnostic.getLineNo()));
  }
  auto parsed = c.session.parse(request.inputText);
  if (!parsed) return parsed.takeError();
  c.module = std::move(*parsed);
  return {};
}

} // namespace

Expected<std::string> emitGpu(const EmitRequest &request) {
  auto wanted = stageOf(request.stage);
  if (!wanted) return badStage(request.stage);
  Compilation c(request.request);
  Stage at = Quern;
  if (request.inputStage.empty()) {
    auto emitted = c.session.fromProgram(request.request);
    if (!emitted) return emitted.takeError();
    c.module = std::move(*emitted);
  } else {
    auto given = stageOf(request.inputStage);
    if (!given || *given == Cubin)
      return ::quern::Error::user(
          fmt::format("cannot read stage '{}': quern, scheduled, tile, instr, llvm and ptx can be read back",
                      request.inputStage),
          "--input-stage");
    if (*given > *wanted)
      return ::quern::Error::user(
          fmt::format("stage {} comes before {}: cannot go back", request.stage, request.inputStage),
          "--emit");
    if (Status ok = readBack(c, request, *given); !ok) return ok.takeError();
    at = *given;
  }
  auto upTo = [&](Stage stage) { return at == Stage(stage - 1) && *wanted >= stage; };
  if (upTo(Scheduled)) {
    if (Status ok = c.toScheduled(); !ok) return ok.takeError();
    at = Scheduled;
  }
  if (upTo(Tile)) {
    if (auto ok = c.check(); !ok) return ok.takeError();
    if (Status ok = c.session.run(*c.module, buildTilePipeline); !ok) return ok.takeError();
    at = Tile;
  }
  if (upTo(Instr)) {
    if (Status ok = c.session.run(*c.module, buildGpuInstrPipeline); !ok) return ok.takeError();
    at = Instr;
  }
  if (*wanted <= Instr) return printed(*c.module);
  if (upTo(Llvm)) {
    if (Status ok = c.toLLVM(); !ok) return ok.takeError();
    at = Llvm;
  }
  if (*wanted == Llvm) {
    std::string text;
    llvm::raw_string_ostream out(text);
    // With the order of uses, on which the order of instructions depends: the same PTX comes out of the text.
    c.llvmModule->print(out, nullptr, /*ShouldPreserveUseListOrder=*/true);
    return text;
  }
  if (upTo(Ptx)) {
    if (Status ok = c.toPtx(); !ok) return ok.takeError();
    at = Ptx;
  }
  if (*wanted == Ptx) return c.ptx;
  auto assembled = driver::assemble(c.ptx, nvptx::arch);
  if (!assembled) return assembled.takeError();
  return assembled->cubin;
}

Expected<GpuImage> compileGpu(const Request &request) {
  Compilation c(request);
  auto emitted = c.session.fromProgram(request);
  if (!emitted) return emitted.takeError();
  c.module = std::move(*emitted);
  if (Status ok = c.toScheduled(); !ok) return ok.takeError();
  gpu::Schedule schedule;
  auto kernel = c.check(&schedule);
  if (!kernel) return kernel.takeError();
  gpu::Plan plan(schedule, kernel->facts);
  if (plan.end > schedule.smemLimit())
    return ::quern::Error::user(
        fmt::format("the kernel's stages and tables need {} bytes of shared memory, {} resident "
                    "CTAs can have {} each; use fewer stages",
                    plan.end, schedule.ctas, schedule.smemLimit()),
        "schedule");
  GpuImage image;
  image.entry = request.kernel, image.arch = request.target, image.schedule = schedule.str();
  image.params = kernel->params;
  image.threads = int(schedule.threads()), image.cluster = int(schedule.cluster * schedule.split);
  image.ctasPerSm = int(schedule.ctas), image.smemBytes = plan.end;
  image.registers = int(schedule.launchRegs());
  image.tiles =
      (plan.facts.weightTiles(schedule) + schedule.cluster - 1) / schedule.cluster * schedule.cluster;
  image.x = {plan.facts.lhs, plan.facts.byToken, schedule.gather == gpu::Gather::Sorted,
             plan.facts.act, plan.facts.k,       plan.boxRows};
  image.lowRank = kernel->lowRank, image.combine = kernel->combine, image.decode = kernel->decode;
  if (Status ok = c.session.run(*c.module, buildTilePipeline); !ok) return ok.takeError();
  if (Status ok = c.session.run(*c.module, buildGpuInstrPipeline); !ok) return ok.takeError();
  if (Status ok = c.toLLVM(); !ok) return ok.takeError();
  std::shared_ptr<void> code;
  if (request.target == "sim") {
    auto loaded =
        sim::loadSim(std::move(c.llvmModule), std::move(c.llvmContext), request.kernel, sim::symbols());
    if (!loaded) return loaded.takeError();
    image.simEntry = loaded->entry, code = loaded->code;
  } else {
    if (Status ok = c.toPtx(); !ok) return ok.takeError();
    image.ptx = c.ptx;
    if (!driver::findPtxas().empty()) {
      auto assembled = driver::assemble(c.ptx, nvptx::arch);
      if (!assembled) return assembled.takeError();
      image.cubin = std::move(assembled->cubin), image.ptxasLog = std::move(assembled->log);
      image.ptxasPath = assembled->ptxas.path;
    }
  }
  if (code) {
    static std::mutex mutex;
    static auto *kept = new std::list<std::shared_ptr<void>>; // never destroyed: any thread may be in it
    std::lock_guard lock(mutex);
    kept->push_back(std::move(code));
  }
  return image;
}

const SimLibrary &theSimLibrary() {
  static const SimLibrary library{sim::launch, sim::encodeTensorMap,
                                  +[](const char *name, ::quern::Error *error) -> void (*)(void **) {
                                    auto entry = sim::deviceKernel(name, sim::symbols());
                                    if (entry) return *entry;
                                    *error = entry.takeError();
                                    return nullptr;
                                  }};
  return library;
}

} // namespace quern::jit
