// expand-multiply: the K loop of a consumer warpgroup.
//
// Per step of 64 columns: four k16 slices, each decoded while the tensor cores work on the one before. A
// slice's codes are read from the stage only behind the wgmma before it: ptxas moves ALU work above a wgmma,
// but not such a read. The next step is opened behind the third slice; its first slice is decoded under this
// step's last one, which is waited for only behind the next step's second: there is always a wgmma in flight.
// Registers of a slice are written only after a fence that ties them (ptxas C7519), and the carried ones only
// after a wait that proves their last reader done (C7513).
#include "codegen/gpu/Consumer.h"
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {
namespace {

struct Loop {
  Emitter &e;
  const Plan &plan;
  int64_t width;
  Consumer consumer;
  const Schedule &s = plan.schedule;
  const Facts &f = plan.facts;
  bool halved = f.pairing == Pairing::Halved;
  int64_t perStep = f.scalesPerStep();
  Value rows;                      // allocated rows, a parameter
  Value thread, group, warp, g, c; // of the warpgroup: thread, index; of the warp: index, lane / 4, lane % 4
  Value codeAt, rowAt;             // in a stage: this thread's codes, bytes; the row that it has at MMA row g
  Value order, selector, lanePairs;
  SmallVector<Value> planes;

  Loop(Emitter &emitter, const Plan &program, int64_t n, Value allRows)
      : e(emitter), plan(program), width(n), consumer(emitter, program, n), rows(allRows) {}

  void prepare() {
    Value tid = e.tid();
    thread = e.andi(tid, 127), group = e.add(e.shr(tid, 7), -1);
    warp = e.shr(thread, 5);
    Value lane = e.andi(tid, 31);
    g = e.shr(lane, 2), c = e.andi(lane, 3);
    if (halved) { // half a warpgroup's rows from the gate block, half from the up block
      Value unit = e.add(e.add(e.shl(group, 4), e.shl(warp, 2)), e.shr(g, 1));
      codeAt = e.shl(e.add(e.shl(unit, 2), c), 3);
      rowAt = e.add(e.add(e.shl(group, 5), e.shl(warp, 3)), g);
      selector = e.select(e.eq(e.andi(g, 1), 0), e.c(0x6420), e.c(0x7531));
    } else {
      codeAt = e.add(e.shl(group, 11), e.shl(thread, 3));
      rowAt = e.add(e.shl(group, 6), e.add(e.shl(warp, 4), e.shl(g, 1)));
    }
    lanePairs = e.shl(e.andi(tid, 31), 3);
    // A register of each thread, not an immediate, so that one LOP3 takes it and the mask: rows are below
    // 2^30.
    order = e.xori(e.shr(e.add(rows, tid), 31), 0x32103210);
    if (s.decode == Decode::Fast) constantPlanes();
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

  Value part(Value v, int i) { return LLVM::ExtractElementOp::create(e.b, e.loc, v, e.c(i)); }

  /// Codes of a slice.
  Value loadWord(Value stage, int64_t slice) {
    Value at = e.at(e.smem(plan.codes), e.wide(e.add(e.mul(stage, plan.codeBytes), codeAt)));
    at = e.at(at, 1024 * (slice / 2) + 4 * (slice % 2));
    Value word = e.load(e.i32(), at, 4);
    if (s.decode == Decode::Pairs && !halved) return word;
    Value upper = halved ? e.load(e.i32(), e.at(at, 2048), 4) : Value();
    return qtile::ArrangeOp::create(e.b, e.loc, e.i32(), word, upper, halved ? selector : Value());
  }

  /// What decoding needs for half `half` of a step, or for all of it, of MMA rows g and g + 8: 8 byte planes
  /// each (exact), or scales (and zero points) as fp32 (pairs) or as 16-bit pairs (fast).
  SmallVector<Value> loadRows(Value stage, int64_t half) {
    SmallVector<Value> out;
    int64_t bytes = s.decode == Decode::Exact ? 32 : 4, apart = bytes * (halved ? 64 : 1);
    Value at = e.at(e.smem(plan.scales), e.wide(e.add(e.mul(stage, plan.scaleBytes), e.mul(rowAt, bytes))));
    if (s.decode == Decode::Exact) {
      Type quad = VectorType::get({4}, e.i32());
      at = e.at(at, half * s.bm * 32);
      for (int64_t i = 0; i < 4; ++i) {
        Value v = e.load(quad, e.at(at, i / 2 * apart + 16 * (i % 2)), 16);
        for (int j = 0; j < 4; ++j) out.push_back(part(v, j));
      }
      return out;
    }
    for (int64_t kind = 0; kind < (f.zero ? 2 : 1); ++kind) {
      Value of = e.at(at, (kind * perStep + half) * s.bm * 4);
      if (halved) {
        for (int64_t row = 0; row < 2; ++row) out.push_back(e.load(e.f32(), e.at(of, row * apart), 4));
      } else {
        Value v = e.load(VectorType::get({2}, e.f32()), of, 8);
        out.append({part(v, 0), part(v, 1)});
      }
    }
    if (s.decode == Decode::Fast)
      for (Value &scale : out) scale = e.pack(f.act, scale, scale);
    return out;
  }

  /// A registers of a slice, from its word and what loadRows gave.
  SmallVector<Value> decode(Value word, ValueRange of) {
    Type i = e.i32();
    if (s.decode == Decode::Pairs) {
      Value zero0 = f.zero ? of[2] : Value(), zero1 = f.zero ? of[3] : Value();
      auto op =
          qtile::DecodePairsOp::create(e.b, e.loc, i, i, i, i, word, lanePairs, of[0], of[1], zero0, zero1);
      return SmallVector<Value>(op->getResults());
    }
    bool fast = s.decode == Decode::Fast;
    ValueRange first = fast ? ValueRange(planes) : of.take_front(8),
               second = fast ? ValueRange(planes) : of.drop_front(8);
    auto op = qtile::DecodeOp::create(e.b, e.loc, i, i, i, i, word, order, first, second,
                                      fast ? of[0] : Value(), fast ? of[1] : Value());
    return SmallVector<Value>(op->getResults());
  }

  /// What the loop carries of a step: the words of its first half, and what decodes them.
  SmallVector<Value> readAhead(Value stage) {
    SmallVector<Value> out{loadWord(stage, 0), loadWord(stage, 1)};
    out.append(loadRows(stage, 0));
    return out;
  }

  SmallVector<Value> run(Value done) {
    prepare();
    Value steps = shareOf(e, plan).count; // at least one
    Slot slot = slotOf(e, done, s.stages);
    consumer.open(slot);
    SmallVector<Value> init(width / 2, e.cf(0)), first = readAhead(slot.stage);
    init.append(decode(first[0], ValueRange(first).drop_front(2)));
    init.append(first);
    init.append({slot.stage, slot.parity, slot.stage});
    auto out = e.forLoop(e.c(0), steps, init, [&](Value k, ValueRange carried) -> SmallVector<Value> {
      SmallVector<Value> acc(carried.take_front(width / 2)), a(carried.slice(width / 2, 4));
      ValueRange step = carried.drop_front(width / 2 + 4).drop_back(3);
      SmallVector<Value> decoders(step.drop_front(2));
      Slot now{carried[carried.size() - 3], carried[carried.size() - 2]};
      Value before = carried.back();
      // After the last step this looks at the same stage again: no branch, and nothing is waited for.
      Slot next = nextSlot(e, now, s.stages);
      Value more = e.lt(e.add(k, 1), steps);
      Slot ahead{e.select(more, next.stage, now.stage), e.select(more, next.parity, now.parity)};
      consumer.multiply(acc, a, now.stage, 0);
      a = decode(step[1], decoders);
      consumer.multiply(acc, a, now.stage, 1);
      Value word = loadWord(now.stage, 2);
      if (perStep == 2) decoders = loadRows(now.stage, 1);
      consumer.wait(acc, 2); // the last slice of the step before is done
      consumer.release(before, e.ge(k, e.c(1)));
      a = decode(word, decoders);
      consumer.multiply(acc, a, now.stage, 2);
      word = loadWord(now.stage, 3);
      consumer.open(ahead);
      a = decode(word, decoders);
      SmallVector<Value> loaded = readAhead(ahead.stage);
      consumer.multiply(acc, a, now.stage, 3);
      consumer.wait(acc, 1); // slice 0 is done: its registers may be written again
      acc.append(decode(loaded[0], ValueRange(loaded).drop_front(2)));
      acc.append(loaded);
      acc.append({next.stage, next.parity, now.stage});
      return acc;
    });
    Value last = out.back();
    SmallVector<Value> acc(out.begin(), out.begin() + width / 2);
    consumer.wait(acc, 0);
    consumer.release(last);
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
