// See X86.h.
#include "codegen/emit/X86.h"
#include "compiler/support/DType.h"
#include "llvm/ExecutionEngine/Orc/AbsoluteSymbols.h"
#include "llvm/ExecutionEngine/Orc/JITTargetMachineBuilder.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/TargetParser/Host.h"
#include <cstring>
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

static quern::Error internal(llvm::Error error) {
  return quern::Error::internal(toString(std::move(error)), "LLVM");
}

static orc::JITTargetMachineBuilder builderFor(const std::string &features) {
  initialize();
  orc::JITTargetMachineBuilder builder{Triple(sys::getProcessTriple())};
  builder.setCPU("x86-64"); // no implied features: the list is the whole truth
  SmallVector<StringRef> parts;
  StringRef(features).split(parts, ',', -1, false);
  for (StringRef part : parts) builder.getFeatures().AddFeature(part.substr(1), part[0] == '+');
  builder.setCodeGenOptLevel(CodeGenOptLevel::Default);
  return builder;
}

quern::Expected<std::unique_ptr<TargetMachine>> createTarget(const std::string &features) {
  auto target = builderFor(features).createTargetMachine();
  if (!target) return internal(target.takeError());
  return std::move(*target);
}

void optimize(Module &module, TargetMachine &target, const std::string &features) {
  module.setDataLayout(target.createDataLayout());
  module.setTargetTriple(target.getTargetTriple());
  for (Function &f : module) {
    if (f.isDeclaration()) continue;
    f.addFnAttr("target-cpu", "x86-64");
    f.addFnAttr("tune-cpu", sys::getHostCPUName());
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

quern::Expected<std::string> assembly(Module &module, TargetMachine &target) {
  SmallVector<char, 0> text;
  raw_svector_ostream stream(text);
  legacy::PassManager passes;
  if (target.addPassesToEmitFile(passes, stream, nullptr, CodeGenFileType::AssemblyFile))
    return quern::Error::internal("this target cannot print assembly", "LLVM");
  passes.run(module);
  return std::string(text.data(), text.size());
}

// Without F16C, LLVM calls these for f16 <-> f32; the process may not have them (they live in compiler
// runtimes).
static _Float16 truncateF16(float v) {
  uint16_t bits = quern::toF16(v);
  _Float16 half;
  std::memcpy(&half, &bits, 2);
  return half;
}
static float extendF16(_Float16 v) {
  uint16_t bits;
  std::memcpy(&bits, &v, 2);
  return quern::fromF16(bits);
}

struct Loaded::Impl {
  std::unique_ptr<orc::LLJIT> jit;
};
Loaded::~Loaded() = default;

quern::Expected<std::shared_ptr<Loaded>> Loaded::load(std::unique_ptr<Module> module,
                                                      std::unique_ptr<LLVMContext> context,
                                                      const std::string &features) {
  auto jit = orc::LLJITBuilder().setJITTargetMachineBuilder(builderFor(features)).create();
  if (!jit) return internal(jit.takeError());
  auto symbol = [&](const char *name, auto *f) {
    return std::pair((*jit)->mangleAndIntern(name),
                     orc::ExecutorSymbolDef(orc::ExecutorAddr::fromPtr(f),
                                            JITSymbolFlags::Exported | JITSymbolFlags::Callable));
  };
  orc::SymbolMap symbols;
  symbols.insert(symbol("__truncsfhf2", &truncateF16));
  symbols.insert(symbol("__extendhfsf2", &extendF16));
  symbols.insert(symbol("memset", &::memset));
  symbols.insert(symbol("memcpy", &::memcpy));
  symbols.insert(symbol("memmove", &::memmove));
  if (auto error = (*jit)->getMainJITDylib().define(orc::absoluteSymbols(std::move(symbols))))
    return internal(std::move(error));
  if (auto error = (*jit)->addIRModule(orc::ThreadSafeModule(std::move(module), std::move(context))))
    return internal(std::move(error));
  auto loaded = std::make_shared<Loaded>();
  loaded->impl = std::make_unique<Impl>();
  loaded->impl->jit = std::move(*jit);
  return loaded;
}

quern::Expected<void *> Loaded::lookup(const std::string &symbol) {
  auto address = impl->jit->lookup(symbol);
  if (!address) return internal(address.takeError());
  return address->toPtr<void *>();
}

} // namespace quern::x86
