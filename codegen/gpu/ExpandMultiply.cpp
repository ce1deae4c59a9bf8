// expand-multiply: the K loop of a consumer warpgroup.
//
// Per step of 64 columns: four k16 slices, each decoded while the tensor cores work on the one before. The
// next step is opened early: its barrier is waited for after the first slice, its codes, scales and product
// tables are read while the slices run, and its first slice is decoded under the last one, which is waited
// for only behind the next step's first: there is always a wgmma in flight. Registers of a slice are written
// only after a fence that ties them (ptxas C7519), and the carried ones only after a wait that proves their
// last reader done (C7513).
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {
namespace {

struct Loop {
  Emitter &e;
  const Plan &plan;
  int64_t width;
  const Schedule &s = plan.schedule;
  const Facts &f = plan.facts;
  bool halved = f.pairing == Pairing::Halved;
  int64_t perStep = f.scalesPerStep();
  static constexpr int64_t wordCount = 4;
  Value rows;                      // allocated rows, a parameter
  Value thread, group, warp, g, c; // of the warpgroup: thread, index; of the warp: index, lane / 4, lane % 4
  Value codeAt, scaleAt;           // this thread's offsets in a stage
  Value twist, order, selector, lanePairs, smemBase;
  SmallVector<Value> entries, planes;

  Loop(Emitter &emitter, const Plan &program, int64_t n, Value allRows)
      : e(emitter), plan(program), width(n), rows(allRows) {}

  Value full(Value stage) { return e.at(e.smem(plan.barriers), e.wide(e.shl(stage, 4))); }
  Value empty(Value stage) { return e.at(e.smem(plan.barriers + 8), e.wide(e.shl(stage, 4))); }

  void prepare() {
    Value tid = e.tid();
    thread = e.andi(tid, 127), group = e.add(e.shr(tid, 7), -1);
    warp = e.shr(thread, 5);
    Value lane = e.andi(tid, 31);
    g = e.shr(lane, 2), c = e.andi(lane, 3);
    if (halved) { // half a warpgroup's rows from the gate block, half from the up block
      Value unit = e.add(e.add(e.shl(group, 4), e.shl(warp, 2)), e.shr(g, 1));
      codeAt = e.shl(e.add(e.shl(unit, 2), c), 3);
      scaleAt = e.shl(e.add(e.add(e.shl(group, 5), e.shl(warp, 3)), g), 2);
      selector = e.select(e.eq(e.andi(g, 1), 0), e.c(0x6420), e.c(0x7531));
    } else {
      codeAt = e.add(e.shl(group, 11), e.shl(thread, 3));
      scaleAt = e.shl(e.add(e.shl(group, 6), e.add(e.shl(warp, 4), e.shl(g, 1))), 2);
    }
    smemBase = LLVM::PtrToIntOp::create(e.b, e.loc, e.i32(), e.smem(0));
    if (s.decode == Decode::Exact) {
      twist = e.mul(c, 0x44444444);
      for (int i = 0; i < 4; ++i) { // table entries 4c + i
        Value v = e.cf(f.table[i]);
        for (int block = 1; block < 4; ++block) v = e.select(e.eq(c, block), e.cf(f.table[4 * block + i]), v);
        entries.push_back(v);
      }
      order = e.xori(e.andi(e.shr(twist, 1), 0x44444444), 0x32103210);
    } else if (s.decode == Decode::Pairs) {
      lanePairs = e.shl(e.andi(tid, 15), 3);
    } else {
      twist = e.c(0);
      // A register, not an immediate, so that one LOP3 takes it and the mask: rows are never negative.
      order = e.xori(e.shr(rows, 31), 0x32103210);
      constantPlanes();
    }
  }

  /// Byte planes of the rounded table (fast mode).
  void constantPlanes() {
    const llvm::fltSemantics &semantics = f.act == DType::BF16 ? APFloat::BFloat() : APFloat::IEEEhalf();
    for (int shift : {0, 8})
      for (int word = 0; word < 4; ++word) {
        uint32_t bits = 0;
        for (int i = 0; i < 4; ++i) {
          APFloat v(f.table[4 * word + i]);
          bool lost;
          v.convert(semantics, APFloat::rmNearestTiesToEven, &lost);
          bits |= uint32_t((v.bitcastToAPInt().getZExtValue() >> shift) & 0xff) << (8 * i);
        }
        planes.push_back(e.c(bits));
      }
  }

  /// Codes (4 arranged words), then scales (then zeros) of rows g and g + 8 for each scale of the step.
  SmallVector<Value> loadStep(Value stage) {
    SmallVector<Value> out;
    Type pair = VectorType::get({2}, e.i32()), floats = VectorType::get({2}, e.f32());
    auto part = [&](Value v, int i) {
      return LLVM::ExtractElementOp::create(e.b, e.loc, v, e.c(i)).getResult();
    };
    Value at = e.at(e.smem(plan.codes), e.wide(e.add(e.mul(stage, plan.codeBytes), codeAt)));
    for (int64_t half = 0; half < 2; ++half) {
      Value word = e.load(pair, e.at(at, 1024 * half), 8);
      Value upper = halved ? e.load(pair, e.at(at, 2048 + 1024 * half), 8) : Value();
      for (int i = 0; i < 2; ++i)
        out.push_back(s.decode == Decode::Pairs && !halved
                          ? part(word, i)
                          : qtile::ArrangeOp::create(e.b, e.loc, e.i32(), part(word, i),
                                                     halved ? part(upper, i) : Value(),
                                                     halved ? selector : Value())
                                .getResult());
    }
    Value scale = e.at(e.smem(plan.scales), e.wide(e.add(e.mul(stage, plan.scaleBytes), scaleAt)));
    for (int64_t kind = 0; kind < (f.zero ? 2 : 1); ++kind)
      for (int64_t i = 0; i < perStep; ++i) {
        int64_t offset = (kind * perStep + i) * s.bm * 4;
        if (halved) {
          out.push_back(e.load(e.f32(), e.at(scale, offset), 4));
          out.push_back(e.load(e.f32(), e.at(scale, offset + 256), 4));
        } else {
          Value v = e.load(floats, e.at(scale, offset), 8);
          out.append({part(v, 0), part(v, 1)});
        }
      }
    return out;
  }

  /// What decoding needs for half `i` of a step (or the whole step): planes of the two rows, or scale pairs.
  struct Rows {
    SmallVector<Value> first, second;
    Value scale0, scale1, zero0, zero1;
  };
  Rows rowsOf(ValueRange step, int64_t i) {
    Rows rows;
    Value s0 = step[wordCount + 2 * i], s1 = step[wordCount + 2 * i + 1];
    if (s.decode == Decode::Fast) {
      rows.first = rows.second = planes;
      rows.scale0 = e.pack(f.act, s0, s0), rows.scale1 = e.pack(f.act, s1, s1);
      return rows;
    }
    auto zeroOf = [&](int64_t row) { return f.zero ? step[wordCount + 2 * perStep + 2 * i + row] : Value(); };
    if (s.decode == Decode::Pairs) {
      rows.scale0 = s0, rows.scale1 = s1, rows.zero0 = zeroOf(0), rows.zero1 = zeroOf(1);
      return rows;
    }
    SmallVector<Type> planeTypes(8, e.i32());
    auto tables = [&](Value scale, int64_t row) {
      auto op = qtile::TablesOp::create(e.b, e.loc, planeTypes, scale, zeroOf(row), entries);
      return SmallVector<Value>(op->getResults());
    };
    rows.first = tables(s0, 0), rows.second = tables(s1, 1);
    return rows;
  }

  SmallVector<Value> decode(ValueRange step, int slice, const Rows &rows) {
    if (s.decode == Decode::Pairs) {
      auto op = qtile::DecodePairsOp::create(e.b, e.loc, e.i32(), e.i32(), e.i32(), e.i32(), step[slice],
                                             lanePairs, rows.scale0, rows.scale1, rows.zero0, rows.zero1);
      return SmallVector<Value>(op->getResults());
    }
    auto op = qtile::DecodeOp::create(e.b, e.loc, e.i32(), e.i32(), e.i32(), e.i32(), step[slice], twist,
                                      order, rows.first, rows.second, rows.scale0, rows.scale1);
    return SmallVector<Value>(op->getResults());
  }

  void multiply(SmallVectorImpl<Value> &acc, SmallVectorImpl<Value> &a, Value descriptor) {
    SmallVector<Value> all(acc.begin(), acc.end());
    all.append(a.begin(), a.end());
    SmallVector<Type> types(ValueRange(all).getTypes());
    all = e.prim("wgmma.fence.n" + std::to_string(acc.size()) + ".a4", all, types);
    all.push_back(descriptor);
    SmallVector<Type> accTypes(acc.size(), e.f32());
    std::string name = f.act == DType::BF16 ? "wgmma.bf16.n" : "wgmma.f16.n";
    auto next = e.prim(name + std::to_string(width), all, accTypes);
    acc.assign(next.begin(), next.end());
    e.prim("wgmma.commit", {});
  }

  void wait(SmallVectorImpl<Value> &acc, int pending) {
    SmallVector<Type> types(acc.size(), e.f32());
    auto next =
        e.prim("wgmma.wait." + std::to_string(pending) + ".n" + std::to_string(acc.size()), acc, types);
    acc.assign(next.begin(), next.end());
  }

  /// K-major B operand, 128-byte swizzle: start address, leading offset 16 bytes (unused), 1024 bytes between
  /// groups of 8 rows (PTX ISA, matrix descriptor).
  Value descriptor(Value stage, int slice) {
    Value address = e.add(e.add(smemBase, e.mul(stage, plan.xBytes)), 32 * slice);
    Value start = e.wide(e.shr(e.andi(address, 0x3ffff), 4));
    return e.ori(start, int64_t((1ull << 62) | (64ull << 32) | (1ull << 16)));
  }

  /// Each warp says that it is done with the stage, to every CTA whose copies may land in it; `condition` is
  /// uniform in the warp.
  void release(Value stage, Value condition = {}) {
    e.intrinsic("llvm.nvvm.bar.warp.sync", {e.c(-1)});
    Value first = e.eq(e.andi(e.tid(), 31), 0);
    e.ifThen(condition ? e.both(condition, first) : first, [&] {
      if (s.cluster == 1) return void(e.prim("mbarrier.arrive", {empty(stage)}));
      for (int64_t rank = 0; rank < s.cluster; ++rank)
        e.prim("mbarrier.arrive.cluster", {empty(stage), e.c(rank)});
    });
  }

  /// A step as the loop carries it: words of codes, what decodes the first half, raw scales of the second
  /// half.
  SmallVector<Value> readAhead(Value stage) {
    SmallVector<Value> loaded = loadStep(stage), out(loaded.begin(), loaded.begin() + wordCount);
    Rows rows = rowsOf(loaded, 0);
    if (s.decode == Decode::Exact)
      out.append(rows.first), out.append(rows.second);
    else
      out.append({rows.scale0, rows.scale1});
    if (rows.zero0) out.append({rows.zero0, rows.zero1});
    if (perStep == 2)
      for (size_t i = wordCount; i < loaded.size(); ++i) out.push_back(loaded[i]);
    return out;
  }

  static void append(SmallVectorImpl<Value> &to, ValueRange values) {
    to.append(values.begin(), values.end());
  }

  Rows carriedRows(ValueRange step) {
    Rows rows;
    if (s.decode == Decode::Exact) {
      append(rows.first, step.slice(wordCount, 8));
      append(rows.second, step.slice(wordCount + 8, 8));
    } else {
      rows.first = rows.second = planes;
      rows.scale0 = step[wordCount], rows.scale1 = step[wordCount + 1];
      if (s.decode == Decode::Pairs && f.zero)
        rows.zero0 = step[wordCount + 2], rows.zero1 = step[wordCount + 3];
    }
    return rows;
  }

  /// The second half's rows, from the raw scales at the end of a carried step.
  Rows secondRows(ValueRange step) {
    size_t raw = 2 * perStep * (f.zero ? 2 : 1);
    SmallVector<Value> loaded;
    append(loaded, step.take_front(wordCount));
    append(loaded, step.take_back(raw));
    return rowsOf(loaded, 1);
  }

  SmallVector<Value> run(Value done) {
    prepare();
    Value steps = shareOf(e, plan).count; // at least one
    Slot slot = slotOf(e, done, s.stages);
    e.prim("mbarrier.wait", {full(slot.stage), slot.parity});
    SmallVector<Value> init(width / 2, e.cf(0)), first = readAhead(slot.stage);
    init.append(decode(first, 0, carriedRows(first)));
    init.append(first);
    init.append({slot.stage, slot.parity, slot.stage});
    auto out = e.forLoop(e.c(0), steps, init, [&](Value k, ValueRange carried) -> SmallVector<Value> {
      SmallVector<Value> acc(carried.take_front(width / 2)), a(carried.slice(width / 2, 4));
      ValueRange step = carried.drop_front(width / 2 + 4).drop_back(3);
      Slot now{carried[carried.size() - 3], carried[carried.size() - 2]};
      Value before = carried.back();
      // After the last step this looks at the same stage again: no branch, and nothing is waited for.
      Slot next = nextSlot(e, now, s.stages);
      Value more = e.lt(e.add(k, 1), steps);
      Slot ahead{e.select(more, next.stage, now.stage), e.select(more, next.parity, now.parity)};
      Rows rows = carriedRows(step);
      multiply(acc, a, descriptor(now.stage, 0));
      wait(acc, 1); // the last slice of the step before is done
      release(before, e.ge(k, e.c(1)));
      e.prim("mbarrier.wait", {full(ahead.stage), ahead.parity});
      a = decode(step, 1, rows);
      multiply(acc, a, descriptor(now.stage, 1));
      SmallVector<Value> loaded = readAhead(ahead.stage);
      if (perStep == 2) rows = secondRows(step);
      a = decode(step, 2, rows);
      multiply(acc, a, descriptor(now.stage, 2));
      a = decode(step, 3, rows);
      multiply(acc, a, descriptor(now.stage, 3));
      wait(acc, 1); // slice 0 is done: its registers may be written again
      acc.append(decode(loaded, 0, carriedRows(loaded)));
      acc.append(loaded);
      acc.append({next.stage, next.parity, now.stage});
      return acc;
    });
    Value last = out.back();
    SmallVector<Value> acc(out.begin(), out.begin() + width / 2);
    wait(acc, 0);
    release(last);
    return acc;
  }
};

} // namespace

static LogicalResult expandMultiply(qtile::MultiplyOp op, Emitter &e, const Plan &plan) {
  if (plan.ahead()) {
    op.replaceAllUsesWith(multiplyFragments(e, plan, op.getWidth(), op.getDone()));
    return success();
  }
  auto program = op->getParentOfType<qtile::ProgramOp>();
  Loop loop(e, plan, op.getWidth(), findParam(program, jit::GpuParam::Rows));
  op.replaceAllUsesWith(loop.run(op.getDone()));
  return success();
}

std::unique_ptr<Pass> createExpandMultiplyPass() {
  return std::make_unique<ExpandPass<qtile::MultiplyOp>>(
      "expand-multiply", "expand qtile.multiply to the K loop of decode and wgmma", expandMultiply);
}

} // namespace quern::gpu
