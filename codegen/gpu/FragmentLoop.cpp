// The K loop of decode=ahead: nothing but reads of A fragments, wgmmas, and the barriers of the stages.
//
// Per step of 64 columns four k16 slices. Slice 0 was read in the step before, once its stage was there.
// While it runs, slices 1 to 3 are read, and issued one behind the other; only then the next stage is waited
// for, so that a stage that comes late finds three slices at work. Fences and waits are those of
// expand-multiply: registers of a slice are written only after a wait that proves their last reader done
// (ptxas C7513), and a fence ties them to their wgmma (C7519).
#include "codegen/gpu/Consumer.h"
#include "codegen/gpu/Expand.h"

using namespace mlir;

namespace quern::gpu {
namespace {

struct FragmentLoop {
  Emitter &e;
  const Plan &plan;
  int64_t width;
  Consumer consumer{e, plan, width};
  Value own = {}; // this thread's first fragment in a stage

  /// This thread's fragments of a stage.
  Value fragmentsOf(Value stage) { return e.add(e.mul(stage, plan.codeBytes), own); }
  SmallVector<Value> read(Value fragments, int64_t slice) {
    Type i = e.i32();
    auto op = qtile::FragmentsOp::create(e.b, e.loc, i, i, i, i, fragments, slice);
    return SmallVector<Value>(op->getResults());
  }

  SmallVector<Value> run(Value done) {
    Value tid = e.tid(), thread = e.andi(tid, 127), group = e.add(e.shr(tid, 7), -1);
    own = e.add(e.shl(group, 13), e.shl(thread, 4));
    Value steps = shareOf(e, plan).count; // at least one
    Slot slot = slotOf(e, done, plan.schedule.stages);
    consumer.open(slot);
    SmallVector<Value> init(width / 2, e.cf(0));
    init.append(read(fragmentsOf(slot.stage), 0));
    init.append({slot.stage, slot.parity, slot.stage});
    auto out = e.forLoop(e.c(0), steps, init, [&](Value k, ValueRange carried) -> SmallVector<Value> {
      SmallVector<Value> sums(carried.take_front(width / 2)),
          a[4] = {SmallVector<Value>(carried.slice(width / 2, 4))};
      Slot now{carried[carried.size() - 3], carried[carried.size() - 2]};
      // After the last step this looks at the same stage again: no branch, and nothing is waited for.
      Slot next = nextSlot(e, now, plan.schedule.stages);
      Value more = e.lt(e.add(k, 1), steps);
      Slot ahead{e.select(more, next.stage, now.stage), e.select(more, next.parity, now.parity)};
      consumer.multiply(sums, a[0], now.stage, 0);
      consumer.wait(sums, 1); // the last slice of the step before is done
      consumer.release(carried.back(), e.ge(k, e.c(1)));
      for (int64_t slice = 1; slice < 4; ++slice) a[slice] = read(fragmentsOf(now.stage), slice);
      for (int64_t slice = 1; slice < 4; ++slice) consumer.multiply(sums, a[slice], now.stage, slice);
      consumer.open(ahead);
      consumer.wait(sums, 1); // slice 0 is done: its registers may be written again
      sums.append(read(fragmentsOf(ahead.stage), 0));
      sums.append({next.stage, next.parity, now.stage});
      return sums;
    });
    SmallVector<Value> sums(out.begin(), out.begin() + width / 2);
    consumer.wait(sums, 0);
    consumer.release(out.back());
    return sums;
  }
};

} // namespace

SmallVector<Value> multiplyFragments(Emitter &e, const Plan &plan, int64_t width, Value done) {
  return FragmentLoop{e, plan, width}.run(done);
}

} // namespace quern::gpu
