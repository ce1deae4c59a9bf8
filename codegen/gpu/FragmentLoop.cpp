// The K loop of decode=ahead: nothing but reads of A fragments, wgmmas, and the barriers of the stages.
//
// Per step of 64 columns four k16 slices. Slice 0 was read in the step before, once its stage was there.
// While it runs, slices 1 to 3 are read, and issued one behind the other; only then the next stage is waited
// for, so that a stage that comes late finds three slices at work. Fences and waits are those of
// expand-multiply: registers of a slice are written only after a wait that proves their last reader done
// (ptxas C7513), and a fence ties them to their wgmma (C7519).
#include "codegen/gpu/Expand.h"

using namespace mlir;

namespace quern::gpu {
namespace {

struct FragmentLoop {
  Emitter &e;
  const Plan &plan;
  int64_t width;
  const Schedule &s = plan.schedule;
  Value own, base; // this thread's first fragment in a stage; the start of shared memory as a number

  Value full(Value stage) { return e.at(e.smem(plan.barriers), e.wide(e.shl(stage, 4))); }
  Value empty(Value stage) { return e.at(e.smem(plan.barriers + 8), e.wide(e.shl(stage, 4))); }
  void open(const Slot &slot) { e.prim("mbarrier.wait", {full(slot.stage), slot.parity}); }

  /// This thread's fragments of a stage.
  Value fragmentsOf(Value stage) { return e.add(e.mul(stage, plan.codeBytes), own); }
  SmallVector<Value> read(Value fragments, int64_t slice) {
    Type i = e.i32();
    auto op = qtile::FragmentsOp::create(e.b, e.loc, i, i, i, i, fragments, slice);
    return SmallVector<Value>(op->getResults());
  }

  /// K-major B operand, 128-byte swizzle: start address, leading offset 16 bytes (unused), 1024 bytes between
  /// groups of 8 rows (PTX ISA, matrix descriptor).
  Value descriptor(Value stage, int64_t slice) {
    Value address = e.add(e.add(base, e.mul(stage, plan.xBytes)), 32 * slice);
    Value start = e.wide(e.shr(e.andi(address, 0x3ffff), 4));
    return e.ori(start, int64_t((1ull << 62) | (64ull << 32) | (1ull << 16)));
  }

  void multiply(SmallVectorImpl<Value> &sums, ValueRange a, Value descriptor) {
    SmallVector<Value> all(sums.begin(), sums.end());
    all.append(a.begin(), a.end());
    SmallVector<Type> tied(ValueRange(all).getTypes()), types(sums.size(), e.f32());
    all = e.prim("wgmma.fence.n" + std::to_string(sums.size()) + ".a4", all, tied);
    all.push_back(descriptor);
    StringRef name = plan.facts.act == DType::BF16 ? "wgmma.bf16.n" : "wgmma.f16.n";
    auto next = e.prim((name + std::to_string(width)).str(), all, types);
    sums.assign(next.begin(), next.end());
    e.prim("wgmma.commit", {});
  }

  /// At most `pending` wgmmas are still at work.
  void wait(SmallVectorImpl<Value> &sums, int pending) {
    SmallVector<Type> types(sums.size(), e.f32());
    auto next =
        e.prim("wgmma.wait." + std::to_string(pending) + ".n" + std::to_string(sums.size()), sums, types);
    sums.assign(next.begin(), next.end());
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

  SmallVector<Value> run(Value done) {
    Value tid = e.tid(), thread = e.andi(tid, 127), group = e.add(e.shr(tid, 7), -1);
    own = e.add(e.shl(group, 13), e.shl(thread, 4));
    base = LLVM::PtrToIntOp::create(e.b, e.loc, e.i32(), e.smem(0));
    Value steps = shareOf(e, plan).count; // at least one
    Slot slot = slotOf(e, done, s.stages);
    open(slot);
    SmallVector<Value> init(width / 2, e.cf(0));
    init.append(read(fragmentsOf(slot.stage), 0));
    init.append({slot.stage, slot.parity, slot.stage});
    auto out = e.forLoop(e.c(0), steps, init, [&](Value k, ValueRange carried) -> SmallVector<Value> {
      SmallVector<Value> sums(carried.take_front(width / 2)),
          a[4] = {SmallVector<Value>(carried.slice(width / 2, 4))};
      Slot now{carried[carried.size() - 3], carried[carried.size() - 2]};
      // After the last step this looks at the same stage again: no branch, and nothing is waited for.
      Slot next = nextSlot(e, now, s.stages);
      Value more = e.lt(e.add(k, 1), steps);
      Slot ahead{e.select(more, next.stage, now.stage), e.select(more, next.parity, now.parity)};
      multiply(sums, a[0], descriptor(now.stage, 0));
      wait(sums, 1); // the last slice of the step before is done
      release(carried.back(), e.ge(k, e.c(1)));
      for (int64_t slice = 1; slice < 4; ++slice) a[slice] = read(fragmentsOf(now.stage), slice);
      for (int64_t slice = 1; slice < 4; ++slice) multiply(sums, a[slice], descriptor(now.stage, slice));
      open(ahead);
      wait(sums, 1); // slice 0 is done: its registers may be written again
      sums.append(read(fragmentsOf(ahead.stage), 0));
      sums.append({next.stage, next.parity, now.stage});
      return sums;
    });
    SmallVector<Value> sums(out.begin(), out.begin() + width / 2);
    wait(sums, 0);
    release(out.back());
    return sums;
  }
};

} // namespace

SmallVector<Value> multiplyFragments(Emitter &e, const Plan &plan, int64_t width, Value done) {
  return FragmentLoop{e, plan, width}.run(done);
}

} // namespace quern::gpu
