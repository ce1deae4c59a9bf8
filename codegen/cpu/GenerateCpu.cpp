// generate-cpu: each scheduled kernel becomes its functions; the kernel and the codecs, now in the code, are
// erased.
//
//   quern.kernel @gate_up ... attributes {problem = ..., schedule = "cpu isa=avx512bf16 ..."} {...}
// becomes
//   func.func private @gate_up_contract0(...)   func.func @gate_up_prepare(...)   func.func
//   @gate_up_main(...)
#include "codegen/cpu/GenerateKernel.h"
#include "codegen/cpu/Passes.h"
#include "codegen/cpu/ReadProblem.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
namespace qn = mlir::quern;

namespace quern::cpu {
namespace {

struct GenerateCpu : PassWrapper<GenerateCpu, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(GenerateCpu)
  StringRef getArgument() const override { return "generate-cpu"; }
  StringRef getDescription() const override {
    return "lower scheduled kernels to loops, vectors and addresses for the CPU";
  }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<func::FuncDialect, scf::SCFDialect, vector::VectorDialect, LLVM::LLVMDialect,
                    arith::ArithDialect>();
  }
  void runOnOperation() override {
    ModuleOp module = getOperation();
    SmallVector<qn::KernelOp> kernels(module.getOps<qn::KernelOp>());
    for (qn::KernelOp kernel : kernels) {
      auto problem = readProblem(kernel);
      if (!problem) {
        kernel.emitError(problem.error().message);
        return signalPassFailure();
      }
      setImageFacts(module, kernel.getSymName(), generateKernel(module, kernel, *problem));
      kernel.erase();
    }
    for (qn::CodecOp codec : llvm::make_early_inc_range(module.getOps<qn::CodecOp>())) codec.erase();
  }
};

} // namespace

std::unique_ptr<Pass> createGenerateCpuPass() { return std::make_unique<GenerateCpu>(); }

} // namespace quern::cpu
