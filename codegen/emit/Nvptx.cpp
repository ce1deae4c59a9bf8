// See Nvptx.h.
#include "codegen/emit/Nvptx.h"
#include "llvm/IR/DiagnosticInfo.h"
#include "llvm/IR/DiagnosticPrinter.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"

using namespace llvm;

namespace quern::nvptx {
namespace {

/// Errors of the code generator (a constraint that cannot be met, ...) as text: the default handler would
/// end the process.
class Collect : public DiagnosticHandler {
  std::string &errors;

public:
  explicit Collect(std::string &errors) : errors(errors) {}
  bool handleDiagnostics(const DiagnosticInfo &info) override {
    if (info.getSeverity() != DS_Error) return true;
    raw_string_ostream stream(errors);
    DiagnosticPrinterRawOStream printer(stream);
    if (!errors.empty()) stream << "\n";
    info.print(printer);
    return true;
  }
};

} // namespace

quern::Expected<std::string> emitPtx(Module &module, TargetMachine &target) {
  std::string errors;
  raw_string_ostream stream(errors);
  if (verifyModule(module, &stream)) return quern::Error::internal(errors, "LLVM's verifier");
  LLVMContext &context = module.getContext();
  std::unique_ptr<DiagnosticHandler> before = context.getDiagnosticHandler();
  context.setDiagnosticHandler(std::make_unique<Collect>(errors));
  SmallVector<char, 0> text;
  raw_svector_ostream out(text);
  legacy::PassManager passes;
  bool cannot = target.addPassesToEmitFile(passes, out, nullptr, CodeGenFileType::AssemblyFile);
  if (!cannot) passes.run(module);
  context.setDiagnosticHandler(std::move(before));
  if (cannot) return quern::Error::internal("this target cannot print PTX", "LLVM");
  if (!errors.empty()) return quern::Error::internal(errors, "LLVM's NVPTX code generator");
  return std::string(text.data(), text.size());
}

} // namespace quern::nvptx
