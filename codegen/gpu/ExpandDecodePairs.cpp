// expand-decode-pairs: 8 codes to 8 weights through shared memory.
//
// A byte holds two codes of one row; it indexes a table of fp32 pairs. 8 ALU operations per 8 codes instead
// of 22, no product tables and no shuffles, so the chain from codes to weights is short: what small tiles
// want, where neither tensor cores nor shared memory are busy. Large tiles cannot afford the reads beside
// those of wgmma.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {

static LogicalResult expandDecodePairs(qtile::DecodePairsOp op, Emitter &e, const Plan &plan) {
  bool arranged = plan.facts.pairing == Pairing::Halved;
  auto pairType = VectorType::get({2}, e.f32());
  SmallVector<Value> a(4);
  for (int byte = 0; byte < 4; ++byte) {
    // 256 bytes an entry, so that one PRMT makes the offset: the lane's copy in byte 0, the code in byte 1.
    Value offset = e.prmt(op.getWord(), op.getLane(), 0x5504 | byte << 4);
    Value pair = e.load(pairType, e.at(e.smem(plan.pairs), e.wide(offset)), 8);
    bool upper = arranged ? byte >= 2 : byte % 2;
    Value scale = upper ? op.getScale1() : op.getScale0(), zero = upper ? op.getZero1() : op.getZero0();
    SmallVector<Value> products;
    for (int i = 0; i < 2; ++i) {
      Value v = LLVM::ExtractElementOp::create(e.b, e.loc, pair, e.c(i));
      if (zero) v = e.subf(v, zero);
      products.push_back(e.mulf(v, scale));
    }
    int slot = arranged ? (byte % 2) * 2 + byte / 2
                        : byte; // a0, a1: columns k, rows g and g + 8; a2, a3: columns k + 8
    a[slot] = packWeights(e, plan.facts, products[0], products[1]);
  }
  op.replaceAllUsesWith(a);
  return success();
}

std::unique_ptr<Pass> createExpandDecodePairsPass() {
  return std::make_unique<ExpandPass<qtile::DecodePairsOp>>(
      "expand-decode-pairs", "expand qtile.decode_pairs to reads of the pair table", expandDecodePairs);
}

} // namespace quern::gpu
