// The vocabulary of the GPU passes: 32-bit integers, addresses, loads, primitives, control flow. One method =
// one idea; nothing here knows about weights or tokens.
#pragma once
#include "codegen/dialect/Qtile.h"
#include "compiler/support/DType.h"
#include "mlir/IR/Builders.h"
#include <functional>

namespace quern::gpu {

using mlir::ArrayRef;
using mlir::SmallVector;
using mlir::StringRef;
using mlir::Type;
using mlir::Value;
using mlir::ValueRange;

/// Builds at the insertion point of `b`. Integers are i32 unless said otherwise; addresses are byte based.
class Emitter {
public:
  mlir::OpBuilder &b;
  mlir::Location loc;
  Emitter(mlir::OpBuilder &builder, mlir::Location location) : b(builder), loc(location) {}

  Type i16() { return b.getI16Type(); }
  Type i32() { return b.getI32Type(); }
  Type i64() { return b.getI64Type(); }
  Type f32() { return b.getF32Type(); }
  Type pointer(unsigned space) { return mlir::LLVM::LLVMPointerType::get(b.getContext(), space); }
  Type type(DType t) {
    return t == DType::F32 ? f32() : t == DType::BF16 ? b.getBF16Type() : (Type)b.getF16Type();
  }

  Value c(int64_t v) { return mlir::arith::ConstantIntOp::create(b, loc, i32(), int32_t(v)); }
  Value c64(int64_t v) { return mlir::arith::ConstantIntOp::create(b, loc, i64(), v); }
  Value cf(float v) { return mlir::arith::ConstantOp::create(b, loc, b.getF32FloatAttr(v)); }
  Value add(Value a, Value x) { return mlir::arith::AddIOp::create(b, loc, a, x); }
  Value add(Value a, int64_t x) { return x ? add(a, like(a, x)) : a; }
  Value sub(Value a, Value x) { return mlir::arith::SubIOp::create(b, loc, a, x); }
  Value mul(Value a, Value x) { return mlir::arith::MulIOp::create(b, loc, a, x); }
  Value mul(Value a, int64_t x) { return x == 1 ? a : mul(a, like(a, x)); }
  Value div(Value a, Value x) { return mlir::arith::DivUIOp::create(b, loc, a, x); }
  Value div(Value a, int64_t x) { return x == 1 ? a : div(a, like(a, x)); }
  Value rem(Value a, int64_t x) { return mlir::arith::RemUIOp::create(b, loc, a, like(a, x)); }
  Value min(Value a, Value x) { return mlir::arith::MinSIOp::create(b, loc, a, x); }
  Value max(Value a, Value x) { return mlir::arith::MaxSIOp::create(b, loc, a, x); }
  Value andi(Value a, int64_t x) { return mlir::arith::AndIOp::create(b, loc, a, like(a, x)); }
  Value ori(Value a, Value x) { return mlir::arith::OrIOp::create(b, loc, a, x); }
  Value ori(Value a, int64_t x) { return ori(a, like(a, x)); }
  Value xori(Value a, Value x) { return mlir::arith::XOrIOp::create(b, loc, a, x); }
  Value xori(Value a, int64_t x) { return xori(a, like(a, x)); }
  Value shr(Value a, int64_t x) { return x ? (Value)mlir::arith::ShRUIOp::create(b, loc, a, like(a, x)) : a; }
  Value shl(Value a, int64_t x) { return x ? (Value)mlir::arith::ShLIOp::create(b, loc, a, like(a, x)) : a; }
  Value shl(Value a, Value x) { return mlir::arith::ShLIOp::create(b, loc, a, x); }
  Value shr(Value a, Value x) { return mlir::arith::ShRUIOp::create(b, loc, a, x); }
  Value wide(Value a) { return mlir::arith::ExtUIOp::create(b, loc, i64(), a); }
  Value wideSigned(Value a) { return mlir::arith::ExtSIOp::create(b, loc, i64(), a); }
  Value narrowInt(Value a) { return mlir::arith::TruncIOp::create(b, loc, i32(), a); }
  Value lt(Value a, Value x) { return compare(mlir::arith::CmpIPredicate::slt, a, x); }
  Value ge(Value a, Value x) { return compare(mlir::arith::CmpIPredicate::sge, a, x); }
  Value eq(Value a, int64_t x) { return compare(mlir::arith::CmpIPredicate::eq, a, like(a, x)); }
  Value both(Value a, Value x) { return mlir::arith::AndIOp::create(b, loc, a, x); }
  Value select(Value condition, Value a, Value x) {
    return mlir::arith::SelectOp::create(b, loc, condition, a, x);
  }
  Value addf(Value a, Value x) { return mlir::arith::AddFOp::create(b, loc, a, x); }
  Value subf(Value a, Value x) { return mlir::arith::SubFOp::create(b, loc, a, x); }
  Value mulf(Value a, Value x) { return mlir::arith::MulFOp::create(b, loc, a, x); }
  Value bitcast(Value v, Type t) { return mlir::LLVM::BitcastOp::create(b, loc, t, v); }

  // Memory.
  Value smem(int64_t offset);
  Value at(Value pointer, Value bytes);
  Value at(Value pointer, int64_t bytes) { return bytes ? at(pointer, c64(bytes)) : pointer; }
  Value load(Type t, Value pointer, int align) {
    return mlir::LLVM::LoadOp::create(b, loc, t, pointer, align);
  }
  void store(Value v, Value pointer, int align) { mlir::LLVM::StoreOp::create(b, loc, v, pointer, align); }
  /// A tensor element as f32.
  Value loadFloat(DType t, Value pointer);

  // Primitives and special registers.
  SmallVector<Value> prim(StringRef name, ValueRange operands, ArrayRef<Type> results = {});
  Value prim1(StringRef name, Type result, ValueRange operands) { return prim(name, operands, {result})[0]; }
  Value intrinsic(StringRef name, Type result, ValueRange operands);
  void intrinsic(StringRef name, ValueRange operands);
  Value sreg(StringRef name) { return intrinsic(("llvm.nvvm.read.ptx.sreg." + name).str(), i32(), {}); }
  Value tid() { return sreg("tid.x"); }
  Value prmt(Value a, Value x, Value selector) {
    return intrinsic("llvm.nvvm.prmt", i32(), {a, x, selector});
  }
  Value prmt(Value a, Value x, int64_t selector) { return prmt(a, x, c(selector)); }
  Value shuffle(StringRef kind, Value v, Value lane, int64_t clamp);
  Value shuffle(StringRef kind, Value v, int64_t lane, int64_t clamp) {
    return shuffle(kind, v, c(lane), clamp);
  }
  void syncThreads();
  /// Two fp32 values to a pair of 16-bit ones, round to nearest even.
  Value pack(DType t, Value low, Value high);
  /// Half 0 or 1 of a pair as f32.
  Value unpack(DType t, Value pair, int half);

  // Control.
  using LoopBody = std::function<SmallVector<Value>(Value, ValueRange)>;
  SmallVector<Value> forLoop(Value from, Value to, ValueRange init, const LoopBody &body, int64_t step = 1);
  void ifThen(Value condition, const std::function<void()> &then);
  SmallVector<Value> ifElse(Value condition, ArrayRef<Type> types,
                            const std::function<SmallVector<Value>()> &then,
                            const std::function<SmallVector<Value>()> &otherwise);

private:
  Value like(Value a, int64_t v) { return mlir::arith::ConstantIntOp::create(b, loc, a.getType(), v); }
  Value compare(mlir::arith::CmpIPredicate p, Value a, Value x) {
    return mlir::arith::CmpIOp::create(b, loc, p, a, x);
  }
};

/// A stage of the ring: its index, and the parity of the pass over the ring.
struct Slot {
  Value stage, parity;
};
Slot slotOf(Emitter &e, Value step, int64_t stages);
Slot nextSlot(Emitter &e, Slot slot, int64_t stages);

} // namespace quern::gpu
