// expand-tiles: the persistent loop over this CTA's tiles.
//
//   for (tile = cluster id; tile < all tiles; tile += clusters) { expert by binary search in the tile table;
//   ... }
//
// Tiles of an expert run over weight tiles first, so that the CTAs of a wave share activations in L2. An
// expert's rows are cut into equal parts, not into full tiles and a rest: a rest of 20 rows would cost as
// much as 32.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {

void inlineRegion(Emitter &e, Region &from, ValueRange values) {
  Block &source = from.front();
  for (auto [argument, value] : llvm::zip(source.getArguments(), values)) argument.replaceAllUsesWith(value);
  Block *target = e.b.getInsertionBlock();
  target->getOperations().splice(e.b.getInsertionPoint(), source.getOperations());
}

Share shareOf(Emitter &e, const Plan &plan, Value done) {
  int64_t steps = plan.facts.steps(), split = plan.schedule.split;
  if (split == 1) return {{}, e.c(0), e.c(steps), {}};
  int64_t least = steps / split, more = steps % split;
  Value rank = e.rem(e.sreg("ctaid.x"), split), first = e.mul(rank, least);
  if (!more) return {rank, first, e.c(least), done ? e.div(done, least) : Value()};
  Value longer = e.lt(rank, e.c(more));
  Share share{rank, e.add(first, e.min(rank, e.c(more))), e.select(longer, e.c(least + 1), e.c(least)), {}};
  if (done) share.tiles = e.select(longer, e.div(done, least + 1), e.div(done, least));
  return share;
}

/// The expert whose tiles include `tile`: the last e with table[e] <= tile.
static Value findExpert(Emitter &e, Value table, Value experts, Value tile) {
  auto loop = scf::WhileOp::create(
      e.b, e.loc, TypeRange{e.i32(), e.i32()}, ValueRange{e.c(0), experts},
      [&](OpBuilder &, Location, ValueRange v) {
        scf::ConditionOp::create(e.b, e.loc, e.lt(e.add(v[0], 1), v[1]), v);
      },
      [&](OpBuilder &, Location, ValueRange v) {
        Value middle = e.shr(e.add(v[0], v[1]), 1);
        Value first = e.load(e.i32(), e.at(table, e.wide(e.shl(middle, 2))), 4);
        Value below = e.ge(tile, first);
        scf::YieldOp::create(e.b, e.loc,
                             ValueRange{e.select(below, middle, v[0]), e.select(below, v[1], middle)});
      });
  return loop.getResult(0);
}

static LogicalResult expandTiles(qtile::TilesOp op, Emitter &e, const Plan &plan) {
  const Schedule &s = plan.schedule;
  int64_t together = s.cluster * s.split; // CTAs of a cluster
  int64_t groups = (plan.facts.weightTiles(s) + s.cluster - 1) / s.cluster;
  Value table = e.smem(plan.table), offsets = op.getOffsets(), experts = op.getExperts();
  Value total = e.load(e.i32(), e.at(table, e.wide(e.shl(experts, 2))), 4);
  Value rank = e.c(0), first = e.sreg("ctaid.x"), stride = e.sreg("nctaid.x");
  if (together > 1) {
    rank = e.rem(first, together);
    first = e.div(first, together), stride = e.div(stride, together);
  }
  Value steps = shareOf(e, plan).count;
  auto loop = scf::WhileOp::create(
      e.b, e.loc, TypeRange{e.i32(), e.i32()}, ValueRange{first, e.c(0)},
      [&](OpBuilder &, Location, ValueRange v) {
        scf::ConditionOp::create(e.b, e.loc, e.lt(v[0], total), v);
      },
      [&](OpBuilder &, Location, ValueRange v) {
        Value expert = findExpert(e, table, experts, v[0]);
        Value local = e.sub(v[0], e.load(e.i32(), e.at(table, e.wide(e.shl(expert, 2))), 4));
        Value tokenTile = e.div(local, groups);
        Value weightTile = e.mul(e.sub(local, e.mul(tokenTile, groups)), s.cluster);
        if (s.cluster > 1) weightTile = e.add(weightTile, rank);
        Value base = e.at(offsets, e.wide(e.shl(expert, 2)));
        Value begin = e.load(e.i32(), base, 4), end = e.load(e.i32(), e.at(base, 4), 4);
        Value count = e.sub(end, begin), parts = e.div(e.add(count, s.bn - 1), s.bn);
        int64_t step = std::min<int64_t>(16, s.bn);
        Value part =
            e.div(e.sub(e.add(count, parts), e.c(1)), parts); // rows of a part, then a multiple of `step`
        part = e.mul(e.div(e.add(part, step - 1), step), step);
        Value row0 = e.add(begin, e.mul(tokenTile, part));
        Value rows = e.min(part, e.sub(end, row0)), width;
        if (s.bn <= 32) {
          width = e.c(s.bn);
          for (int64_t w = s.bn / 2; w >= 8; w /= 2) width = e.select(e.ge(e.c(w), rows), e.c(w), width);
        } else {
          width = e.shl(e.shr(e.add(rows, 31), 5), 5);
        }
        inlineRegion(e, op.getBody(), {expert, row0, rows, width, weightTile, v[1]});
        scf::YieldOp::create(e.b, e.loc, ValueRange{e.add(v[0], stride), e.add(v[1], steps)});
      });
  op.getDone().replaceAllUsesWith(loop.getResult(1));
  return success();
}

std::unique_ptr<Pass> createExpandTilesPass() {
  return std::make_unique<ExpandPass<qtile::TilesOp>>(
      "expand-tiles", "expand qtile.tiles to the persistent loop", expandTiles);
}

} // namespace quern::gpu
