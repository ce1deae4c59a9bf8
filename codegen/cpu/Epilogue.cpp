// See Epilogue.h.
#include "codegen/cpu/Epilogue.h"
#include "mlir/IR/IRMapping.h"
#include <algorithm>

using namespace mlir;

namespace quern::cpu {

int64_t bandColumns(const Write &write, int64_t columns) {
  int64_t mul = 1;
  for (const Read &r : write.reads)
    if (r.kind == Read::OfContraction) mul = std::max(mul, r.mul);
  return std::max<int64_t>(1, columns / mul);
}

int64_t blockBase(const Read &read) { return read.mul ? read.offset / read.mul * read.mul : read.offset; }

std::vector<ColumnBlock> blocksOf(const Write &write, int64_t columns) {
  std::vector<ColumnBlock> blocks;
  int64_t band = bandColumns(write, columns);
  for (const Read &r : write.reads) {
    if (r.kind != Read::OfContraction) continue;
    ColumnBlock block{r.index, r.mul * band, blockBase(r), std::max<int64_t>(1, r.mul * band)};
    if (std::find(blocks.begin(), blocks.end(), block) == blocks.end()) blocks.push_back(block);
  }
  return blocks;
}

namespace {

/// Emits one vector step of a write.
struct Step {
  Emitter &e;
  const Problem &p;
  const Write &write;
  const std::vector<BlockValues> &blocks;
  const SegmentValues &segment;
  int64_t band;
  Value j0, t, row, token; // t: row inside the segment; row: absolute
  int64_t width;

  VectorType vectorType() { return e.vec(width, e.f32()); }

  /// Every mul-th of mul * width loaded elements, from `phase`.
  Value pick(Value loaded, int64_t mul, int64_t phase) {
    if (mul == 1) return loaded;
    SmallVector<int64_t> mask;
    for (int64_t i = 0; i < width; ++i) mask.push_back(i * mul + phase);
    return e.shuffle(loaded, loaded, mask);
  }

  Value readContraction(const Read &r, Value j) {
    for (const BlockValues &v : blocks) {
      int64_t mul = r.mul, base = blockBase(r);
      if (v.block.contraction != r.index || v.block.base != base || v.block.perBand != mul * band) continue;
      Value line = e.at(v.c, e.mul(t, v.block.width() * 4));
      Value first = e.add(e.mul(j, mul), v.skip);
      if (mul == 0) return e.splat(vectorType(), e.load(e.f32(), e.at(line, e.mul(first, 4)), 4));
      Value loaded = e.load(e.vec(width * mul, e.f32()), e.at(line, e.mul(first, 4)), 4);
      return pick(loaded, mul, r.offset - base);
    }
    llvm_unreachable("every read of a contraction has its block");
  }

  Value readTensor(const Read &r, Value j) {
    const Operand &x = p.operands[r.index];
    int64_t bytes = byteSize(x.dtype);
    Value address = e.slot(segment.slots, x.slot, e.ptr());
    int dim = 0;
    if (r.row != RowAccess::None) {
      Value line = r.row == RowAccess::Token ? token : r.row == RowAccess::Expert ? segment.expert : row;
      address = e.at(address, e.mul(e.mul(line, e.slot(segment.slots, x.slot + 1 + dim++, e.i64())), bytes));
    }
    if (!r.hasColumn) return e.splat(vectorType(), e.widen(e.load(e.type(x.dtype), address, int(bytes))));
    Value column = e.add(e.mul(e.add(j0, j), r.mul), r.offset);
    if (x.unitStride && r.mul > 0) {
      // One load serves every read of this operand with the same base. It ends at the highest phase that is
      // read, so that nothing beyond the tensor is touched.
      int64_t base = blockBase(r), phase = 0;
      for (const Read &other : write.reads)
        if (other.kind == Read::OfTensor && other.index == r.index && other.row == r.row &&
            other.mul == r.mul && other.hasColumn && blockBase(other) == base)
          phase = std::max(phase, other.offset - base);
      Value first = e.add(e.mul(e.add(j0, j), r.mul), base);
      Value loaded = e.load(e.vec((width - 1) * r.mul + phase + 1, e.type(x.dtype)),
                            e.at(address, e.mul(first, bytes)), int(bytes));
      return e.widen(pick(loaded, r.mul, r.offset - base));
    }
    Value stride = e.mul(e.slot(segment.slots, x.slot + 1 + dim, e.i64()), bytes);
    Value v = e.constantF(vectorType(), {0.0f});
    for (int64_t i = 0; i < width; ++i) {
      Value element = e.widen(
          e.load(e.type(x.dtype), e.at(address, e.mul(e.add(column, i * r.mul), stride)), int(bytes)));
      v = vector::InsertOp::create(e.b, e.loc, element, v, i);
    }
    return v;
  }

  Value read(const Read &r, Value j) {
    if (r.kind == Read::OfContraction) return readContraction(r, j);
    if (r.kind == Read::OfTensor) return readTensor(r, j);
    Value weights = e.slot(segment.slots, p.operands[p.routing].slot + 1, e.ptr());
    return e.splat(vectorType(), e.load(e.f32(), e.at(weights, e.mul(row, 4)), 4));
  }

  /// The region with every f32 widened to a vector.
  Value evaluate(Value j) {
    Block &body = write.body->front();
    IRMapping map;
    for (auto [i, r] : llvm::enumerate(write.reads)) map.map(body.getArgument(i), read(r, j));
    auto mapped = [&](Value v) -> Value {
      if (Value found = map.lookupOrNull(v)) return found;
      auto scalar = cast<BlockArgument>(v); // a scalar parameter of the kernel
      Value loaded = e.slot(segment.slots, p.operands[scalar.getArgNumber()].slot, e.f32());
      map.map(v, e.splat(vectorType(), loaded));
      return map.lookup(v);
    };
    for (Operation &op : body.without_terminator()) {
      if (auto constant = dyn_cast<arith::ConstantOp>(op)) {
        auto value = cast<FloatAttr>(constant.getValue());
        map.map(constant.getResult(), e.constantF(vectorType(), {float(value.getValueAsDouble())}));
        continue;
      }
      OperationState state(e.loc, op.getName());
      for (Value operand : op.getOperands()) state.operands.push_back(mapped(operand));
      state.addAttributes(op.getAttrs());
      for (Type type : op.getResultTypes()) state.addTypes(e.vec(width, type));
      Operation *wide = e.b.create(state);
      map.map(op.getResults(), wide->getResults());
    }
    return mapped(body.getTerminator()->getOperand(0));
  }

  void emit(Value j) {
    Value v = evaluate(j);
    const Operand &out = p.operands[write.output];
    int64_t bytes = byteSize(out.dtype);
    Value line = write.combine ? token : row;
    Value stride = e.slot(segment.slots, out.slot + 1, e.i64());
    Value address = e.at(e.slot(segment.slots, out.slot, e.ptr()),
                         e.mul(e.add(e.mul(line, stride), e.add(j0, j)), bytes));
    if (write.combine) return e.store(e.addf(e.load(vectorType(), address, 4), v), address, 4);
    e.store(e.narrow(v, out.dtype), address, int(bytes));
  }
};

} // namespace

void emitWrite(Emitter &e, const Problem &p, const Write &write, const std::vector<BlockValues> &blocks,
               const SegmentValues &segment, Value j0, int64_t band) {
  int64_t width = p.schedule.lanes;
  while (width > band) width /= 2;
  Value valid = e.min(e.c(band), e.sub(e.c(write.columns), j0));
  bool exact = write.columns % band == 0 && band % width == 0;
  e.forEach(e.c(0), segment.tokens, 1, [&](Value t) {
    Value row = e.add(segment.row0, t), token;
    if (p.routing >= 0)
      token =
          e.load(e.i64(), e.at(e.slot(segment.slots, p.operands[p.routing].slot, e.ptr()), e.mul(row, 8)), 8);
    Step step{e, p, write, blocks, segment, band, j0, t, row, token, width};
    if (exact) return e.forEach(e.c(0), e.c(band), width, [&](Value j) { step.emit(j); });
    Value whole = e.sub(valid, e.rem(valid, width));
    e.forEach(e.c(0), whole, width, [&](Value j) { step.emit(j); });
    step.width = 1;
    e.forEach(whole, valid, 1, [&](Value j) { step.emit(j); });
  });
}

} // namespace quern::cpu
