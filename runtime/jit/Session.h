// What every compilation needs of MLIR: a context whose diagnostics become text, passes, parsing, printing.
#pragma once
#include "compiler/dialect/Quern.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/OwningOpRef.h"
#include "mlir/Pass/PassManager.h"
#include "runtime/jit/Jit.h"

namespace quern::jit {

struct Session {
  mlir::DialectRegistry registry;
  std::unique_ptr<mlir::MLIRContext> context;
  std::string diagnostics;
  std::unique_ptr<mlir::ScopedDiagnosticHandler> handler;

  Session();
  /// An internal error with what MLIR said.
  Error failed(std::string what);
  /// The `quern` stage of the request's kernel.
  Expected<mlir::OwningOpRef<mlir::ModuleOp>> fromProgram(const Request &request);
  /// A printed stage; user errors, brackets bounded before the parser recurses into them (LANGUAGE.md).
  Expected<mlir::OwningOpRef<mlir::ModuleOp>> parse(std::string_view text);
  Status run(mlir::ModuleOp module, void (*build)(mlir::OpPassManager &));
};

Status checkDepth(std::string_view text);
std::string printed(mlir::ModuleOp module);

} // namespace quern::jit
