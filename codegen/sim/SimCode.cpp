// Split module -> host code in memory.
#include "codegen/sim/LateSplit.h"
#include "compiler/support/DType.h"
#include "llvm/ExecutionEngine/Orc/AbsoluteSymbols.h"
#include "llvm/ExecutionEngine/Orc/JITTargetMachineBuilder.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Transforms/Scalar/ADCE.h"
#include "llvm/Transforms/Scalar/EarlyCSE.h"
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>

using namespace llvm;

namespace quern::sim {
namespace {

quern::Error internal(llvm::Error error) {
  return quern::Error::internal(toString(std::move(error)), "LLVM, compiling for the simulator");
}

quern::Expected<orc::JITTargetMachineBuilder> hostBuilder() {
  static std::once_flag once;
  std::call_once(once, [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
  });
  auto builder = orc::JITTargetMachineBuilder::detectHost();
  if (!builder) return internal(builder.takeError());
  // Their conversions to bf16 flush subnormals, which a GPU's do not.
  for (const char *feature : {"avx512bf16", "avxneconvert", "avx10.2"})
    builder->getFeatures().AddFeature(feature, false);
  builder->setCodeGenOptLevel(CodeGenOptLevel::Less);
  return std::move(*builder);
}

Status checkFunctions(const Module &module, ArrayRef<Symbol> symbols) {
  for (const Function &f : module)
    if (f.isDeclaration() && !f.isIntrinsic() &&
        none_of(symbols, [&](const Symbol &s) { return f.getName() == s.name; }))
      return quern::Error::internal("the simulator has no function '" + f.getName().str() + "'");
  return {};
}

/// The kernel went through O3 already: what the split left behind is swept up.
void sweep(Module &module, TargetMachine &target) {
  module.setDataLayout(target.createDataLayout());
  module.setTargetTriple(target.getTargetTriple());
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
  FunctionPassManager each;
  each.addPass(EarlyCSEPass());
  each.addPass(ADCEPass());
  ModulePassManager all;
  all.addPass(createModuleToFunctionPassAdaptor(std::move(each)));
  all.run(module, modules);
}

_Float16 truncateF16(float v) { return std::bit_cast<_Float16>(quern::toF16(v)); }
float extendF16(_Float16 v) { return quern::fromF16(std::bit_cast<uint16_t>(v)); }
__bf16 truncateBF16(float v) { return std::bit_cast<__bf16>(quern::toBF16(v)); }

/// What LLVM's host code generator may call by itself; nothing else of the process is visible to a kernel.
orc::SymbolMap library(orc::LLJIT &jit, ArrayRef<Symbol> symbols) {
  orc::SymbolMap map;
  auto add = [&](const char *name, void *address) {
    map[jit.mangleAndIntern(name)] = {orc::ExecutorAddr::fromPtr(address),
                                      JITSymbolFlags::Exported | JITSymbolFlags::Callable};
  };
  auto of = [](auto *function) { return reinterpret_cast<void *>(function); };
  add("memcpy", of(&::memcpy)), add("memmove", of(&::memmove)), add("memset", of(&::memset));
  add("fmaf", of(&::fmaf)), add("fmodf", of(&::fmodf));
  add("expf", of(&::expf)), add("exp2f", of(&::exp2f));
  add("logf", of(&::logf)), add("log2f", of(&::log2f));
  add("floorf", of(&::floorf)), add("rintf", of(&::rintf));
  add("__truncsfhf2", of(&truncateF16)), add("__extendhfsf2", of(&extendF16));
  add("__truncsfbf2", of(&truncateBF16));
  for (const Symbol &symbol : symbols) add(symbol.name, symbol.address);
  return map;
}

} // namespace

struct SimModule::Impl {
  std::string reports; // of the linker: why a symbol failed; outlives `jit`
  std::unique_ptr<orc::LLJIT> jit;
};
SimModule::~SimModule() = default;

quern::Expected<std::shared_ptr<SimModule>> SimModule::load(std::unique_ptr<Module> module,
                                                            std::unique_ptr<LLVMContext> context,
                                                            ArrayRef<Symbol> symbols) {
  orc::ThreadSafeModule owned(std::move(module), std::move(context));
  auto builder = hostBuilder();
  if (!builder) return builder.takeError();
  auto target = builder->createTargetMachine();
  if (!target) return internal(target.takeError());
  if (Status status = owned.withModuleDo(lateSplit); !status) return status.takeError();
  if (Status status = owned.withModuleDo([&](Module &m) { return checkFunctions(m, symbols); }); !status)
    return status.takeError();
  owned.withModuleDo([&](Module &m) { sweep(m, **target); });
  auto jit = orc::LLJITBuilder()
                 .setJITTargetMachineBuilder(std::move(*builder))
                 .setLinkProcessSymbolsByDefault(false)
                 .setPlatformSetUp(orc::setUpInactivePlatform) // no static constructors
                 .create();
  if (!jit) return internal(jit.takeError());
  auto loaded = std::make_shared<SimModule>();
  loaded->impl = std::make_unique<Impl>();
  std::string &reports = loaded->impl->reports;
  (*jit)->getExecutionSession().setErrorReporter(
      [&reports](llvm::Error error) { reports += "\n" + toString(std::move(error)); });
  if (auto error = (*jit)->getMainJITDylib().define(orc::absoluteSymbols(library(**jit, symbols))))
    return internal(std::move(error));
  if (auto error = (*jit)->addIRModule(std::move(owned))) return internal(std::move(error));
  loaded->impl->jit = std::move(*jit);
  return loaded;
}

quern::Expected<void (*)(void **)> SimModule::entry(std::string_view kernel) {
  auto address = impl->jit->lookup(std::string(kernel) + "_entry");
  if (!address) {
    quern::Error error = internal(address.takeError());
    error.message += std::exchange(impl->reports, "");
    return error;
  }
  return address->toPtr<void (*)(void **)>();
}

quern::Expected<SimCode> loadSim(std::unique_ptr<Module> module, std::unique_ptr<LLVMContext> context,
                                 std::string_view kernel, ArrayRef<Symbol> symbols) {
  auto loaded = SimModule::load(std::move(module), std::move(context), symbols);
  if (!loaded) return loaded.takeError();
  auto entry = (*loaded)->entry(kernel);
  if (!entry) return entry.takeError();
  return SimCode{*entry, *loaded};
}

} // namespace quern::sim
