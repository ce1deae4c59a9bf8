// lower-program: the program becomes an llvm function, primitives become calls of declared `q.` functions,
// shared addresses offsets from one external array.
#include "codegen/dialect/Qtile.h"
#include "codegen/gpu/Facts.h"
#include "codegen/gpu/Passes.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;

namespace quern::gpu {
namespace {

struct LowerProgram : PassWrapper<LowerProgram, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(LowerProgram)
  StringRef getArgument() const override { return "lower-program"; }
  StringRef getDescription() const override {
    return "lower qtile.program, prim and smem to the llvm dialect";
  }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<LLVM::LLVMDialect>();
  }

  LLVM::GlobalOp sharedMemory(ModuleOp module, OpBuilder &b) {
    if (auto global = module.lookupSymbol<LLVM::GlobalOp>("quern_smem")) return global;
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(module.getBody());
    auto type = LLVM::LLVMArrayType::get(b.getI8Type(), 0);
    return LLVM::GlobalOp::create(b, module.getLoc(), type, /*isConstant=*/false, LLVM::Linkage::External,
                                  "quern_smem", Attribute(), /*alignment=*/1024, /*addrSpace=*/3);
  }

  void lowerSmem(qtile::SmemOp op, LLVM::GlobalOp smem) {
    OpBuilder b(op);
    Value base = LLVM::AddressOfOp::create(b, op.getLoc(), smem);
    op.replaceAllUsesWith((Value)LLVM::GEPOp::create(b, op.getLoc(), base.getType(), b.getI8Type(), base,
                                                     ArrayRef<LLVM::GEPArg>{int32_t(op.getOffset())}));
    op.erase();
  }

  void lowerPrim(ModuleOp module, qtile::PrimOp op) {
    OpBuilder b(op);
    std::string name = "q." + op.getPrimitive().str();
    SmallVector<Type> outputs(op.getOutputs().getTypes());
    Type result = outputs.empty()       ? (Type)LLVM::LLVMVoidType::get(b.getContext())
                  : outputs.size() == 1 ? outputs[0]
                                        : (Type)LLVM::LLVMStructType::getLiteral(b.getContext(), outputs);
    auto callee = module.lookupSymbol<LLVM::LLVMFuncOp>(name);
    if (!callee) {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(module.getBody());
      SmallVector<Type> inputs(op.getInputs().getTypes());
      callee =
          LLVM::LLVMFuncOp::create(b, module.getLoc(), name, LLVM::LLVMFunctionType::get(result, inputs));
    }
    auto call = LLVM::CallOp::create(b, op.getLoc(), callee, op.getInputs());
    if (outputs.size() == 1)
      op.replaceAllUsesWith(call.getResults());
    else
      for (auto [i, output] : llvm::enumerate(op.getOutputs()))
        if (!output.use_empty())
          output.replaceAllUsesWith(
              LLVM::ExtractValueOp::create(b, op.getLoc(), call.getResult(), ArrayRef<int64_t>{int64_t(i)}));
    op.erase();
  }

  void lowerProgram(qtile::ProgramOp program) {
    Plan plan(program);
    OpBuilder b(program);
    SmallVector<Type> types(program.getBody().getArgumentTypes());
    auto type = LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(b.getContext()), types);
    auto fn = LLVM::LLVMFuncOp::create(b, program.getLoc(), program.getSymName(), type);
    fn->setAttr("nvvm.kernel", b.getUnitAttr());
    fn->setAttr("nvvm.reqntid", b.getDenseI32ArrayAttr({int32_t(plan.schedule.threads())}));
    fn->setAttr("nvvm.minctasm", b.getI32IntegerAttr(int32_t(plan.schedule.ctas)));
    if (int64_t cluster = plan.schedule.cluster * plan.schedule.split; cluster > 1)
      fn->setAttr("nvvm.cluster_dim", b.getDenseI32ArrayAttr({int32_t(cluster), 1, 1}));
    fn.getBody().takeBody(program.getBody());
    for (auto [i, text] : llvm::enumerate(program.getParams())) {
      if (parseParam(cast<StringAttr>(text).getValue()).kind != jit::GpuParam::TensorMap) continue;
      auto map = LLVM::LLVMArrayType::get(b.getI8Type(), 128);
      fn.setArgAttr(i, "llvm.byval", TypeAttr::get(map));
      fn.setArgAttr(i, "llvm.align", b.getI64IntegerAttr(64));
      fn.setArgAttr(i, "nvvm.grid_constant", b.getUnitAttr());
    }
    b.setInsertionPointToEnd(&fn.getBody().front());
    LLVM::ReturnOp::create(b, program.getLoc(), ValueRange());
    program.erase();
  }

  void runOnOperation() override {
    ModuleOp module = getOperation();
    OpBuilder b(module.getContext());
    SmallVector<qtile::SmemOp> smems;
    SmallVector<qtile::PrimOp> prims;
    module.walk([&](qtile::SmemOp op) { smems.push_back(op); });
    module.walk([&](qtile::PrimOp op) { prims.push_back(op); });
    LLVM::GlobalOp smem = sharedMemory(module, b);
    for (qtile::SmemOp op : smems) lowerSmem(op, smem);
    for (qtile::PrimOp op : prims) lowerPrim(module, op);
    for (auto program : llvm::make_early_inc_range(module.getOps<qtile::ProgramOp>())) lowerProgram(program);
  }
};

} // namespace

std::unique_ptr<Pass> createLowerProgramPass() { return std::make_unique<LowerProgram>(); }

} // namespace quern::gpu
