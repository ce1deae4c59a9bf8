// See Emitter.h.
#include "codegen/cpu/Emitter.h"

using namespace mlir;

namespace quern::cpu {

/// An integer constant of v's type (scalar or splat).
static Value likeI(Emitter &e, Value v, int64_t value) {
  if (auto t = dyn_cast<VectorType>(v.getType())) return e.constantI(t, value);
  return arith::ConstantIntOp::create(e.b, e.loc, v.getType(), value);
}

Value Emitter::c(int64_t value) { return arith::ConstantIntOp::create(b, loc, i64(), value); }
Value Emitter::add(Value a, Value x) { return arith::AddIOp::create(b, loc, a, x); }
Value Emitter::sub(Value a, Value x) { return arith::SubIOp::create(b, loc, a, x); }
Value Emitter::mul(Value a, Value x) { return arith::MulIOp::create(b, loc, a, x); }
Value Emitter::mul(Value a, int64_t x) { return x == 1 ? a : mul(a, c(x)); }

Value Emitter::div(Value a, int64_t x) {
  if (x == 1) return a;
  if ((x & (x - 1)) == 0) return arith::ShRUIOp::create(b, loc, a, c(__builtin_ctzll(x)));
  return arith::DivUIOp::create(b, loc, a, c(x));
}

Value Emitter::rem(Value a, int64_t x) {
  if ((x & (x - 1)) == 0) return arith::AndIOp::create(b, loc, a, c(x - 1));
  return arith::RemUIOp::create(b, loc, a, c(x));
}

Value Emitter::min(Value a, Value x) { return arith::MinSIOp::create(b, loc, a, x); }
Value Emitter::lt(Value a, Value x) { return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::slt, a, x); }
Value Emitter::le(Value a, Value x) { return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::sle, a, x); }
Value Emitter::eq(Value a, int64_t x) {
  return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, a, c(x));
}

Value Emitter::at(Value pointer, Value bytes) {
  return LLVM::GEPOp::create(b, loc, ptr(), i8(), pointer, ArrayRef<LLVM::GEPArg>{bytes});
}
Value Emitter::load(Type t, Value pointer, int align) {
  return LLVM::LoadOp::create(b, loc, t, pointer, align);
}
void Emitter::store(Value v, Value pointer, int align) { LLVM::StoreOp::create(b, loc, v, pointer, align); }

void Emitter::prefetch(Value pointer) {
  LLVM::Prefetch::create(b, loc, pointer, /*rw=*/0, /*hint=*/2, /*cache=*/1);
}

Value Emitter::slot(Value slots, int index, Type t) { return load(t, at(slots, 8 * index), 8); }

Value Emitter::splat(VectorType t, Value scalar) { return vector::BroadcastOp::create(b, loc, t, scalar); }

Value Emitter::constantF(VectorType t, ArrayRef<float> values) {
  return arith::ConstantOp::create(b, loc, DenseElementsAttr::get(t, values));
}

Value Emitter::constantI(VectorType t, int64_t value) {
  return arith::ConstantOp::create(b, loc,
                                   DenseElementsAttr::get(t, b.getIntegerAttr(t.getElementType(), value)));
}

Value Emitter::bitcast(Value v, Type t) {
  if (v.getType() == t) return v;
  if (isa<VectorType>(t)) return vector::BitCastOp::create(b, loc, cast<VectorType>(t), v);
  return arith::BitcastOp::create(b, loc, t, v);
}

Value Emitter::shuffle(Value a, Value x, ArrayRef<int64_t> mask) {
  return vector::ShuffleOp::create(b, loc, a, x, mask);
}

Value Emitter::mulf(Value a, Value x) { return arith::MulFOp::create(b, loc, a, x); }
Value Emitter::addf(Value a, Value x) { return arith::AddFOp::create(b, loc, a, x); }
Value Emitter::subf(Value a, Value x) { return arith::SubFOp::create(b, loc, a, x); }
Value Emitter::fma(Value a, Value x, Value acc) { return vector::FMAOp::create(b, loc, a, x, acc); }

Value Emitter::shr(Value v, int64_t bits) {
  return bits ? arith::ShRUIOp::create(b, loc, v, likeI(*this, v, bits)).getResult() : v;
}
Value Emitter::shl(Value v, int64_t bits) {
  return bits ? arith::ShLIOp::create(b, loc, v, likeI(*this, v, bits)).getResult() : v;
}
Value Emitter::andi(Value v, int64_t mask) { return arith::AndIOp::create(b, loc, v, likeI(*this, v, mask)); }

Value Emitter::select(Value condition, Value a, Value x) {
  return arith::SelectOp::create(b, loc, condition, a, x);
}

Value Emitter::narrow(Value v, DType t) {
  if (t == DType::F32) return v;
  auto vectorType = dyn_cast<VectorType>(v.getType());
  auto shaped = [&](Type element) -> Type {
    return vectorType ? (Type)vec(vectorType.getNumElements(), element) : element;
  };
  if (t == DType::F16 || (nativeBf16 && vectorType))
    return arith::TruncFOp::create(b, loc, shaped(type(t)), v);
  // Round to nearest even on the bits; NaN would carry into the sign, so it is put back as a quiet NaN.
  Value bits = bitcast(v, shaped(i32()));
  Value odd = andi(shr(bits, 16), 1);
  Value rounded = shr(add(add(bits, likeI(*this, bits, 0x7fff)), odd), 16);
  Value nan = arith::CmpFOp::create(b, loc, arith::CmpFPredicate::UNO, v, v);
  Value chosen = select(nan, likeI(*this, bits, 0x7fc0), rounded);
  return bitcast(arith::TruncIOp::create(b, loc, shaped(i16()), chosen), shaped(bf16()));
}

Value Emitter::widen(Value v) {
  auto vectorType = dyn_cast<VectorType>(v.getType());
  Type element = vectorType ? vectorType.getElementType() : v.getType();
  auto shaped = [&](Type t) -> Type { return vectorType ? (Type)vec(vectorType.getNumElements(), t) : t; };
  if (element.isF32()) return v;
  if (element.isF16()) return arith::ExtFOp::create(b, loc, shaped(f32()), v);
  Value bits = arith::ExtUIOp::create(b, loc, shaped(i32()), bitcast(v, shaped(i16())));
  return bitcast(shl(bits, 16), shaped(f32()));
}

Value Emitter::intrinsic(StringRef name, Type result, ValueRange operands) {
  return LLVM::CallIntrinsicOp::create(b, loc, result, b.getStringAttr(name), operands).getResult(0);
}

SmallVector<Value> Emitter::forLoop(Value from, Value to, Value step, ValueRange init, const LoopBody &body) {
  auto loop = scf::ForOp::create(b, loc, from, to, step, init);
  OpBuilder::InsertionGuard guard(b);
  // Without carried values the builder has already placed the terminator.
  if (init.empty()) {
    b.setInsertionPoint(loop.getBody()->getTerminator());
    body(loop.getInductionVar(), {});
  } else {
    b.setInsertionPointToStart(loop.getBody());
    scf::YieldOp::create(b, loc, body(loop.getInductionVar(), loop.getRegionIterArgs()));
  }
  return SmallVector<Value>(loop.getResults());
}

void Emitter::forEach(Value from, Value to, int64_t step, const std::function<void(Value)> &body) {
  forLoop(from, to, c(step), {}, [&](Value i, ValueRange) {
    body(i);
    return SmallVector<Value>();
  });
}

void Emitter::ifThen(Value condition, const std::function<void()> &then,
                     const std::function<void()> &otherwise) {
  auto op = scf::IfOp::create(b, loc, condition, otherwise != nullptr);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(op.thenBlock());
  then();
  if (otherwise) {
    b.setInsertionPointToStart(op.elseBlock());
    otherwise();
  }
}

} // namespace quern::cpu
