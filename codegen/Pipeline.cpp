// The whole pass list on one screen; a reason above each line.
#include "codegen/Pipeline.h"
#include "codegen/cpu/Passes.h"
#include "codegen/dialect/Qtile.h"
#include "codegen/gpu/Passes.h"
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
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

namespace quern {

void registerDialects(DialectRegistry &registry) {
  registry.insert<mlir::quern::QuernDialect, mlir::qtile::QtileDialect, arith::ArithDialect,
                  math::MathDialect, func::FuncDialect, scf::SCFDialect, cf::ControlFlowDialect,
                  vector::VectorDialect, LLVM::LLVMDialect, NVVM::NVVMDialect>();
  arith::registerConvertArithToLLVMInterface(registry);
  cf::registerConvertControlFlowToLLVMInterface(registry);
  registerConvertFuncToLLVMInterface(registry);
  registerConvertMathToLLVMInterface(registry);
  vector::registerConvertVectorToLLVMInterface(registry);
}

// CPU: scheduled -> instr.
void buildCpuInstrPipeline(OpPassManager &pm) {
  // Contractions and writes become functions over slots and segments, by the kernel's schedule.
  pm.addPass(cpu::createGenerateCpuPass());
  // Address arithmetic is emitted plainly; folding it here keeps the printed stage readable and LLVM's work
  // small.
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  // Vector exp, tanh and erf have no instruction: polynomials, while they are still recognisable ops.
  pm.addPass(cpu::createExpandMathPass());
}

// GPU: scheduled -> tile.
void buildTilePipeline(OpPassManager &pm) {
  // What to compute becomes who computes it: roles, the persistent tile loop, produce and consume.
  pm.addPass(gpu::createGenerateTilePass());
}

// GPU: tile -> instr. From the outside in: each pass opens one op and leaves smaller ones.
void buildGpuInstrPipeline(OpPassManager &pm) {
  // Barriers and the tile table, before any role starts.
  pm.addPass(gpu::createExpandSetupPass());
  // A branch per warp range, with its registers.
  pm.addPass(gpu::createExpandRolesPass());
  // The loop over this CTA's tiles, in every role.
  pm.addPass(gpu::createExpandTilesPass());
  // The ladder: accumulators are registers, so each width is code of its own.
  pm.addPass(gpu::createExpandConsumePass());
  // The producer's copies, and what they leave in flight after the last tile.
  pm.addPass(gpu::createExpandProducePass());
  pm.addPass(gpu::createExpandDrainPass());
  // The K loop: waits, decode, wgmma, release.
  pm.addPass(gpu::createExpandMultiplyPass());
  // Partial sums meet in the first CTA of a cluster, when the range of K is split.
  pm.addPass(gpu::createExpandReducePass());
  // Bias, activation and stores on the fragments.
  pm.addPass(gpu::createExpandEpiloguePass());
  // Rows that no expert has.
  pm.addPass(gpu::createExpandTailPass());
  // Products of a block as byte planes, then codes to weights by byte permutes.
  pm.addPass(gpu::createExpandTablesPass());
  pm.addPass(gpu::createExpandArrangePass());
  pm.addPass(gpu::createExpandDecodePass());
  // The other decoder: codes to weights through a table in shared memory.
  pm.addPass(gpu::createExpandDecodePairsPass());
  // Or nothing to decode: A fragments from the stage as they are.
  pm.addPass(gpu::createExpandFragmentsPass());
  // tanh and erf have no exact-enough instruction: polynomials.
  pm.addPass(cpu::createExpandMathPass());
  // Addresses were emitted plainly: fold them while they are still arith.
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  // Only primitives are left: calls of declared functions in one llvm function.
  pm.addPass(gpu::createLowerProgramPass());
}

// Both: instr -> the llvm dialect.
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
  for (auto create :
       {gpu::createGenerateTilePass, gpu::createExpandSetupPass, gpu::createExpandRolesPass,
        gpu::createExpandTilesPass, gpu::createExpandConsumePass, gpu::createExpandProducePass,
        gpu::createExpandDrainPass, gpu::createExpandMultiplyPass, gpu::createExpandReducePass,
        gpu::createExpandEpiloguePass, gpu::createExpandTailPass, gpu::createExpandTablesPass,
        gpu::createExpandArrangePass, gpu::createExpandDecodePass, gpu::createExpandDecodePairsPass,
        gpu::createExpandFragmentsPass, gpu::createLowerProgramPass})
    registerPass([create] { return create(); });
}

} // namespace quern
