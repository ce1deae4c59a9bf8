// See Decode.h. First the geometry, then the product table, then the vector and scalar decoders.
#include "codegen/cpu/Decode.h"

using namespace mlir;

namespace quern::cpu {

Weights::Weights(Emitter &emitter, const Problem &p, const Contraction &c, Dot dotKind, ModuleOp m)
    : e(emitter), operand(p.operands[c.rhs]), schedule(p.schedule), dot(dotKind),
      act(c.lhs >= 0 ? p.operands[c.lhs].dtype : DType::F32), n(c.columns), k(c.reduced),
      lanes(p.schedule.lanes), byExpert(c.byExpert), module(m) {}

void Weights::bind(Value slots, Value expert) {
  Value which = byExpert ? expert : e.c(0);
  if (packed()) {
    auto pointer = [&](int slot) {
      return e.load(e.ptr(), e.at(e.slot(slots, slot, e.ptr()), e.mul(which, 8)), 8);
    };
    codes = pointer(operand.slot);
    scales = pointer(operand.slot + 1);
    if (operand.codec.hasZero) zeros = pointer(operand.slot + 2);
    return;
  }
  int64_t bytes = byteSize(operand.dtype);
  int first = operand.slot + 1;
  base = e.slot(slots, operand.slot, e.ptr());
  if (byExpert) base = e.at(base, e.mul(e.mul(which, e.slot(slots, first++, e.i64())), bytes));
  rowStride = e.mul(e.slot(slots, first, e.i64()), bytes);
  kStride = operand.unitStride ? e.c(bytes) : e.mul(e.slot(slots, first + 1, e.i64()), bytes);
}

int64_t Weights::scaleStep() const {
  if (k % 64 == 0 && operand.block % 64 == 0) return 64;
  return k % 32 == 0 && operand.block % 32 == 0 ? 32 : 1;
}

bool Weights::vectorized() const {
  return packed() && operand.layout == Layout::Cpu && schedule.isa >= Isa::Avx2 && scaleStep() > 1 &&
         n >= 32 && k >= 64;
}

Value Weights::scaleIndex(Value row, int64_t r, Value kk) {
  if (operand.layout == Layout::Gpu && operand.block == 64 && k % 64 == 0)
    return e.add(e.mul(e.div(kk, 64), n), e.add(row, r));
  if (!retiledScales()) return e.div(e.add(e.mul(e.add(row, r), k), kk), operand.block);
  int64_t perRow = k / operand.block;
  Value segment = e.div(kk, operand.block);
  Value tiled = e.add(e.mul(e.add(e.mul(e.div(row, 32), perRow), segment), 32), e.rem(row, 32));
  // A constant distance from the first row: one address serves all rows of a block.
  if (n % 32 == 0) return e.add(tiled, r);
  Value plain = e.add(e.mul(row, perRow), segment);
  return e.select(e.lt(row, e.c(mainRows())), e.add(tiled, r), e.add(plain, r * perRow));
}

Value Weights::scaleAt(Value index) {
  if (operand.codec.scale == syntax::ScaleType::F32) return e.load(e.f32(), e.at(scales, e.mul(index, 4)), 4);
  if (operand.codec.scale == syntax::ScaleType::BF16) {
    Value bits =
        arith::ExtUIOp::create(e.b, e.loc, e.i32(), e.load(e.i16(), e.at(scales, e.mul(index, 2)), 2));
    return e.bitcast(e.shl(bits, 16), e.f32());
  }
  // e8m0: 2^(s-127); 0 is the subnormal 2^-127, 255 is NaN (OCP Microscaling v1.0, 5.4.1).
  Value bits = arith::ExtUIOp::create(e.b, e.loc, e.i32(), e.load(e.i8(), e.at(scales, index)));
  auto constant = [&](int64_t v) -> Value { return arith::ConstantIntOp::create(e.b, e.loc, e.i32(), v); };
  auto is = [&](int64_t v) -> Value {
    return arith::CmpIOp::create(e.b, e.loc, arith::CmpIPredicate::eq, bits, constant(v));
  };
  Value normal = e.select(is(0), constant(0x00400000), e.shl(bits, 23));
  return e.bitcast(e.select(is(255), constant(0x7fc00000), normal), e.f32());
}

Value Weights::zeroAt(Value index) {
  if (!operand.codec.hasZero) return {};
  Value byte = e.load(e.i8(), e.at(zeros, index));
  return arith::UIToFPOp::create(e.b, e.loc, e.f32(), byte);
}

Value Weights::roundChain(Value v) {
  v = e.widen(e.narrow(v, operand.dtype));
  return act == operand.dtype ? v : e.widen(e.narrow(v, act));
}

Value Weights::productTable(Value index) {
  VectorType t = e.vec(16, e.f32());
  Value table = e.constantF(t, operand.codec.table);
  if (Value zero = zeroAt(index)) table = e.subf(table, e.splat(t, zero));
  return e.mulf(table, e.splat(t, scaleAt(index)));
}

Value Weights::lookupTable(Value table) {
  if (dot == Dot::F32) return roundChain(table);
  // The last rounding of the chain is the conversion itself; both halves hold the table because vpermw reads
  // five index bits.
  if (operand.dtype == DType::F16) table = roundChain(table);
  Value twice = e.intrinsic("llvm.x86.avx512bf16.cvtne2ps2bf16.512", e.vec(32, e.bf16()), {table, table});
  return e.bitcast(twice, e.vec(32, e.i16()));
}

Value Weights::lookup(Value table, Value words, int64_t shift) {
  Value index = e.shr(words, shift); // vpermw, vpermps ignore the bits above their index
  if (dot == Dot::Bf16)
    return e.bitcast(e.intrinsic("llvm.x86.avx512.permvar.hi.512", e.vec(32, e.i16()), {table, index}),
                     e.vec(32, e.bf16()));
  if (lanes == 16) return e.intrinsic("llvm.x86.avx512.permvar.sf.512", e.vec(16, e.f32()), {table, index});
  VectorType eight = e.vec(8, e.f32());
  Value halves[2];
  for (int h = 0; h < 2; ++h) {
    SmallVector<int64_t> mask;
    for (int i = 0; i < 8; ++i) mask.push_back(8 * h + i);
    halves[h] = e.intrinsic("llvm.x86.avx2.permps", eight, {e.shuffle(table, table, mask), index});
  }
  // Bit 3 of the code chooses the half: moved to the sign it becomes a blend.
  Value sign = e.shl(words, 28 - shift);
  Value high =
      arith::CmpIOp::create(e.b, e.loc, arith::CmpIPredicate::slt, sign, e.constantI(e.vec(8, e.i32()), 0));
  return e.select(high, halves[1], halves[0]);
}

Value Weights::line(Value row, Value kb) {
  Value block = e.add(e.mul(e.div(row, 32), mainBlocks()), kb);
  return e.at(codes, e.add(e.mul(block, 1024), e.mul(e.rem(row, 32), 32)));
}

void Weights::decodePair(Value row, int64_t r0, Value kb,
                         const std::function<void(int, int64_t, Value)> &emit) {
  Value address = e.at(line(row, kb), r0 * 32);
  bool twoScales = scaleStep() == 32;
  Value tables[2][2]; // [row][half of the 64]
  for (int r = 0; r < 2; ++r)
    for (int h = 0; h < 2; ++h) {
      if (h && !twoScales)
        tables[r][h] = tables[r][0];
      else
        tables[r][h] = lookupTable(productTable(scaleIndex(row, r0 + r, e.add(e.mul(kb, 64), 32 * h))));
    }
  if (dot == Dot::Bf16) {
    Value words = e.load(e.vec(32, e.i16()), address);
    for (int r = 0; r < 2; ++r)
      for (int h = 0; h < 2; ++h) emit(r, 32 * h, lookup(tables[r][h], words, 8 * r + 4 * h));
    return;
  }
  // As 32-bit lanes: lane d holds words 2d and 2d+1, so nibble i is row i>>1&1, half i&1, k = 2d + (i>>2).
  // Units of a row go out in ascending storage order, in which the buffered path adds them too.
  SmallVector<Value> words;
  for (int64_t part = 0; part < 16 / lanes; ++part)
    words.push_back(e.load(e.vec(lanes, e.i32()), e.at(address, part * lanes * 4)));
  for (int half = 0; half < 2; ++half)
    for (int high = 0; high < 2; ++high)
      for (int64_t part = 0; part < 16 / lanes; ++part)
        for (int r = 0; r < 2; ++r)
          emit(r, 32 * half + 16 * high + part * lanes,
               lookup(tables[r][half], words[part], 4 * (4 * high + 2 * r + half)));
}

void Weights::prefetchNextPanel(Value row, int64_t count, Value kb) {
  Value address = e.at(line(row, kb), mainBlocks() * 1024);
  for (int64_t r = 0; r < count; r += 2) e.prefetch(e.at(address, 32 * r));
  if (!retiledScales() || operand.block > 64) return;
  int64_t bytes = operand.codec.scale == syntax::ScaleType::F32    ? 4
                  : operand.codec.scale == syntax::ScaleType::BF16 ? 2
                                                                   : 1;
  Value scale = e.at(scales, e.mul(e.add(scaleIndex(row, 0, e.mul(kb, 64)), k / operand.block * 32), bytes));
  for (int64_t r = 0; r < count; r += 16) e.prefetch(e.at(scale, r * bytes));
}

Value positionIn(Emitter &e, Order order, Value kk) {
  if (order == Order::Plain) return kk;
  Value low = e.rem(kk, 32);
  return e.add(e.sub(kk, low), e.add(e.mul(e.rem(low, 2), 16), e.div(low, 2)));
}

Value Weights::codeAt(Value row, Value kk) {
  // Strips in bitsandbytes' order: the whole operand in the bnb layout, what no block covers in the others.
  int64_t edge = operand.layout == Layout::Gpu ? 64 : 32, kMain = k / 64 * 64, nMain = n / edge * edge;
  if (operand.layout == Layout::Bnb) kMain = nMain = 0;
  Value high = e.c(operand.codec.highFirst ? 4 : 0), low = e.c(operand.codec.highFirst ? 0 : 4);
  Value plainShift = e.select(e.eq(e.rem(kk, 2), 0), high, low);
  Value strip =
      e.add(e.c(nMain * kMain / 2), e.add(e.mul(row, (k - kMain) / 2), e.div(e.sub(kk, e.c(kMain)), 2)));
  Value plain = e.add(e.mul(row, k / 2), e.div(kk, 2));
  if (nMain) plain = e.select(e.lt(row, e.c(nMain)), strip, plain);
  Value offset = plain, shift = plainShift;
  if (nMain && kMain) {
    Value r = e.rem(row, edge), column = e.rem(kk, 64), inside, tiledShift;
    if (operand.layout == Layout::Gpu) { // 2x2 units: see runtime/packing/Layout.h
      Value pair = e.div(column, 2), c = e.rem(pair, 4), j = e.div(pair, 4), wg = e.div(r, 2);
      inside =
          e.add(e.mul(e.div(j, 4), 1024), e.add(e.mul(e.add(e.mul(wg, 4), c), 8), e.mul(e.rem(j, 4), 2)));
      tiledShift = e.mul(e.rem(column, 2), 4);
    } else {
      inside = e.add(e.mul(e.div(r, 2), 64), e.mul(e.rem(kk, 32), 2));
      tiledShift = e.mul(e.div(column, 32), 4);
    }
    Value block = e.add(e.mul(e.div(row, edge), kMain / 64), e.div(kk, 64));
    Value tiled = e.add(e.mul(block, 32 * edge), e.add(inside, e.rem(row, 2)));
    Value inMain = arith::AndIOp::create(e.b, e.loc, e.lt(row, e.c(nMain)), e.lt(kk, e.c(kMain)));
    offset = e.select(inMain, tiled, plain);
    shift = e.select(inMain, tiledShift, plainShift);
  }
  Value byte = arith::ExtUIOp::create(e.b, e.loc, e.i64(), e.load(e.i8(), e.at(codes, offset)));
  return e.andi(arith::ShRUIOp::create(e.b, e.loc, byte, shift), 15);
}

Value Weights::tableGlobal() {
  std::string symbol = "quern_table_" + operand.codec.name;
  if (!module.lookupSymbol(symbol)) {
    OpBuilder top = OpBuilder::atBlockBegin(module.getBody());
    auto array = LLVM::LLVMArrayType::get(e.f32(), 16);
    auto values =
        DenseElementsAttr::get(RankedTensorType::get({16}, e.f32()), ArrayRef<float>(operand.codec.table));
    LLVM::GlobalOp::create(top, e.loc, array, /*isConstant=*/true, LLVM::Linkage::Internal, symbol, values);
  }
  return LLVM::AddressOfOp::create(e.b, e.loc, e.ptr(), symbol);
}

void Weights::decodeScalar(Value row, Value from, Value to, Value rowBuffer) {
  Value table = tableGlobal();
  e.forEach(from, to, 1, [&](Value kk) {
    Value index = scaleIndex(row, 0, kk);
    Value v = e.load(e.f32(), e.at(table, e.mul(codeAt(row, kk), 4)), 4);
    if (Value zero = zeroAt(index)) v = e.subf(v, zero);
    v = roundChain(e.mulf(v, scaleAt(index)));
    Value place = e.at(rowBuffer, e.mul(positionIn(e, order(), kk), elementBytes()));
    if (dot == Dot::F32) return e.store(v, place, 4);
    e.store(e.narrow(v, DType::BF16), place, 2);
  });
}

void Weights::clear(Value target, Value elements) {
  Type zero = e.vec(16, dot == Dot::Bf16 ? e.i16() : e.i32());
  e.forEach(e.c(0), elements, 16, [&](Value i) {
    e.store(e.constantI(cast<VectorType>(zero), 0), e.at(target, e.mul(i, elementBytes())));
  });
}

void Weights::decodeDense(Value row, int64_t count, Value from, Value to, int64_t pitch, Value buffer) {
  int64_t bytes = byteSize(operand.dtype);
  auto copy = [&](Value first, Value last, int64_t width, Value source, Value target) {
    Type element = width == 1 ? e.type(operand.dtype) : (Type)e.vec(width, e.type(operand.dtype));
    e.forEach(first, last, width, [&](Value kk) {
      Value v = e.load(element, e.at(source, width == 1 ? e.mul(kk, kStride) : e.mul(kk, bytes)), int(bytes));
      e.store(dot == Dot::F32 ? e.widen(v) : v, e.at(target, e.mul(e.sub(kk, from), elementBytes())),
              int(elementBytes()));
    });
  };
  for (int64_t r = 0; r < count; ++r)
    e.ifThen(e.lt(e.add(row, r), e.c(n)), [&] {
      Value source = e.at(base, e.mul(e.add(row, r), rowStride)),
            target = e.at(buffer, r * pitch * elementBytes());
      Value whole = operand.unitStride ? e.sub(to, e.rem(e.sub(to, from), lanes)) : from;
      if (operand.unitStride) copy(from, whole, lanes, source, target);
      copy(whole, to, 1, source, target);
    });
}

void Weights::decodeRows(Value row, int64_t count, Value block0, Value block1, int64_t pitch, Value buffer) {
  Value from = e.mul(block0, 64), to = e.min(e.mul(block1, 64), e.c(k)), first = e.mul(from, -elementBytes());
  int64_t rowBytes = pitch * elementBytes();
  // Zeros beyond K and in rows beyond N meet zeros of the activations: nothing unset is ever multiplied.
  if (!packed()) {
    if (n % count || k % 64)
      for (int64_t r = 0; r < count; ++r)
        clear(e.at(buffer, r * rowBytes), e.min(e.mul(e.sub(block1, block0), 64), e.c(pitch)));
    return decodeDense(row, count, from, to, pitch, buffer);
  }
  auto scalarRows = [&](Value start) {
    e.forEach(e.c(0), e.c(count), 1, [&](Value r) {
      Value target = e.at(buffer, e.mul(r, rowBytes)), absolute = e.add(row, r);
      Value end = n % 32 ? e.select(e.lt(absolute, e.c(n)), to, start) : to;
      if (n % 32) e.ifThen(e.le(e.c(n), absolute), [&] { clear(target, e.mul(e.sub(block1, block0), 64)); });
      decodeScalar(absolute, start, end, e.at(target, first));
    });
  };
  // The split order scatters the positions beyond K over the last 32: clear the whole last block first.
  if (k % 64)
    e.ifThen(e.lt(e.c(mainBlocks()), block1), [&] {
      for (int64_t r = 0; r < count; ++r)
        clear(e.at(buffer, e.add(e.mul(e.sub(e.c(mainBlocks()), block0), 64 * elementBytes()), r * rowBytes)),
              e.c(64));
    });
  if (!vectorized()) return scalarRows(from);
  auto vectors = [&] {
    Value end = e.min(block1, e.c(mainBlocks()));
    e.forEach(block0, end, 1, [&](Value kb) {
      Value target = e.at(buffer, e.mul(e.sub(kb, block0), 64 * elementBytes()));
      prefetchNextPanel(row, count, kb);
      for (int64_t r = 0; r < count; r += 2)
        decodePair(row, r, kb, [&](int which, int64_t position, Value v) {
          e.store(v, e.at(target, (r + which) * rowBytes + position * elementBytes()));
        });
    });
    if (k % 64) scalarRows(e.mul(end, 64));
  };
  if (n % 32 == 0) return vectors();
  e.ifThen(e.lt(row, e.c(mainRows())), vectors, [&] { scalarRows(from); });
}

} // namespace quern::cpu
