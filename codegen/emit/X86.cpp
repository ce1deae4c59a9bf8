// See X86.h.
#include "codegen/emit/X86.h"
#include "codegen/emit/HalfConversion.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include <mutex>

using namespace llvm;

namespace quern::x86 {

static void initialize() {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser(); // the tile kernel's asm
  });
}

/// Without the host's name in it: the same features give the same bytes on every machine.
StringRef tunedFor(StringRef features) {
  SmallVector<StringRef> parts;
  features.split(parts, ',', -1, false);
  auto has = [&](StringRef feature) { return is_contained(parts, feature); };
  bool amd = has("+sse4a");
  if (has("+amx-tile")) return "sapphirerapids";
  if (has("+avx512f")) return amd ? "znver4" : "icelake-server";
  if (has("+avx2")) return amd ? "znver3" : "haswell";
  return "x86-64";
}

quern::Expected<std::unique_ptr<TargetMachine>> createTarget(const std::string &features) {
  initialize();
  Triple triple("x86_64-unknown-linux-gnu");
  std::string problem;
  const Target *target = TargetRegistry::lookupTarget(triple, problem);
  if (!target) return quern::Error::internal(problem, "LLVM");
  // x86-64 implies no features: the list is the whole truth. Position independent: a shared object.
  std::unique_ptr<TargetMachine> machine(target->createTargetMachine(
      triple, "x86-64", features, TargetOptions(), Reloc::PIC_, std::nullopt, CodeGenOptLevel::Default));
  if (!machine) return quern::Error::internal("LLVM has no machine for " + triple.str(), "LLVM");
  return machine;
}

void optimize(Module &module, TargetMachine &target, const std::string &features) {
  module.setDataLayout(target.createDataLayout());
  module.setTargetTriple(target.getTargetTriple());
  for (Function &f : module) {
    if (f.isDeclaration()) continue;
    f.addFnAttr("target-cpu", "x86-64");
    f.addFnAttr("tune-cpu", tunedFor(features));
    f.addFnAttr("target-features", features);
    f.addFnAttr("prefer-vector-width", "512");
    f.addFnAttr("min-legal-vector-width", "512");
    f.addFnAttr(Attribute::NoUnwind);
  }
  PipelineTuningOptions tuning;
  tuning.LoopVectorization = tuning.SLPVectorization = tuning.LoopUnrolling = tuning.LoopInterleaving = false;
  PassBuilder passes(&target, tuning);
  LoopAnalysisManager loops;
  FunctionAnalysisManager functions;
  CGSCCAnalysisManager sccs;
  ModuleAnalysisManager modules;
  passes.registerModuleAnalyses(modules);
  passes.registerCGSCCAnalyses(sccs);
  passes.registerFunctionAnalyses(functions);
  passes.registerLoopAnalyses(loops);
  passes.crossRegisterProxies(loops, functions, sccs, modules);
  passes.buildPerModuleDefaultPipeline(OptimizationLevel::O2).run(module, modules);
}

static quern::Expected<std::string> emitFile(Module &module, TargetMachine &target, CodeGenFileType type) {
  SmallVector<char, 0> text;
  raw_svector_ostream stream(text);
  legacy::PassManager passes;
  if (target.addPassesToEmitFile(passes, stream, nullptr, type))
    return quern::Error::internal("this target cannot print code", "LLVM");
  passes.run(module);
  return std::string(text.data(), text.size());
}

quern::Expected<std::string> assembly(Module &module, TargetMachine &target) {
  return emitFile(module, target, CodeGenFileType::AssemblyFile);
}

quern::Expected<std::string> object(Module &module, TargetMachine &target) {
  if (Status ok = addHalfConversions(module); !ok) return ok.takeError();
  return emitFile(module, target, CodeGenFileType::ObjectFile);
}

} // namespace quern::x86
