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

/// CPU, scheduled -> instr: the kernel becomes loops, vectors and addresses.
void buildCpuInstrPipeline(mlir::OpPassManager &pm);
/// GPU, scheduled -> tile: a qtile program.
void buildTilePipeline(mlir::OpPassManager &pm);
/// GPU, tile -> instr: an llvm function that calls primitives.
void buildGpuInstrPipeline(mlir::OpPassManager &pm);
/// Both, instr -> llvm dialect.
void buildLLVMPipeline(mlir::OpPassManager &pm);

} // namespace quern
