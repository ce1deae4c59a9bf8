// expand-setup: stage barriers and the tile table, by every thread of the CTA.
//
// The table is a scan of each expert's number of tiles: a warp scan by shuffles, then the totals of the warps
// through shared memory; blockDim experts a round.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {

static void initBarriers(Emitter &e, const Plan &plan) {
  e.ifThen(e.eq(e.tid(), 0), [&] {
    for (int64_t stage = 0; stage < plan.schedule.stages; ++stage) {
      e.prim("mbarrier.init", {e.smem(plan.barriers + 16 * stage), e.c(plan.fullArrivals())});
      e.prim("mbarrier.init", {e.smem(plan.barriers + 16 * stage + 8), e.c(plan.emptyArrivals())});
    }
    if (plan.schedule.split > 1) {
      e.prim("mbarrier.init", {e.smem(plan.exchange), e.c(plan.readyArrivals())});
      e.prim("mbarrier.init", {e.smem(plan.exchange + 8), e.c(plan.takenArrivals())});
    }
    e.prim("fence.mbarrier.init", {});
  });
}

/// The table of `decode=pairs`: copy l of entry b, at (32 b + l) * 8, holds the fp32 values of b's low and
/// high nibble. A lane reads its own copy, so that no two lanes of a half warp meet in a bank. A warp fills
/// an entry at a time; its lanes hold the 16 values.
static void fillPairs(Emitter &e, const Plan &plan, Value warp, Value lane) {
  Value held = e.c(llvm::bit_cast<int32_t>(plan.facts.table[0])), code = e.andi(lane, 15);
  for (int i = 1; i < 16; ++i)
    held = e.select(e.eq(code, i), e.c(llvm::bit_cast<int32_t>(plan.facts.table[i])), held);
  auto type = VectorType::get({2}, e.i32());
  e.forLoop(
      warp, e.c(256), {},
      [&](Value entry, ValueRange) -> SmallVector<Value> {
        Value pair = LLVM::UndefOp::create(e.b, e.loc, type);
        Value low = e.shuffle("idx", held, e.andi(entry, 15), 31);
        Value high = e.shuffle("idx", held, e.shr(entry, 4), 31);
        pair = LLVM::InsertElementOp::create(e.b, e.loc, pair, low, e.c(0));
        pair = LLVM::InsertElementOp::create(e.b, e.loc, pair, high, e.c(1));
        Value at = e.add(e.shl(entry, 8), e.shl(lane, 3));
        e.store(pair, e.at(e.smem(plan.pairs), e.wide(at)), 8);
        return {};
      },
      plan.schedule.threads() / 32);
}

/// The sum over lanes 0..lane.
static Value warpScan(Emitter &e, Value v) {
  Value lane = e.andi(e.tid(), 31);
  for (int64_t distance = 1; distance < 32; distance *= 2) {
    Value below = e.shuffle("up", v, distance, 0);
    v = e.add(v, e.select(e.ge(lane, e.c(distance)), below, e.c(0)));
  }
  return v;
}

static LogicalResult expandSetup(qtile::SetupOp op, Emitter &e, const Plan &plan) {
  const Schedule &s = plan.schedule;
  int64_t threads = s.threads(), warps = threads / 32;
  int64_t groups = (plan.facts.weightTiles(s) + s.cluster - 1) / s.cluster;
  Value offsets = op.getOffsets(), experts = op.getExperts();
  Value tid = e.tid(), warp = e.shr(tid, 5), lane = e.andi(tid, 31);
  initBarriers(e, plan);
  if (s.decode == Decode::Pairs) fillPairs(e, plan, warp, lane);
  Value table = e.smem(plan.table), scratch = e.smem(plan.scratch);
  e.ifThen(e.eq(tid, 0), [&] { e.store(e.c(0), table, 4); });
  e.forLoop(
      e.c(0), experts, {e.c(0)},
      [&](Value base, ValueRange carried) -> SmallVector<Value> {
        Value expert = e.add(base, tid), inside = e.lt(expert, experts);
        Value mine = e.ifElse(
            inside, {e.i32()},
            [&]() -> SmallVector<Value> {
              Value p = e.at(offsets, e.wide(e.shl(expert, 2)));
              Value rows = e.sub(e.load(e.i32(), e.at(p, 4), 4), e.load(e.i32(), p, 4));
              return {e.mul(e.div(e.add(rows, s.bn - 1), s.bn), groups)};
            },
            [&]() -> SmallVector<Value> { return {e.c(0)}; })[0];
        Value scanned = warpScan(e, mine);
        e.ifThen(e.eq(lane, 31), [&] { e.store(scanned, e.at(scratch, e.wide(e.shl(warp, 2))), 4); });
        e.syncThreads();
        Value before = carried[0], all = carried[0];
        for (int64_t w = 0; w < warps; ++w) {
          Value total = e.load(e.i32(), e.at(scratch, 4 * w), 4);
          before = e.add(before, e.select(e.lt(e.c(w), warp), total, e.c(0)));
          all = e.add(all, total);
        }
        e.ifThen(inside, [&] {
          e.store(e.add(before, scanned), e.at(table, e.wide(e.shl(e.add(expert, 1), 2))), 4);
        });
        e.syncThreads();
        return {all};
      },
      threads);
  e.syncThreads(); // barriers and table[0], also when there is no expert
  if (s.cluster * s.split > 1) e.prim("cluster.arrive", {}), e.prim("cluster.wait", {});
  // What is before this overlaps with the end of the kernel that gathers; offsets are older than that one.
  // The kernel after this may come as soon as CTAs leave, and waits where it reads.
  e.prim("grid.launch", {}), e.prim("grid.wait", {});
  return success();
}

std::unique_ptr<Pass> createExpandSetupPass() {
  return std::make_unique<ExpandPass<qtile::SetupOp>>(
      "expand-setup", "expand qtile.setup to barriers and a scan", expandSetup);
}

} // namespace quern::gpu
