// See Editor.h.
#include "tests/sim/Editor.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;

namespace quern::simtest {

static qtile::ProgramOp programOf(ModuleOp module) { return *module.getOps<qtile::ProgramOp>().begin(); }

Editor::Editor(ModuleOp m) : builder(m.getContext()), module(m), program(programOf(m)), plan(program) {}

gpu::Emitter &Editor::before(Operation *op) {
  builder.setInsertionPoint(op);
  emitter = std::make_unique<gpu::Emitter>(builder, op->getLoc());
  return *emitter;
}

Area Editor::areaOf(Value address) const {
  while (auto gep = address.getDefiningOp<LLVM::GEPOp>()) address = gep.getBase();
  auto smem = address.getDefiningOp<qtile::SmemOp>();
  if (!smem) return Area::None;
  int64_t offset = smem.getOffset();
  if (offset < plan.codes) return Area::X;
  if (offset < plan.scales) return Area::Codes;
  if (offset < plan.barriers) return Area::Scales;
  if (offset < plan.exchange) return (offset - plan.barriers) % 16 ? Area::Empty : Area::Full;
  if (offset < plan.table) return offset == plan.exchange ? Area::Ready : Area::Taken;
  return offset < plan.scratch ? Area::Table : Area::Scratch;
}

std::vector<qtile::PrimOp> Editor::prims(StringRef prefix, Area area) {
  std::vector<qtile::PrimOp> found;
  module.walk([&](qtile::PrimOp op) {
    if (!op.getPrimitive().starts_with(prefix)) return;
    if (area != Area::None && areaOf(op.getOperand(0)) != area) return;
    found.push_back(op);
  });
  return found;
}

std::vector<LLVM::CallIntrinsicOp> Editor::intrinsics(StringRef name) {
  std::vector<LLVM::CallIntrinsicOp> found;
  module.walk([&](LLVM::CallIntrinsicOp op) {
    if (op.getIntrin() == name) found.push_back(op);
  });
  return found;
}

Value Editor::param(jit::GpuParam::Kind kind, int operand) { return gpu::findParam(program, kind, operand); }

std::vector<LLVM::LoadOp> Editor::loadsFrom(Value base) {
  std::vector<LLVM::LoadOp> found;
  module.walk([&](LLVM::LoadOp op) {
    Value address = op.getAddr();
    while (auto gep = address.getDefiningOp<LLVM::GEPOp>()) address = gep.getBase();
    if (address == base) found.push_back(op);
  });
  return found;
}

std::vector<LLVM::LoadOp> Editor::loadsFrom(Area area) {
  std::vector<LLVM::LoadOp> found;
  module.walk([&](LLVM::LoadOp op) {
    if (areaOf(op.getAddr()) == area) found.push_back(op);
  });
  return found;
}

void Editor::drop(Operation *op) {
  unsigned operand = 0;
  for (Value result : op->getResults()) {
    while (op->getOperand(operand).getType() != result.getType()) ++operand;
    result.replaceAllUsesWith(op->getOperand(operand++));
  }
  op->erase();
  ++changes;
}

void Editor::drop(const std::vector<qtile::PrimOp> &ops) {
  for (qtile::PrimOp op : ops) drop(op);
}

void Editor::set(Operation *op, unsigned operand, Value value) {
  op->setOperand(operand, value);
  ++changes;
}

void Editor::rename(qtile::PrimOp op, const std::string &name) {
  op.setPrimitive(name);
  ++changes;
}

bool inStepLoop(Operation *op) { return bool(op->getParentOfType<scf::ForOp>()); }

std::optional<int64_t> constantOf(Value value) {
  APInt constant;
  if (!matchPattern(value, m_ConstantInt(&constant))) return std::nullopt;
  return constant.getSExtValue();
}

} // namespace quern::simtest
