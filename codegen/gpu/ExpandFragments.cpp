// expand-fragments: A registers of one k16 step as they lie in the stage (decode=ahead).
//
// kernels/decode_ahead.cu has written the weights in the order of wgmma's A fragments: [slice][thread][4
// words]. A thread reads its four words by one 16-byte load; a quarter warp's eight reads are 128
// neighbouring bytes, so no two meet in a bank.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {

static LogicalResult expandFragments(qtile::FragmentsOp op, Emitter &e, const Plan &plan) {
  if (!plan.ahead()) return op.emitOpError("needs a schedule with decode=ahead");
  Value at = e.at(e.smem(plan.codes), e.wide(op.getAt()));
  Value words = e.load(VectorType::get({4}, e.i32()), e.at(at, 2048 * op.getSlice()), 16);
  SmallVector<Value> a;
  for (int i = 0; i < 4; ++i) a.push_back(LLVM::ExtractElementOp::create(e.b, e.loc, words, e.c(i)));
  op.replaceAllUsesWith(a);
  return success();
}

std::unique_ptr<Pass> createExpandFragmentsPass() {
  return std::make_unique<ExpandPass<qtile::FragmentsOp>>(
      "expand-fragments", "expand qtile.fragments to a 16-byte load from the stage", expandFragments);
}

} // namespace quern::gpu
