// The whole pass list on one screen; a reason above each line.
#include "codegen/Pipeline.h"
#include "codegen/cpu/Passes.h"
#include "compiler/dialect/Quern.h"
#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/ConvertToLLVM/ToLLVMPass.h"
#include "mlir/Conversion/FuncToLLVM/ConvertFuncToLLVM.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/ReconcileUnrealizedCasts/ReconcileUnrealizedCasts.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVM.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVMPass.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

namespace quern {

void registerDialects(DialectRegistry &registry) {
  registry.insert<mlir::quern::QuernDialect, arith::ArithDialect, math::MathDialect, func::FuncDialect,
                  scf::SCFDialect, cf::ControlFlowDialect, vector::VectorDialect, LLVM::LLVMDialect>();
  arith::registerConvertArithToLLVMInterface(registry);
  cf::registerConvertControlFlowToLLVMInterface(registry);
  registerConvertFuncToLLVMInterface(registry);
  registerConvertMathToLLVMInterface(registry);
  vector::registerConvertVectorToLLVMInterface(registry);
}

void buildInstrPipeline(OpPassManager &pm) {
  // Contractions and writes become functions over slots and segments, by the kernel's schedule.
  pm.addPass(cpu::createGenerateCpuPass());
  // Address arithmetic is emitted plainly; folding it here keeps the printed stage readable and LLVM's work
  // small.
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  // Vector exp, tanh and erf have no instruction: polynomials, while they are still recognisable ops.
  pm.addPass(cpu::createExpandMathPass());
}

void buildLLVMPipeline(OpPassManager &pm) {
  // Structured loops become branches: the llvm dialect has no others.
  pm.addPass(createSCFToControlFlowPass());
  // Everything left has a direct llvm form.
  pm.addPass(createConvertToLLVMPass());
  // Casts between the type systems cancel out.
  pm.addPass(createReconcileUnrealizedCastsPass());
}

void registerCodegenPasses() {
  registerPass([] { return cpu::createGenerateCpuPass(); });
  registerPass([] { return cpu::createExpandMathPass(); });
}

} // namespace quern
