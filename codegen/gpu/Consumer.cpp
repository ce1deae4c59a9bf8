// See Consumer.h.
#include "codegen/gpu/Consumer.h"

using namespace mlir;

namespace quern::gpu {

Consumer::Consumer(Emitter &emitter, const Plan &program, int64_t n) : e(emitter), plan(program), width(n) {
  Value base = LLVM::PtrToIntOp::create(e.b, e.loc, e.i32(), e.smem(0));
  firstDescriptor = e.ori(e.shr(e.andi(base, 0x3ffff), 4), 1 << 16);
}

void Consumer::open(const Slot &slot) {
  Value full = e.at(e.smem(plan.barriers), e.wide(e.shl(slot.stage, 4)));
  e.prim("mbarrier.wait", {full, slot.parity});
}

/// K-major B operand, 128-byte swizzle: start address, leading offset 16 bytes (unused), 1024 bytes between
/// groups of 8 rows (PTX ISA, matrix descriptor). Addresses are in units of 16 bytes and stay below 2^14,
/// so a stage and a slice of 32 bytes are added to the low word.
Value Consumer::descriptor(Value stage, int slice) {
  Value low = e.add(e.add(firstDescriptor, e.mul(stage, plan.xBytes / 16)), 2 * slice);
  return e.ori(e.wide(low), int64_t((1ull << 62) | (64ull << 32)));
}

void Consumer::multiply(SmallVectorImpl<Value> &sums, ValueRange a, Value stage, int slice) {
  Value from = descriptor(stage, slice);
  SmallVector<Value> all(sums.begin(), sums.end());
  all.append(a.begin(), a.end());
  SmallVector<Type> tied(ValueRange(all).getTypes()), types(sums.size(), e.f32());
  all = e.prim("wgmma.fence.n" + std::to_string(sums.size()) + ".a4", all, tied);
  all.push_back(from);
  StringRef name = plan.facts.act == DType::BF16 ? "wgmma.bf16.n" : "wgmma.f16.n";
  auto next = e.prim((name + std::to_string(width)).str(), all, types);
  sums.assign(next.begin(), next.end());
  e.prim("wgmma.commit", {});
}

void Consumer::wait(SmallVectorImpl<Value> &sums, int pending) {
  SmallVector<Type> types(sums.size(), e.f32());
  auto next =
      e.prim("wgmma.wait." + std::to_string(pending) + ".n" + std::to_string(sums.size()), sums, types);
  sums.assign(next.begin(), next.end());
}

void Consumer::release(Value stage, Value condition) {
  Value empty = e.at(e.smem(plan.barriers + 8), e.wide(e.shl(stage, 4)));
  e.intrinsic("llvm.nvvm.bar.warp.sync", {e.c(-1)});
  Value first = e.eq(e.andi(e.tid(), 31), 0);
  e.ifThen(condition ? e.both(condition, first) : first, [&] {
    if (plan.schedule.cluster == 1) return void(e.prim("mbarrier.arrive", {empty}));
    for (int64_t rank = 0; rank < plan.schedule.cluster; ++rank)
      e.prim("mbarrier.arrive.cluster", {empty, e.c(rank)});
  });
}

} // namespace quern::gpu
