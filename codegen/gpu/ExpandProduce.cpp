// expand-produce: the producer's K loop, which fills stages with activations, codes and scales.
//
// Where everything is aligned one thread issues all copies: TMA boxes of activations (each CTA of a cluster
// loads its share and multicasts it), linear bulk copies of codes and scales. Where not (a fused gather, edge
// blocks, scales in other orders or types), and for the tables of decode=exact, all 128 threads take part;
// consumers see the same stage in every case.
// Weights that were decoded before (decode=ahead) lie in the order of the stages: one bulk copy a step.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {
namespace {

using Kind = jit::GpuParam::Kind;

struct Producer {
  qtile::ProduceOp op;
  Emitter &e;
  const Plan &plan;
  const Schedule &s = plan.schedule;
  const Facts &f = plan.facts;
  qtile::ProgramOp program = op->getParentOfType<qtile::ProgramOp>();
  bool halved = f.pairing == Pairing::Halved, fused = s.gather == Gather::Fused, ahead = plan.ahead();
  int64_t blocks = s.bm / 64, n64 = f.n / 64, k64 = f.k / 64;
  Value tid = e.tid(), codesOf = {}, scalesOf = {}, zerosOf = {}; // of this tile's expert
  SmallVector<Value> tokens = {}; // fused: line of X for this thread's rows, -1: none

  Value param(Kind kind, int operand, int index = 0) { return findParam(program, kind, operand, index); }
  Value barrier(Value stage, int64_t which) {
    return e.at(e.smem(plan.barriers + 8 * which), e.wide(e.shl(stage, 4)));
  }
  Value stageOf(int64_t base, int64_t bytes, Value stage) {
    return e.at(e.smem(base), e.wide(e.mul(stage, bytes)));
  }

  /// The expert's own array, from the table of addresses.
  Value arrayOf(Kind kind) {
    Value at = e.at(param(kind, f.packed), f.byExpert ? e.wide(e.shl(op.getExpert(), 3)) : e.c64(0));
    return e.load(e.pointer(1), at, 8);
  }

  /// First weight row of block b of the tile.
  Value firstRow(int64_t b) {
    if (!halved) return e.add(e.mul(op.getWeightTile(), s.bm), 64 * b);
    return e.add(e.shl(op.getWeightTile(), 6), b ? f.n / 2 : 0);
  }

  // Activations.

  void loadBoxes(Value stage, Value column) {
    Value map = param(Kind::TensorMap, f.lhs), to = stageOf(0, plan.xBytes, stage);
    Value count = e.shr(op.getWidth(), plan.boxRows == 8 ? 3 : 5), first = e.c(0);
    if (s.cluster > 1) first = e.rem(e.sreg("ctaid.x"), s.cluster * s.split);
    e.forLoop(
        first, count, {},
        [&](Value box, ValueRange) -> SmallVector<Value> {
          Value target = e.at(to, e.wide(e.mul(box, plan.boxRows * 128)));
          Value row = e.add(op.getRow0(), e.mul(box, plan.boxRows));
          SmallVector<Value> operands{target, map, column, row, barrier(stage, 0)};
          if (s.cluster == 1) return e.prim("tma.load2d", operands), SmallVector<Value>();
          operands.push_back(arith::ConstantIntOp::create(e.b, e.loc, e.i16(), (1 << s.cluster) - 1));
          return e.prim("tma.load2d.multicast", operands), SmallVector<Value>();
        },
        s.cluster);
  }

  /// Rows tid / 8 + 16 i of the tile are this thread's; it copies 16 bytes (column chunk tid % 8) of each.
  void findTokens() {
    Value row = e.shr(tid, 3);
    for (int64_t i = 0; i < (s.bn + 15) / 16; ++i) {
      Value r = e.add(row, 16 * i), absolute = e.add(op.getRow0(), r);
      tokens.push_back(e.ifElse(
          e.lt(r, op.getRows()), {e.i32()},
          [&]() -> SmallVector<Value> {
            if (!f.byToken) return {absolute};
            Value at = e.at(param(Kind::RowToken, -1), e.wide(e.shl(absolute, 2)));
            return {e.load(e.i32(), at, 4)};
          },
          [&]() -> SmallVector<Value> { return {e.c(-1)}; })[0]);
    }
  }

  void gather(Value stage, Value column) {
    Value chunk = e.andi(tid, 7), row = e.shr(tid, 3);
    Value to = e.add(e.shl(row, 7), e.shl(e.xori(chunk, e.andi(row, 7)), 4)); // 128-byte swizzle
    Value at = e.add(column, e.shl(chunk, 3));
    Value from = e.at(param(Kind::Pointer, f.lhs), e.wide(e.shl(at, 1)));
    Value stride = e.narrowInt(param(Kind::Stride, f.lhs, 0)), inK = e.lt(at, e.c(f.k));
    Value target = stageOf(0, plan.xBytes, stage);
    for (int64_t i = 0; i < int64_t(tokens.size()); ++i) {
      auto copy = [&] {
        Value valid = e.both(inK, e.ge(tokens[i], e.c(0)));
        Value line = e.select(valid, tokens[i], e.c(0));
        Value bytes = e.mul(e.wide(line), e.wide(stride));
        Value source = e.select(valid, e.at(from, e.shl(bytes, 1)), param(Kind::Pointer, f.lhs));
        e.prim("cp.async16",
               {e.at(target, e.wide(e.add(to, 2048 * i))), source, e.select(valid, e.c(16), e.c(0))});
      };
      if (s.bn < 16) // a stage has less rows than a pass of the warpgroup
        e.ifThen(e.lt(row, e.c(s.bn)), copy);
      else if (i && (16 * i >= 32 || s.bn <= 32)) // rows of a pass that a width may leave out
        e.ifThen(e.lt(e.c(16 * i), op.getWidth()), copy);
      else
        copy();
    }
    e.prim("cp.async.commit", {});
  }

  // Codes.

  /// Bytes that bulk copies of codes will bring in this step, when block b is a whole one.
  Value whole(int64_t b, Value kb) {
    Value first = firstRow(b), inside = e.lt(kb, e.c(k64));
    if (halved && b && (f.n / 2) % 64) return {};
    return e.both(inside, e.lt(first, e.c(n64 * 64)));
  }

  void copyBlock(int64_t b, Value stage, Value kb) {
    Value block = e.shr(firstRow(b), 6);
    if (f.alignedCodes())
      block = e.min(block, e.c(n64 - 1)); // a tile may reach beyond N: masked when it is stored
    Value index = e.add(e.mul(e.wide(block), k64), e.wide(kb));
    e.prim("cp.bulk", {e.at(stageOf(plan.codes, plan.codeBytes, stage), 2048 * b),
                       e.at(codesOf, e.shl(index, 11)), e.c(2048), barrier(stage, 0)});
  }

  /// The byte with codes (n, k) and (n, k + 1), low nibble first, from wherever the gpu layout keeps it; 0
  /// outside.
  Value codeByte(Value n, Value k) {
    Value inside = e.both(e.lt(n, e.c(f.n)), e.lt(k, e.c(f.k)));
    return e.ifElse(
        inside, {e.i32()},
        [&]() -> SmallVector<Value> {
          Value tiled = e.both(e.lt(n, e.c(n64 * 64)), e.lt(k, e.c(k64 * 64)));
          Value inRows = e.lt(n, e.c(n64 * 64));
          Value block = e.add(e.mul(e.wide(e.shr(n, 6)), k64), e.wide(e.shr(k, 6)));
          Value unit = e.shr(e.andi(n, 63), 1), pair = e.shr(e.andi(k, 63), 1);
          Value inBlock =
              e.add(e.add(e.shl(e.shr(pair, 4), 10), e.shl(e.add(e.shl(unit, 2), e.andi(pair, 3)), 3)),
                    e.add(e.shl(e.andi(e.shr(pair, 2), 3), 1), e.andi(n, 1)));
          Value tiledAt = e.add(e.shl(block, 11), e.wide(inBlock));
          int64_t strip = n64 * k64 * 2048, restColumns = f.k - k64 * 64;
          Value columnAt = e.add(e.add(e.mul(e.wide(n), restColumns / 2), strip),
                                 e.wide(e.shr(e.sub(k, e.c(k64 * 64)), 1)));
          Value rowAt = e.add(e.add(e.mul(e.wide(e.sub(n, e.c(n64 * 64))), f.k / 2), n64 * 64 * f.k / 2),
                              e.wide(e.shr(k, 1)));
          Value at = e.select(tiled, tiledAt, e.select(inRows, columnAt, rowAt));
          Value byte =
              arith::ExtUIOp::create(e.b, e.loc, e.i32(), e.load(e.b.getI8Type(), e.at(codesOf, at), 1));
          if (!f.highFirst) return {byte};
          Value swapped = e.ori(e.shl(e.andi(byte, 15), 4), e.shr(byte, 4));
          return {e.select(tiled, byte, swapped)};
        },
        [&]() -> SmallVector<Value> { return {e.c(0)}; })[0];
  }

  /// Thread t fills the two 8-byte slots t of the block: 8 units.
  void gatherBlock(int64_t b, Value stage, Value kb) {
    Value n = e.add(firstRow(b), e.shl(e.shr(tid, 2), 1));
    Value to = e.at(stageOf(plan.codes, plan.codeBytes, stage), e.wide(e.add(e.shl(tid, 3), 2048 * b)));
    for (int64_t word = 0; word < 4; ++word) {
      Value bits = e.c(0);
      for (int64_t half = 0; half < 2; ++half) {
        int64_t j = 2 * word + half;
        Value k = e.add(e.add(e.shl(kb, 6), e.shl(e.andi(tid, 3), 1)), 8 * j);
        Value unit = e.ori(codeByte(n, k), e.shl(codeByte(e.add(n, 1), k), 8));
        bits = e.ori(bits, e.shl(unit, 16 * half));
      }
      e.store(bits, e.at(to, 1024 * (word / 2) + 4 * (word % 2)), 4);
    }
  }

  /// The whole stage's A fragments. With a cluster a tile may lie beyond the last one: it is not stored.
  void copyFragments(Value stage, Value kb) {
    int64_t tiles = f.weightTiles(s);
    Value tile = s.cluster > 1 ? e.min(op.getWeightTile(), e.c(tiles - 1)) : op.getWeightTile();
    Value index = e.wide(tile);
    if (f.byExpert) index = e.add(index, e.mul(e.wide(op.getExpert()), tiles));
    index = e.add(e.mul(index, f.steps()), e.wide(kb));
    e.prim("cp.bulk", {stageOf(plan.codes, plan.codeBytes, stage),
                       e.at(param(Kind::Decoded, -1), e.mul(index, plan.codeBytes)), e.c(plan.codeBytes),
                       barrier(stage, 0)});
  }

  // Scales.

  /// One copy when the tile's rows are neighbours and inside, else 64 rows at a time.
  void copyScales(Value stage, Value kb) {
    auto copy = [&](int64_t b, Value first, int64_t bytes) {
      Value index = e.add(e.mul(e.wide(kb), f.n), e.wide(first));
      e.prim("cp.bulk", {e.at(stageOf(plan.scales, plan.scaleBytes, stage), 256 * b),
                         e.at(scalesOf, e.shl(index, 2)), e.c(bytes), barrier(stage, 0)});
    };
    auto blockwise = [&] {
      for (int64_t b = 0; b < blocks; ++b) copy(b, e.min(firstRow(b), e.c(f.n - 64)), 256);
      return SmallVector<Value>();
    };
    if (halved || f.n < s.bm) return void(blockwise());
    auto whole = [&] { return copy(0, firstRow(0), plan.scaleBytes), SmallVector<Value>(); };
    if (f.n % s.bm == 0 && s.cluster == 1) return void(whole());
    e.ifElse(e.lt(firstRow(0), e.c(f.n - s.bm + 1)), {}, whole, blockwise);
  }

  /// A scale as f32. e8m0: 2^(s - 127), 255 is NaN (OCP Microscaling).
  Value loadScale(Value index) {
    if (f.scale == syntax::ScaleType::F32) return e.load(e.f32(), e.at(scalesOf, e.shl(index, 2)), 4);
    if (f.scale == syntax::ScaleType::BF16) return e.loadFloat(DType::BF16, e.at(scalesOf, e.shl(index, 1)));
    Value byte =
        arith::ExtUIOp::create(e.b, e.loc, e.i32(), e.load(e.b.getI8Type(), e.at(scalesOf, index), 1));
    Value bits = e.select(e.eq(byte, 0), e.c(0x00400000), e.shl(byte, 23));
    return e.bitcast(e.select(e.eq(byte, 255), e.c(0x7fc00000), bits), e.f32());
  }

  /// This thread's row `local` of the tile, as a weight row.
  Value weightRow(Value local) {
    if (!halved) return e.add(e.mul(op.getWeightTile(), s.bm), local);
    return e.add(e.add(e.shl(op.getWeightTile(), 6), e.andi(local, 63)), e.mul(e.shr(local, 6), f.n / 2));
  }

  /// Scales, each with its zero point where there are any, of rows tid and tid + 128 in step `kb`; 0 outside.
  SmallVector<Value> loadScales(Value kb) {
    bool tiled = f.block == 64 && f.k % 64 == 0;
    SmallVector<Value> out;
    for (int64_t first = 0; first < s.bm; first += 128) {
      Value local = e.add(tid, first), n = weightRow(local), inTile = e.lt(local, e.c(s.bm));
      for (int64_t i = 0; i < f.scalesPerStep(); ++i) {
        Value k = e.add(e.shl(kb, 6), 32 * i);
        Value inside = e.both(inTile, e.both(e.lt(n, e.c(f.n)), e.lt(k, e.c(f.k))));
        SmallVector<Type> types(f.zero ? 2 : 1, e.f32());
        out.append(e.ifElse(
            inside, types,
            [&]() -> SmallVector<Value> {
              Value flat = e.add(e.mul(e.wide(n), f.k), e.wide(k));
              Value index = tiled ? e.add(e.mul(e.wide(kb), f.n), e.wide(n)) : e.div(flat, f.block);
              SmallVector<Value> values{loadScale(index)};
              if (f.zero) {
                Value byte = e.load(e.b.getI8Type(), e.at(zerosOf, index), 1);
                values.push_back(arith::UIToFPOp::create(e.b, e.loc, e.f32(), byte));
              }
              return values;
            },
            [&]() -> SmallVector<Value> { return SmallVector<Value>(types.size(), e.cf(0)); }));
      }
    }
    return out;
  }

  /// Scales are read for this many steps at a time, one such group ahead of their use: a narrow tile's step
  /// is shorter than a read of memory. (A queue of single steps would not do: moving a register that is still
  /// on its way waits for it.) At most 8 registers hold both groups, if a step needs no more.
  int64_t scaleGroup() const {
    int64_t each = f.scalesPerStep() * (f.zero ? 2 : 1) * ((s.bm + 127) / 128);
    return each == 1 ? 4 : each == 2 ? 2 : 1;
  }

  SmallVector<Value> loadGroup(Value kb) {
    SmallVector<Value> out;
    for (int64_t i = 0; i < scaleGroup(); ++i) out.append(loadScales(e.add(kb, i)));
    return out;
  }

  /// `carried`: this group's scales and the next one's, which becomes this one's at its first step.
  SmallVector<Value> rotate(Value i, Value kb, ValueRange carried) {
    int64_t group = scaleGroup(), half = carried.size() / 2;
    SmallVector<Type> types(carried.size(), e.f32());
    return e.ifElse(
        e.eq(e.rem(i, group), 0), types,
        [&] {
          SmallVector<Value> out(carried.drop_front(half));
          out.append(loadGroup(e.add(kb, group)));
          return out;
        },
        [&] { return SmallVector<Value>(carried); });
  }

  /// The scales of step `i` of this group.
  SmallVector<Value> scalesOfStep(Value i, ValueRange group) {
    int64_t count = scaleGroup(), each = group.size() / count;
    Value at = e.rem(i, count);
    SmallVector<Value> out(group.take_front(each));
    for (int64_t step = 1; step < count; ++step)
      for (int64_t v = 0; v < each; ++v) out[v] = e.select(e.eq(at, step), group[step * each + v], out[v]);
    return out;
  }

  /// What loadScales read, as fp32 or as tables of products (decode=exact).
  void storeScales(Value stage, ValueRange values) {
    Value to = stageOf(plan.scales, plan.scaleBytes, stage);
    int64_t perStep = f.scalesPerStep(), kinds = f.zero ? 2 : 1;
    for (int64_t first = 0, next = 0; first < s.bm; first += 128) {
      Value local = e.add(tid, first);
      ValueRange mine = values.slice(next, perStep * kinds);
      next += perStep * kinds;
      auto store = [&] {
        for (int64_t i = 0; i < perStep; ++i) {
          if (s.decode == Decode::Exact) {
            storeTable(e.at(to, e.wide(e.add(e.shl(local, 5), i * s.bm * 32))), mine[i * kinds],
                       f.zero ? mine[i * kinds + 1] : Value());
            continue;
          }
          for (int64_t kind = 0; kind < kinds; ++kind)
            e.store(mine[i * kinds + kind],
                    e.at(to, e.wide(e.add(e.shl(local, 2), (kind * perStep + i) * s.bm * 4))), 4);
        }
      };
      if (first + 128 <= s.bm)
        store();
      else
        e.ifThen(e.lt(local, e.c(s.bm)), store);
    }
  }

  /// The row's 16 products: four words of low bytes, then four of high bytes.
  void storeTable(Value at, Value scale, Value zero) {
    SmallVector<Type> types(8, e.i32());
    auto planes = qtile::TablesOp::create(e.b, e.loc, types, scale, zero).getPlanes();
    auto quad = VectorType::get({4}, e.i32());
    for (int64_t half = 0; half < 2; ++half) {
      Value words = LLVM::UndefOp::create(e.b, e.loc, quad);
      for (int64_t i = 0; i < 4; ++i)
        words = LLVM::InsertElementOp::create(e.b, e.loc, words, planes[4 * half + i], e.c(i));
      e.store(words, e.at(at, 16 * half), 16);
    }
  }

  // One step.

  void elected(Value stage, Value column, Value kb) {
    Value bytes = fused ? e.c(0) : e.shl(op.getWidth(), 7);
    if (ahead) {
      e.prim("mbarrier.expect_tx", {barrier(stage, 0), e.add(bytes, plan.codeBytes)});
      if (!fused) loadBoxes(stage, column);
      return copyFragments(stage, kb);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      if (f.alignedCodes()) {
        bytes = e.add(bytes, 2048);
      } else if (Value is = whole(b, kb)) {
        bytes = e.add(bytes, e.select(is, e.c(2048), e.c(0)));
      }
    }
    if (!plan.storesScales()) bytes = e.add(bytes, plan.scaleBytes);
    e.prim("mbarrier.expect_tx", {barrier(stage, 0), bytes});
    if (!fused) loadBoxes(stage, column);
    for (int64_t b = 0; b < blocks; ++b) {
      if (f.alignedCodes())
        copyBlock(b, stage, kb);
      else if (Value is = whole(b, kb))
        e.ifThen(is, [&] { copyBlock(b, stage, kb); });
    }
    if (!plan.storesScales()) copyScales(stage, kb);
  }

  void together(Value stage, Value column, Value kb, ValueRange scales) {
    if (fused) gather(stage, column);
    if (ahead) return;
    if (!f.alignedCodes())
      for (int64_t b = 0; b < blocks; ++b) {
        Value is = whole(b, kb);
        if (!is)
          gatherBlock(b, stage, kb);
        else
          e.ifThen(e.xori(is, arith::ConstantIntOp::create(e.b, e.loc, e.b.getI1Type(), 1)),
                   [&] { gatherBlock(b, stage, kb); });
      }
    if (plan.storesScales()) storeScales(stage, scales);
  }

  void run() {
    auto loop = [&] {
      if (!ahead) {
        codesOf = arrayOf(Kind::Codes), scalesOf = arrayOf(Kind::Scales);
        if (f.zero) zerosOf = arrayOf(Kind::Zeros);
      }
      if (fused) findTokens();
      Slot slot = slotOf(e, op.getDone(), s.stages);
      Share share = shareOf(e, plan);
      SmallVector<Value> init{slot.stage, slot.parity};
      if (plan.storesScales()) {
        SmallVector<Value> first = loadGroup(share.first);
        init.append(first.size(), e.cf(0)), init.append(first);
      }
      e.forLoop(e.c(0), share.count, init, [&](Value i, ValueRange carried) {
        Slot now{carried[0], carried[1]};
        Value k = e.add(share.first, i);
        SmallVector<Value> groups, scales;
        if (plan.storesScales()) {
          groups = rotate(i, k, carried.drop_front(2));
          scales = scalesOfStep(i, ValueRange(groups).take_front(groups.size() / 2));
        }
        e.prim("mbarrier.wait", {barrier(now.stage, 1), e.xori(now.parity, 1)});
        Value column = e.shl(k, 6);
        if (!plan.wideProducer()) {
          elected(now.stage, column, k);
        } else {
          e.ifThen(e.eq(tid, 0), [&] { elected(now.stage, column, k); });
          together(now.stage, column, k, scales);
          arrive(now.stage, e.add(op.getDone(), i));
        }
        Slot next = nextSlot(e, now, s.stages);
        SmallVector<Value> out{next.stage, next.parity};
        out.append(groups);
        return out;
      });
    };
    if (plan.wideProducer())
      loop();
    else
      e.ifThen(e.eq(tid, 0), loop);
  }

  /// Copies of a fused gather complete `lag` steps later; plain stores are complete when they are made.
  void arrive(Value stage, Value step) {
    if (!fused) {
      // Where one step's codes are stored, a later step's may be copied: another proxy.
      if (!f.alignedCodes()) e.prim("fence.proxy.async", {});
      return void(e.prim("mbarrier.arrive", {barrier(stage, 0)}));
    }
    int64_t lag = plan.gatherLag();
    e.prim("cp.async.wait." + std::to_string(lag), {});
    e.prim("fence.proxy.async", {});
    e.ifThen(e.ge(step, e.c(lag)),
             [&] { e.prim("mbarrier.arrive", {barrier(e.rem(e.sub(step, e.c(lag)), s.stages), 0)}); });
  }
};

} // namespace

static LogicalResult expandProduce(qtile::ProduceOp op, Emitter &e, const Plan &plan) {
  Producer{op, e, plan}.run();
  return success();
}

std::unique_ptr<Pass> createExpandProducePass() {
  return std::make_unique<ExpandPass<qtile::ProduceOp>>(
      "expand-produce", "expand qtile.produce to the producer's copies", expandProduce);
}

/// The last steps of a fused gather: wait for all copies, then arrive for each step still owed.
static LogicalResult expandDrain(qtile::DrainOp op, Emitter &e, const Plan &plan) {
  if (plan.schedule.gather != Gather::Fused) return success();
  int64_t lag = plan.gatherLag();
  e.prim("cp.async.wait.0", {});
  e.prim("fence.proxy.async", {});
  for (int64_t i = lag; i >= 1; --i) {
    Value step = e.sub(op.getDone(), e.c(i));
    e.ifThen(e.ge(step, e.c(0)), [&] {
      Value at = e.wide(e.shl(e.rem(step, plan.schedule.stages), 4));
      e.prim("mbarrier.arrive", {e.at(e.smem(plan.barriers), at)});
    });
  }
  return success();
}

std::unique_ptr<Pass> createExpandDrainPass() {
  return std::make_unique<ExpandPass<qtile::DrainOp>>("expand-drain",
                                                      "expand qtile.drain to the last arrivals", expandDrain);
}

} // namespace quern::gpu
