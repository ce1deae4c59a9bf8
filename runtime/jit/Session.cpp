// See Session.h.
#include "runtime/jit/Session.h"
#include "codegen/Pipeline.h"
#include "compiler/passes/EmitQuern.h"
#include "compiler/syntax/Syntax.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include <fmt/format.h>

using namespace mlir;

namespace quern::jit {

Session::Session() {
  registerDialects(registry);
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
  registerNVVMDialectTranslation(registry);
  context = std::make_unique<MLIRContext>(registry, MLIRContext::Threading::DISABLED);
  context->loadAllAvailableDialects();
  handler = std::make_unique<ScopedDiagnosticHandler>(context.get(), [this](Diagnostic &d) {
    llvm::raw_string_ostream out(diagnostics);
    out << d.getLocation() << ": " << d.str() << "\n";
  });
}

Error Session::failed(std::string what) {
  Error error = Error::internal(std::move(what));
  error.detail = diagnostics + error.detail;
  return error;
}

Expected<OwningOpRef<ModuleOp>> Session::fromProgram(const Request &r) {
  const syntax::Kernel *kernel = r.program->findKernel(r.kernel);
  if (!kernel) return Error::user(fmt::format("there is no kernel '{}'", r.kernel), r.program->fileName);
  auto normal = syntax::normalize(*r.program, *kernel);
  if (!normal) return normal.takeError();
  OwningOpRef<ModuleOp> module = emitQuern(*context, *r.program, *normal);
  if (!module || mlir::failed(verify(*module))) return failed("the emitted kernel does not verify");
  return std::move(module);
}

Expected<OwningOpRef<ModuleOp>> Session::parse(std::string_view text) {
  if (Status ok = checkDepth(text); !ok) return ok.takeError();
  OwningOpRef<ModuleOp> module = parseSourceString<ModuleOp>(text, context.get(), "input");
  if (module) return std::move(module);
  Error error = Error::user("the text does not parse as MLIR", "input");
  error.detail = diagnostics;
  return error;
}

Status Session::run(ModuleOp module, void (*build)(OpPassManager &)) {
  PassManager pm(context.get());
  build(pm);
  if (mlir::failed(pm.run(module))) return failed("lowering failed");
  return {};
}

/// Printed stages are parsed by recursive descent: nesting is bounded before it starts (LANGUAGE.md, rule of
/// the same limit).
Status checkDepth(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char ch = text[i];
    if (quoted) {
      if (ch == '\\')
        ++i;
      else if (ch == '"')
        quoted = false;
    } else if (ch == '"')
      quoted = true;
    else if (ch == '(' || ch == '[' || ch == '{' || ch == '<')
      ++depth;
    else if (ch == ')' || ch == ']' || ch == '}' || (ch == '>' && i && text[i - 1] != '-'))
      --depth;
    if (depth > 256) return Error::user("brackets nest deeper than 256", "input");
  }
  return {};
}

std::string printed(ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream out(text);
  module.print(out);
  return text;
}

} // namespace quern::jit
