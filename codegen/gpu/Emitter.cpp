// See Emitter.h.
#include "codegen/gpu/Emitter.h"

using namespace mlir;

namespace quern::gpu {

Value Emitter::smem(int64_t offset) {
  return qtile::SmemOp::create(b, loc, pointer(3), b.getI64IntegerAttr(offset));
}

Value Emitter::at(Value p, Value bytes) {
  return LLVM::GEPOp::create(b, loc, p.getType(), b.getI8Type(), p, ArrayRef<LLVM::GEPArg>{bytes});
}

Value Emitter::loadFloat(DType t, Value p) {
  Value v = load(type(t), p, int(byteSize(t)));
  return t == DType::F32 ? v : (Value)arith::ExtFOp::create(b, loc, f32(), v);
}

SmallVector<Value> Emitter::prim(StringRef name, ValueRange operands, ArrayRef<Type> results) {
  return SmallVector<Value>(
      qtile::PrimOp::create(b, loc, results, b.getStringAttr(name), operands).getResults());
}

Value Emitter::intrinsic(StringRef name, Type result, ValueRange operands) {
  return LLVM::CallIntrinsicOp::create(b, loc, result, b.getStringAttr(name), operands)->getResult(0);
}

void Emitter::intrinsic(StringRef name, ValueRange operands) {
  LLVM::CallIntrinsicOp::create(b, loc, b.getStringAttr(name), operands);
}

Value Emitter::shuffle(StringRef kind, Value v, Value lane, int64_t clamp) {
  return intrinsic(("llvm.nvvm.shfl.sync." + kind + ".i32").str(), i32(), {c(-1), v, lane, c(clamp)});
}

void Emitter::syncThreads() { intrinsic("llvm.nvvm.barrier.cta.sync.aligned.all", {c(0)}); }

Value Emitter::pack(DType t, Value low, Value high) {
  return prim1(t == DType::BF16 ? "cvt.bf16x2" : "cvt.f16x2", i32(), {high, low});
}

Value Emitter::unpack(DType t, Value pair, int half) {
  if (t == DType::BF16) return bitcast(half ? andi(pair, 0xffff0000) : shl(pair, 16), f32());
  Value bits = arith::TruncIOp::create(b, loc, i16(), half ? shr(pair, 16) : pair);
  return arith::ExtFOp::create(b, loc, f32(), bitcast(bits, type(t)));
}

SmallVector<Value> Emitter::forLoop(Value from, Value to, ValueRange init, const LoopBody &body,
                                    int64_t step) {
  auto loop = scf::ForOp::create(b, loc, from, to, like(from, step), init);
  OpBuilder::InsertionGuard guard(b);
  if (init.empty()) {
    b.setInsertionPoint(loop.getBody()->getTerminator());
    body(loop.getInductionVar(), {});
    return {};
  }
  b.setInsertionPointToStart(loop.getBody());
  auto next = body(loop.getInductionVar(), loop.getRegionIterArgs());
  scf::YieldOp::create(b, loc, next);
  return SmallVector<Value>(loop.getResults());
}

void Emitter::ifThen(Value condition, const std::function<void()> &then) {
  auto op = scf::IfOp::create(b, loc, condition, /*withElseRegion=*/false);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(op.thenBlock());
  then();
}

SmallVector<Value> Emitter::ifElse(Value condition, ArrayRef<Type> types,
                                   const std::function<SmallVector<Value>()> &then,
                                   const std::function<SmallVector<Value>()> &otherwise) {
  auto op = scf::IfOp::create(b, loc, types, condition, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  auto fill = [&](Block *block, const std::function<SmallVector<Value>()> &make) {
    b.setInsertionPointToStart(block);
    auto values = make();
    if (!types.empty()) scf::YieldOp::create(b, loc, values);
  };
  fill(op.thenBlock(), then);
  fill(op.elseBlock(), otherwise);
  return SmallVector<Value>(op.getResults());
}

Slot slotOf(Emitter &e, Value step, int64_t stages) {
  return {e.rem(step, stages), e.andi(e.div(step, stages), 1)};
}

Slot nextSlot(Emitter &e, Slot slot, int64_t stages) {
  Value next = e.add(slot.stage, 1), wraps = e.eq(next, stages);
  return {e.select(wraps, e.c(0), next), e.select(wraps, e.xori(slot.parity, 1), slot.parity)};
}

} // namespace quern::gpu
