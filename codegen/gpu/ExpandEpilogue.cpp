// expand-epilogue: bias, activation, routing weight and stores, straight on the accumulator fragments.
//
// A thread holds MMA rows g and g + 8 of tokens 8j + 2c and 8j + 2c + 1. By the weight layout these are two
// neighbouring weight rows, or the gate and the up row of one output column, so every value a write needs is
// in the thread. What depends on the column only (biases) is loaded once.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"
#include "codegen/gpu/Reads.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/IRMapping.h"
#include <map>

using namespace mlir;

namespace quern::gpu {
namespace {

using Kind = jit::GpuParam::Kind;

struct Epilogue {
  qtile::EpilogueOp op;
  Emitter &e;
  const Plan &plan;
  const Schedule &s = plan.schedule;
  const Facts &f = plan.facts;
  qtile::ProgramOp program = op->getParentOfType<qtile::ProgramOp>();
  bool paired = f.pairing != Pairing::None;
  Value c;                    // lane % 4
  SmallVector<Value> columns; // output columns of this thread: two neighbours, or one of a pair
  std::map<std::string, Value> cached;
  SmallVector<Value> rowWeights; // lane l: bits of the weight of token 32i + l of the tile
  llvm::DenseMap<Operation *, Value> addresses;

  Epilogue(qtile::EpilogueOp o, Emitter &emitter, const Plan &p) : op(o), e(emitter), plan(p) {}

  void prepare() {
    Value tid = e.tid(), thread = e.andi(tid, 127), group = e.add(e.shr(tid, 7), -1);
    Value warp = e.shr(thread, 5), lane = e.andi(tid, 31), g = e.shr(lane, 2);
    c = e.andi(lane, 3);
    if (paired) { // interleaved and halved pairs place the same columns
      Value inTile = e.add(e.add(e.shl(group, 5), e.shl(warp, 3)), g);
      columns = {e.add(e.mul(op.getWeightTile(), s.bm / 2), inTile)};
    } else {
      Value inTile = e.add(e.add(e.shl(group, 6), e.shl(warp, 4)), e.shl(g, 1));
      Value first = e.add(e.mul(op.getWeightTile(), s.bm), inTile);
      columns = {first, e.add(first, 1)};
    }
  }

  Value param(Kind kind, int operand, int index = 0) { return findParam(program, kind, operand, index); }

  /// Element [line][column] of a tensor operand as f32; null line or column: the dimension is not there.
  Value element(int operand, DType dtype, Value line, Value column) {
    Value at = param(Kind::Pointer, operand), offset = e.c64(0);
    int dim = 0;
    if (line) offset = e.mul(e.wide(line), param(Kind::Stride, operand, dim++));
    if (column) offset = e.add(offset, e.mul(e.wide(column), param(Kind::Stride, operand, dim)));
    return e.loadFloat(dtype, e.at(at, e.mul(offset, byteSize(dtype))));
  }

  Value columnOf(const Read &r, Value j) { return r.hasColumn ? e.add(e.mul(j, r.mul), r.offset) : Value(); }

  /// Values that do not depend on the token, read where the block of stores begins. Columns beyond the output
  /// read column 0: their results are never stored.
  void preload(qtile::WriteOp write) {
    for (auto [i, text] : llvm::enumerate(write.getReads())) {
      Read r = parseRead(cast<StringAttr>(text).getValue());
      if (r.kind != Read::OfTensor || r.row == Read::Row || r.row == Read::Token) continue;
      for (auto [part, j] : llvm::enumerate(columns)) {
        Value inside = e.select(e.lt(j, e.c(write.getColumns())), j, e.c(0));
        Value line = r.row == Read::Expert ? op.getExpert() : Value();
        cached[key(write, i, part)] = element(r.index, r.dtype, line, columnOf(r, inside));
      }
    }
  }

  /// The weights of the tile's rows, a coalesced load per 32, so that the groups of stores wait for none.
  void preloadRowWeights() {
    Value lane = e.andi(e.tid(), 31), last = e.sub(op.getRows(), e.c(1));
    for (int64_t first = 0; first < int64_t(op.getWidth()); first += 32) {
      Value row = e.add(op.getRow0(), e.min(e.add(lane, first), last));
      rowWeights.push_back(e.load(e.i32(), e.at(param(Kind::RowWeight, -1), e.wide(e.shl(row, 2))), 4));
    }
  }

  static std::string key(qtile::WriteOp write, size_t read, size_t part) {
    return std::to_string(write.getOperand()) + "/" + std::to_string(read) + "/" + std::to_string(part);
  }

  struct Token {
    Value row;          // absolute, at most the tile's last
    Value upper, lower; // accumulators of MMA rows g and g + 8
    int64_t local;      // token 2c + local of the tile
  };

  Value lowRank(const Read &r, const Token &t, Value column) {
    // sum(p) xa[row, p] * B[(expert,) column, p], in fp32
    Value xa = e.at(param(Kind::LowRank, -1, r.index), e.mul(e.mul(e.wide(t.row), e.c64(r.rank)), 4));
    Value b = param(Kind::Pointer, r.operand), offset;
    int dim = 0;
    if (r.row == Read::Expert) offset = e.mul(e.wide(op.getExpert()), param(Kind::Stride, r.operand, dim++));
    Value line = e.mul(e.wide(column), param(Kind::Stride, r.operand, dim++));
    offset = offset ? e.add(offset, line) : line;
    b = e.at(b, e.mul(offset, byteSize(r.dtype)));
    Value stride = e.mul(param(Kind::Stride, r.operand, dim), byteSize(r.dtype));
    return e.forLoop(e.c64(0), e.c64(r.rank), {e.cf(0)}, [&](Value p, ValueRange sum) -> SmallVector<Value> {
      Value x = e.load(e.f32(), e.at(xa, e.shl(p, 2)), 4);
      return {e.addf(sum[0], e.mulf(x, e.loadFloat(r.dtype, e.at(b, e.mul(p, stride)))))};
    })[0];
  }

  Value read(qtile::WriteOp write, size_t i, size_t part, const Token &t) {
    Read r = parseRead(cast<StringAttr>(write.getReads()[i]).getValue());
    switch (r.kind) {
    case Read::OfContraction:
      if (paired) return (f.pairing == Pairing::Interleaved ? r.offset % 2 : r.offset) ? t.lower : t.upper;
      return part ? t.lower : t.upper;
    case Read::OfLowRank: return lowRank(r, t, e.min(columnOf(r, columns[part]), e.c(f.n - 1)));
    case Read::OfWeight:
      if (!rowWeights.empty()) {
        Value lane = e.add(e.shl(c, 1), t.local % 32);
        return e.bitcast(e.shuffle("idx", rowWeights[t.local / 32], lane, 31), e.f32());
      }
      return e.load(e.f32(), e.at(param(Kind::RowWeight, -1), e.wide(e.shl(t.row, 2))), 4);
    case Read::OfScalar: return param(Kind::Scalar, r.index);
    case Read::OfTensor: break;
    }
    auto found = cached.find(key(write, i, part));
    if (found != cached.end()) return found->second;
    Value line = r.row == Read::Token ? tokenOf(t) : t.row;
    Value inside = e.select(e.lt(columns[part], e.c(write.getColumns())), columns[part], e.c(0));
    return element(r.index, r.dtype, line, columnOf(r, inside));
  }

  Value tokenOf(const Token &t) {
    if (!f.routed) return t.row;
    return e.load(e.i32(), e.at(param(Kind::RowToken, -1), e.wide(e.shl(t.row, 2))), 4);
  }

  /// exp by ex2, 1 / x by rcp (both within 2 ulp); everything else is exact or LLVM's own.
  void clone(Operation &inner, IRMapping &map) {
    if (auto exp = dyn_cast<math::ExpOp>(inner)) {
      Value scaled = e.mulf(map.lookup(exp.getOperand()), e.cf(1.44269504f));
      return map.map(exp.getResult(), e.prim1("ex2", e.f32(), {scaled}));
    }
    if (auto div = dyn_cast<arith::DivFOp>(inner)) {
      auto one = div.getLhs().getDefiningOp<arith::ConstantOp>();
      auto value = one ? dyn_cast<FloatAttr>(one.getValue()) : FloatAttr();
      if (value && value.getValueAsDouble() == 1.0)
        return map.map(div.getResult(), e.prim1("rcp", e.f32(), {map.lookup(div.getRhs())}));
    }
    e.b.clone(inner, map);
  }

  Value evaluate(qtile::WriteOp write, size_t part, const Token &t) {
    IRMapping map;
    Block &body = write.getBody().front();
    for (size_t i = 0; i < body.getNumArguments(); ++i) map.map(body.getArgument(i), read(write, i, part, t));
    for (Operation &inner : body) {
      if (auto value = dyn_cast<qtile::ValueOp>(inner)) return map.lookup(value.getValue());
      clone(inner, map);
    }
    llvm_unreachable("a write ends in qtile.value");
  }

  static DType dtypeOf(qtile::WriteOp write) {
    if (write.getCombine()) return DType::F32;
    return parseDType(cast<StringAttr>(write->getAttr("dtype")).getValue()).value();
  }

  /// Where this thread's value of token 2c goes.
  Value firstAddress(qtile::WriteOp write) {
    Value &address = addresses[write.getOperation()];
    if (address) return address;
    Value base = write.getCombine() ? param(Kind::Partial, -1, int(write.getIndex()))
                                    : param(Kind::Pointer, write.getOperand());
    Value row = e.wide(e.add(op.getRow0(), e.shl(c, 1)));
    Value offset = e.add(e.mul(row, write.getColumns()), e.wide(columns[0]));
    return address = e.at(base, e.mul(offset, byteSize(dtypeOf(write))));
  }

  /// Stores one token's value or two neighbours, each of the write's dtype.
  void store(qtile::WriteOp write, const Token &t, ArrayRef<Value> values) {
    DType dtype = dtypeOf(write);
    // Lines are contiguous: the thread's first address, and a constant for each token.
    Value at = e.at(firstAddress(write), t.local * write.getColumns() * byteSize(dtype));
    if (values.size() == 2) {
      if (dtype != DType::F32) return e.store(e.pack(dtype, values[0], values[1]), at, 4);
      auto type = VectorType::get({2}, e.f32());
      Value pair = LLVM::UndefOp::create(e.b, e.loc, type);
      for (int i = 0; i < 2; ++i) pair = LLVM::InsertElementOp::create(e.b, e.loc, pair, values[i], e.c(i));
      return e.store(pair, at, 8);
    }
    if (dtype == DType::F32) return e.store(values[0], at, 4);
    Value pair = e.pack(dtype, values[0], values[0]);
    e.store(arith::TruncIOp::create(e.b, e.loc, e.i16(), pair), at, 2);
  }

  static bool reads(ArrayRef<qtile::WriteOp> writes, Read::Kind kind) {
    for (qtile::WriteOp write : writes)
      for (Attribute text : write.getReads())
        if (parseRead(cast<StringAttr>(text).getValue()).kind == kind) return true;
    return false;
  }

  /// This thread's tokens [first, end) of width / 4. Values are computed for all of them before the first
  /// store, without branches, so that their latencies overlap; a token beyond the tile reads the last row's
  /// operands and is not stored.
  void group(ArrayRef<qtile::WriteOp> writes, int64_t first, int64_t end) {
    SmallVector<Token> tokens;
    SmallVector<Value> inside;
    Value last = e.sub(op.getRows(), e.c(1));
    // Tokens from 2c on, and the row of token 2c. A loop that decodes nothing has registers to spare, and
    // there ptxas keeps each token's own number 2c + 8j + i, which no tile changes, until others spill:
    // constants are compared instead.
    Value left = plan.ahead() ? e.sub(op.getRows(), e.shl(c, 1)) : Value();
    Value row = left ? e.add(op.getRow0(), e.shl(c, 1)) : Value();
    for (int64_t token = first; token < end; ++token) {
      int64_t j = token / 2, i = token % 2;
      Value local = e.add(e.shl(c, 1), 8 * j + i);
      inside.push_back(left ? e.lt(e.c(8 * j + i), left) : e.lt(local, op.getRows()));
      Value absolute =
          left ? e.add(row, e.min(e.c(8 * j + i), e.add(left, -1))) : e.add(op.getRow0(), e.min(local, last));
      tokens.push_back(
          {absolute, op.getAccumulators()[4 * j + i], op.getAccumulators()[4 * j + 2 + i], 8 * j + i});
    }
    for (qtile::WriteOp write : writes) {
      Value column = e.lt(columns[0], e.c(write.getColumns()));
      auto evaluated = [&](const Token &t) {
        SmallVector<Value> values;
        for (size_t part = 0; part < columns.size(); ++part) values.push_back(evaluate(write, part, t));
        return values;
      };
      if (tokens.size() == 1) {
        e.ifThen(e.both(inside[0], column), [&] { store(write, tokens[0], evaluated(tokens[0])); });
        continue;
      }
      SmallVector<SmallVector<Value>> values;
      for (const Token &t : tokens) values.push_back(evaluated(t));
      for (size_t i = 0; i < tokens.size(); ++i)
        e.ifThen(e.both(inside[i], column), [&] { store(write, tokens[i], values[i]); });
    }
  }

  void run() {
    prepare();
    SmallVector<qtile::WriteOp> writes(op.getBody().getOps<qtile::WriteOp>());
    bool lowRank = reads(writes, Read::OfLowRank);
    for (qtile::WriteOp write : writes) preload(write), firstAddress(write);
    if (!lowRank && reads(writes, Read::OfWeight)) preloadRowWeights();
    // Four at once; with a low-rank factor, which brings loops, one at a time in its own branch: else they
    // spill.
    int64_t count = int64_t(op.getWidth()) / 4, together = lowRank ? 1 : 4;
    for (int64_t t = 0; t < count; t += together) group(writes, t, std::min(t + together, count));
    // Convergent, so that LLVM does not sink the widths' equal tails into one: accumulators would meet in
    // phis, and ptxas serialise their wgmmas (C7511).
    e.intrinsic("llvm.nvvm.bar.warp.sync", {e.c(-1)});
  }
};

} // namespace

static LogicalResult expandEpilogue(qtile::EpilogueOp op, Emitter &e, const Plan &plan) {
  Epilogue(op, e, plan).run();
  return success();
}

std::unique_ptr<Pass> createExpandEpiloguePass() {
  return std::make_unique<ExpandPass<qtile::EpilogueOp>>(
      "expand-epilogue", "expand qtile.epilogue to scalar code and stores on fragments", expandEpilogue);
}

/// Rows beyond the live ones are written as zeros; every thread of the grid's producers takes a share.
static LogicalResult expandTail(qtile::TailOp op, Emitter &e, const Plan &) {
  auto program = op->getParentOfType<qtile::ProgramOp>();
  Value live = e.load(e.i32(), e.at(op.getOffsets(), e.wide(e.shl(op.getExperts(), 2))), 4);
  Value rows = op.getRows();
  e.ifThen(e.lt(live, rows), [&] {
    Value threads = e.mul(e.sreg("nctaid.x"), 128);
    Value thread = e.add(e.mul(e.sreg("ctaid.x"), 128), e.tid());
    for (auto [operand, columns] : llvm::zip(op.getOperands(), op.getColumns())) {
      Value base = findParam(program, Kind::Pointer, int(operand));
      // Outputs are contiguous: `columns` is the bytes of a line, a multiple of 8 (4 columns of 2 bytes).
      int64_t shift = columns % 16 ? 3 : 4;
      Value line = e.c64(columns), first = e.mul(e.wide(live), line), end = e.mul(e.wide(rows), line);
      auto vector = VectorType::get({int64_t(1) << (shift - 2)}, e.i32());
      Value zero = arith::ConstantOp::create(e.b, e.loc, DenseElementsAttr::get(vector, int32_t(0)));
      auto loop = scf::ForOp::create(e.b, e.loc, e.add(first, e.shl(e.wide(thread), shift)), end,
                                     e.shl(e.wide(threads), shift));
      OpBuilder::InsertionGuard guard(e.b);
      e.b.setInsertionPoint(loop.getBody()->getTerminator());
      e.store(zero, e.at(base, loop.getInductionVar()), 1 << shift);
    }
  });
  return success();
}

std::unique_ptr<Pass> createExpandTailPass() {
  return std::make_unique<ExpandPass<qtile::TailOp>>("expand-tail", "expand qtile.tail to stores of zeros",
                                                     expandTail);
}

} // namespace quern::gpu
