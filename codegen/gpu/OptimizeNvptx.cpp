// See OptimizeNvptx.h.
#include "codegen/gpu/OptimizeNvptx.h"
#include "codegen/gpu/Primitives.h"
#include "llvm/IR/Verifier.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Support/raw_ostream.h"
#include <mutex>

using namespace llvm;

namespace quern::nvptx {

quern::Expected<std::unique_ptr<TargetMachine>> createTarget() {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
  });
  std::string reason;
  Triple name(triple);
  const Target *target = TargetRegistry::lookupTarget(name, reason);
  if (!target) return quern::Error::internal(reason, "LLVM");
  TargetOptions options;
  options.AllowFPOpFusion = FPOpFusion::Standard;
  std::unique_ptr<TargetMachine> machine(target->createTargetMachine(
      name, arch, isa, options, Reloc::PIC_, std::nullopt, CodeGenOptLevel::Aggressive));
  if (!machine) return quern::Error::internal("LLVM cannot create a target machine for sm_90a", "LLVM");
  return machine;
}

void setTarget(Module &module, const TargetMachine &target) {
  module.setTargetTriple(target.getTargetTriple());
  module.setDataLayout(target.createDataLayout());
}

Status optimize(Module &module, TargetMachine &target) {
  setTarget(module, target);
  if (Status status = gpu::setPrimitiveAttributes(module); !status) return status;
  std::string errors;
  raw_string_ostream stream(errors);
  if (verifyModule(module, &stream)) return quern::Error::internal(errors, "LLVM's verifier");
  PassBuilder passes(&target);
  LoopAnalysisManager loops;
  FunctionAnalysisManager functions;
  CGSCCAnalysisManager sccs;
  ModuleAnalysisManager modules;
  passes.registerModuleAnalyses(modules);
  passes.registerCGSCCAnalyses(sccs);
  passes.registerFunctionAnalyses(functions);
  passes.registerLoopAnalyses(loops);
  passes.crossRegisterProxies(loops, functions, sccs, modules);
  passes.buildPerModuleDefaultPipeline(OptimizationLevel::O3).run(module, modules);
  return {};
}

} // namespace quern::nvptx
