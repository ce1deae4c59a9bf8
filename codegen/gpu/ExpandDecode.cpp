// expand-decode: 8 codes to 8 weights in the A registers of one k16 step, by byte permutes.
//
// A prmt picks 4 bytes out of 8 by the nibbles of its selector, so a word of codes is itself a selector into
// a byte plane of the table. The 16 entries take two permutes (entries 0-7 and 8-15) and a third one that
// chooses between them by the code's top bit. Two planes make a 16-bit weight (facts: 22 to 25 ALU operations
// per 8 codes).
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {

/// Four 16-bit weights from the low 16 bits of the prepared selectors; `planes`: four low, then four high
/// words.
static std::pair<Value, Value> lookUp(Emitter &e, ValueRange planes, Value codes, Value choose) {
  SmallVector<Value> bytes;
  for (int plane = 0; plane < 8; plane += 4) {
    Value lower = e.prmt(planes[plane], planes[plane + 1], codes);
    Value upper = e.prmt(planes[plane + 2], planes[plane + 3], codes);
    bytes.push_back(e.prmt(lower, upper, choose));
  }
  return {e.prmt(bytes[0], bytes[1], 0x5140), e.prmt(bytes[0], bytes[1], 0x7362)};
}

static LogicalResult expandArrange(qtile::ArrangeOp op, Emitter &e, const Plan &) {
  Value upper = op.getUpper() ? op.getUpper() : op.getWord();
  Value selector = op.getUpper() ? op.getSelector() : e.c(0x3120);
  op.replaceAllUsesWith(e.prmt(op.getWord(), upper, selector));
  return success();
}

static LogicalResult expandDecode(qtile::DecodeOp op, Emitter &e, const Plan &plan) {
  Value codes = e.andi(op.getWord(), 0x77777777);
  Value choose = e.xori(e.andi(e.shr(op.getWord(), 1), 0x44444444), op.getOrder());
  auto [a0, a2] = lookUp(e, op.getFirst(), codes, choose);
  auto [a1, a3] = lookUp(e, op.getSecond(), e.shr(codes, 16), e.shr(choose, 16));
  if (op.getScale0()) {
    StringRef multiply = plan.facts.act == DType::BF16 ? "mul.bf16x2" : "mul.f16x2";
    for (Value *v : {&a0, &a2}) *v = e.prim1(multiply, e.i32(), {*v, op.getScale0()});
    for (Value *v : {&a1, &a3}) *v = e.prim1(multiply, e.i32(), {*v, op.getScale1()});
  }
  op.replaceAllUsesWith(ValueRange{a0, a1, a2, a3});
  return success();
}

std::unique_ptr<Pass> createExpandDecodePass() {
  return std::make_unique<ExpandPass<qtile::DecodeOp>>("expand-decode",
                                                       "expand qtile.decode to byte permutes", expandDecode);
}

std::unique_ptr<Pass> createExpandArrangePass() {
  return std::make_unique<ExpandPass<qtile::ArrangeOp>>(
      "expand-arrange", "expand qtile.arrange to a byte permute", expandArrange);
}

} // namespace quern::gpu
