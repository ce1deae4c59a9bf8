// expand-roles: code of a warp range, with its register budget.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {

static LogicalResult expandRole(qtile::RoleOp op, Emitter &e, const Plan &) {
  Value warp = e.shr(e.tid(), 5);
  int64_t first = op.getFirstWarp(), end = first + op.getWarps();
  Value inside = e.both(e.ge(warp, e.c(first)), e.lt(warp, e.c(end)));
  e.ifThen(inside, [&] {
    if (op.getRegisters())
      e.prim((op.getIncrease() ? "setmaxnreg.inc." : "setmaxnreg.dec.") + std::to_string(op.getRegisters()),
             {});
    inlineRegion(e, op.getBody(), {});
  });
  return success();
}

std::unique_ptr<Pass> createExpandRolesPass() {
  return std::make_unique<ExpandPass<qtile::RoleOp>>(
      "expand-roles", "expand qtile.role to a branch on the warp and setmaxnreg", expandRole);
}

} // namespace quern::gpu
