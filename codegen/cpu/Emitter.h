// The vocabulary of the CPU code generator: integers, addresses, loads, vectors and loops in the `instr`
// stage (arith, scf, vector, llvm pointers). One method = one idea; nothing here knows about weights or
// tokens.
#pragma once
#include "compiler/support/DType.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Builders.h"
#include <functional>

namespace quern::cpu {

using mlir::ArrayRef;
using mlir::SmallVector;
using mlir::Type;
using mlir::Value;
using mlir::ValueRange;
using mlir::VectorType;

/// Builds at the insertion point of `b`. All integers are i64 and all addresses are byte based.
class Emitter {
public:
  mlir::OpBuilder &b;
  mlir::Location loc;
  bool nativeBf16; // the target converts fp32 vectors to bf16 in one instruction
  Emitter(mlir::OpBuilder &builder, mlir::Location location, bool hasBf16)
      : b(builder), loc(location), nativeBf16(hasBf16) {}

  Type i8() { return b.getI8Type(); }
  Type i16() { return b.getI16Type(); }
  Type i32() { return b.getI32Type(); }
  Type i64() { return b.getI64Type(); }
  Type f32() { return b.getF32Type(); }
  Type bf16() { return b.getBF16Type(); }
  Type ptr() { return mlir::LLVM::LLVMPointerType::get(b.getContext()); }
  Type type(DType t) { return t == DType::F32 ? f32() : t == DType::BF16 ? bf16() : (Type)b.getF16Type(); }
  VectorType vec(int64_t n, Type element) { return VectorType::get({n}, element); }

  // Integers (i64). Constant operands fold away in canonicalisation.
  Value c(int64_t value);
  Value add(Value a, Value x);
  Value add(Value a, int64_t x) { return x ? add(a, c(x)) : a; }
  Value sub(Value a, Value x);
  Value mul(Value a, Value x);
  Value mul(Value a, int64_t x);
  Value div(Value a, int64_t x); // unsigned; a shift for powers of two
  Value rem(Value a, int64_t x);
  Value min(Value a, Value x);
  Value lt(Value a, Value x); // signed
  Value le(Value a, Value x);
  Value eq(Value a, int64_t x);

  // Memory. `at` adds bytes to a pointer.
  Value at(Value pointer, Value bytes);
  Value at(Value pointer, int64_t bytes) { return bytes ? at(pointer, c(bytes)) : pointer; }
  Value load(Type t, Value pointer, int align = 1);
  void store(Value v, Value pointer, int align = 1);
  void prefetch(Value pointer);               // into L2, for reading
  Value slot(Value slots, int index, Type t); // slots[index] as i64, pointer or f32

  // Vectors.
  Value splat(VectorType t, Value scalar);
  Value constantF(VectorType t, ArrayRef<float> values); // one value: splat
  Value constantI(VectorType t, int64_t value);
  Value constantZeroF() { return mlir::arith::ConstantOp::create(b, loc, b.getF32FloatAttr(0.0f)); }
  Value bitcast(Value v, Type t);
  Value shuffle(Value a, Value x, ArrayRef<int64_t> mask);
  Value mulf(Value a, Value x);
  Value addf(Value a, Value x);
  Value subf(Value a, Value x);
  Value fma(Value a, Value x, Value acc);
  Value shr(Value v, int64_t bits); // logical, scalar or vector
  Value shl(Value v, int64_t bits);
  Value andi(Value v, int64_t mask);
  /// fp32 (scalar or vector) to `t` and back, round to nearest even; NaN stays NaN.
  Value narrow(Value v, DType t);
  Value widen(Value v);
  Value select(Value condition, Value a, Value x);
  Value intrinsic(mlir::StringRef name, Type result, ValueRange operands);

  // Control. `body` gets the induction variable and the carried values and returns the next ones.
  using LoopBody = std::function<SmallVector<Value>(Value, ValueRange)>;
  SmallVector<Value> forLoop(Value from, Value to, Value step, ValueRange init, const LoopBody &body);
  void forEach(Value from, Value to, int64_t step, const std::function<void(Value)> &body);
  void ifThen(Value condition, const std::function<void()> &then,
              const std::function<void()> &otherwise = nullptr);
};

} // namespace quern::cpu
