// expand-consume: the ladder of widths. One kernel holds the code of every width (accumulators are registers,
// so their number is fixed in code); the branch is uniform in a CTA.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"
#include "mlir/IR/IRMapping.h"

using namespace mlir;

namespace quern::gpu {

static LogicalResult expandConsume(qtile::ConsumeOp op, Emitter &e, const Plan &plan) {
  auto widths = op.getWidths();
  Value index = arith::IndexCastUIOp::create(e.b, e.loc, e.b.getIndexType(), op.getWidth());
  auto branch =
      scf::IndexSwitchOp::create(e.b, e.loc, TypeRange(), index, widths.drop_back(), widths.size() - 1);
  auto fill = [&](Region &region, int64_t width) {
    OpBuilder::InsertionGuard guard(e.b);
    e.b.createBlock(&region);
    SmallVector<Type> types(width / 2, e.f32());
    auto multiply = qtile::MultiplyOp::create(e.b, e.loc, types, e.b.getI64IntegerAttr(width), op.getDone());
    ValueRange sums = multiply.getResults();
    Block *whole = e.b.getInsertionBlock();
    if (plan.schedule.split > 1) {
      auto reduce = qtile::ReduceOp::create(e.b, e.loc, e.b.getI64IntegerAttr(width), op.getDone(), sums);
      sums = e.b.createBlock(&reduce.getBody(), {}, types, SmallVector<Location>(types.size(), e.loc))
                 ->getArguments();
    }
    auto epilogue = qtile::EpilogueOp::create(e.b, e.loc, e.b.getI64IntegerAttr(width), op.getExpert(),
                                              op.getRow0(), op.getRows(), op.getWeightTile(), sums);
    IRMapping map;
    op.getBody().cloneInto(&epilogue.getBody(), map);
    e.b.setInsertionPointToEnd(whole);
    scf::YieldOp::create(e.b, e.loc);
  };
  for (auto [i, width] : llvm::enumerate(widths.drop_back())) fill(branch.getCaseRegions()[i], width);
  fill(branch.getDefaultRegion(), widths.back());
  return success();
}

std::unique_ptr<Pass> createExpandConsumePass() {
  return std::make_unique<ExpandPass<qtile::ConsumeOp>>(
      "expand-consume", "expand qtile.consume to one multiply and epilogue per width", expandConsume);
}

} // namespace quern::gpu
