// The stages after `quern`, as one list of passes.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/DialectRegistry.h"
#include "mlir/Pass/PassManager.h"

namespace quern {

/// Dialects of every stage and the interfaces that lowering needs.
void registerDialects(mlir::DialectRegistry &registry);
/// Codegen's own passes, for quern-opt.
void registerCodegenPasses();

/// scheduled -> instr: the kernel becomes loops, vectors and addresses.
void buildInstrPipeline(mlir::OpPassManager &pm);
/// instr -> llvm dialect.
void buildLLVMPipeline(mlir::OpPassManager &pm);

} // namespace quern
