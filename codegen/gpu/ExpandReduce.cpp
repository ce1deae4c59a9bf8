// expand-reduce: the sums of the CTAs that share a tile's K range, in the first CTA of their cluster.
//
// Each other CTA leaves its accumulators in a region of its own shared memory, pairs of one thread after
// pairs of the next; each warp then arrives at `ready` of the first CTA. There every thread adds what the
// threads of its own number left, rank after rank, so that the order of additions is fixed, and each warp
// tells the peers by `taken` that they may overwrite. Data of a peer is plain memory: these arrivals and
// waits have cluster scope. The region is apart from the stages, so a producer may run ahead.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {
namespace {

struct Reduction {
  qtile::ReduceOp op;
  Emitter &e;
  const Plan &plan;
  Share share = shareOf(e, plan, op.getDone());
  VectorType pairType = VectorType::get({2}, e.f32());

  Value ready() { return e.smem(plan.exchange); }
  Value taken() { return e.smem(plan.exchange + 8); }

  /// Accumulators 2i and 2i + 1 of this thread.
  Value pairAt(int64_t i) {
    Value thread = e.add(e.tid(), -128);
    return e.at(e.at(e.smem(plan.partial), e.wide(e.shl(thread, 3))), i * plan.schedule.consumers() * 1024);
  }

  /// One arrival of this warp at the barrier of each rank in [first, end), after all that its lanes did.
  void arrive(Value barrier, int64_t first, int64_t end) {
    e.intrinsic("llvm.nvvm.bar.warp.sync", {e.c(-1)});
    e.ifThen(e.eq(e.andi(e.tid(), 31), 0), [&] {
      for (int64_t rank = first; rank < end; ++rank)
        e.prim("mbarrier.arrive.release.cluster", {barrier, e.c(rank)});
    });
  }

  SmallVector<Value> collect() {
    SmallVector<Value> sums(op.getAccumulators());
    Value parity = e.andi(share.tiles, 1);
    e.prim("mbarrier.wait.cluster", {ready(), parity});
    // A loop, so that addresses and loads of all peers do not live at once: they would spill.
    sums = e.forLoop(e.c(1), e.c(plan.schedule.split), sums, [&](Value rank, ValueRange carried) {
      SmallVector<Value> next(carried), pairs;
      for (size_t i = 0; i < next.size() / 2; ++i)
        pairs.push_back(e.bitcast(e.prim1("ld.cluster.b64", e.i64(), {pairAt(i), rank}), pairType));
      for (size_t i = 0; i < next.size(); ++i)
        next[i] = e.addf(next[i], LLVM::ExtractElementOp::create(e.b, e.loc, pairs[i / 2], e.c(i % 2)));
      return next;
    });
    arrive(taken(), 1, plan.schedule.split);
    return sums;
  }

  void leave() {
    // The region was read as often as this CTA has finished tiles: nothing to wait for in the first.
    e.prim("mbarrier.wait.cluster", {taken(), e.xori(e.andi(share.tiles, 1), 1)});
    auto values = op.getAccumulators();
    for (size_t i = 0; i < values.size() / 2; ++i) {
      Value pair = LLVM::UndefOp::create(e.b, e.loc, pairType);
      for (int half = 0; half < 2; ++half)
        pair = LLVM::InsertElementOp::create(e.b, e.loc, pair, values[2 * i + half], e.c(half));
      e.store(pair, pairAt(i), 8);
    }
    arrive(ready(), 0, 1);
  }

  void run() {
    e.ifElse(
        e.eq(share.rank, 0), {},
        [&]() -> SmallVector<Value> {
          return inlineRegion(e, op.getBody(), collect()), SmallVector<Value>();
        },
        [&]() -> SmallVector<Value> { return leave(), SmallVector<Value>(); });
  }
};

} // namespace

static LogicalResult expandReduce(qtile::ReduceOp op, Emitter &e, const Plan &plan) {
  if (plan.schedule.split == 1) return op.emitOpError("needs a schedule with split");
  Reduction{op, e, plan}.run();
  return success();
}

std::unique_ptr<Pass> createExpandReducePass() {
  return std::make_unique<ExpandPass<qtile::ReduceOp>>(
      "expand-reduce", "expand qtile.reduce to sums through the shared memory of a cluster", expandReduce);
}

} // namespace quern::gpu
