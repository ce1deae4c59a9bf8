// See DeviceKernel.h.
#include "codegen/sim/DeviceKernel.h"
#include "codegen/sim/LateSplit.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/Support/SourceMgr.h"
#include <map>
#include <mutex>

namespace quern {
struct DeviceIr {
  const char *name, *text;
};
extern const DeviceIr deviceIr[]; // of one file

namespace sim {
namespace {

Expected<SimCode> load(std::string_view name, llvm::ArrayRef<Symbol> symbols) {
  auto context = std::make_unique<llvm::LLVMContext>();
  llvm::SMDiagnostic diagnostic;
  auto module = llvm::parseAssemblyString(deviceIr[0].text, diagnostic, *context);
  if (!module) return Error::internal(diagnostic.getMessage().str(), deviceIr[0].name);
  llvm::Function *wanted = module->getFunction(llvm::StringRef(name));
  if (!wanted || wanted->getCallingConv() != llvm::CallingConv::PTX_Kernel)
    return Error::internal("no kernel of this name in kernels/*.cu", std::string(name));
  // Compiling all takes most of a second, and most programs need two or three.
  for (llvm::Function &f : llvm::make_early_inc_range(*module))
    if (&f != wanted && f.getCallingConv() == llvm::CallingConv::PTX_Kernel) f.eraseFromParent();
  return loadSim(std::move(module), std::move(context), name, symbols);
}

} // namespace

Expected<void (*)(void **params)> deviceKernel(std::string_view name, llvm::ArrayRef<Symbol> symbols) {
  static std::mutex lock;
  static auto *loaded = new std::map<std::string, SimCode, std::less<>>; // never freed: code may still run
  std::lock_guard guard(lock);
  if (auto found = loaded->find(name); found != loaded->end()) return found->second.entry;
  auto code = load(name, symbols);
  if (!code) return code.takeError();
  return loaded->emplace(name, std::move(*code)).first->second.entry;
}

} // namespace sim
} // namespace quern
