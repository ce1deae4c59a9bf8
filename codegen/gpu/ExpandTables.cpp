// expand-tables: the 16 products (table[code] - zero) * scale of a block, rounded as bitsandbytes rounds
// them, as byte planes in registers.
//
// A quad of lanes shares a weight row. Lane c forms 4 of the 16 products and gets the rest by two butterfly
// exchanges, so it ends with the planes of blocks c, c^1, c^2, c^3 in this order: no selects are needed,
// since XORing the codes with 4c (qtile.decode) undoes the permutation. Exact for any table, scale type and
// chain of roundings, at 12 fp32 operations and 12 shuffles per 32 codes, instead of a multiplication and a
// rounding for each.
#include "codegen/gpu/Expand.h"
#include "codegen/gpu/Passes.h"

using namespace mlir;

namespace quern::gpu {

Value packWeights(Emitter &e, const Facts &f, Value low, Value high) {
  if (f.state != f.act && f.state != DType::F32) {
    Value rounded = e.pack(f.state, low, high);
    low = e.unpack(f.state, rounded, 0), high = e.unpack(f.state, rounded, 1);
  }
  return e.pack(f.act, low, high);
}

static LogicalResult expandTables(qtile::TablesOp op, Emitter &e, const Plan &plan) {
  const Facts &f = plan.facts;
  SmallVector<Value> products;
  for (Value entry : op.getEntries()) {
    Value v = op.getZero() ? e.subf(entry, op.getZero()) : entry;
    products.push_back(e.mulf(v, op.getScale()));
  }
  SmallVector<Value> pairs;
  for (int i = 0; i < 4; i += 2) pairs.push_back(packWeights(e, f, products[i], products[i + 1]));
  SmallVector<Value> results;
  for (int64_t selector : {0x6420, 0x7531}) { // low bytes, high bytes
    Value own = e.prmt(pairs[0], pairs[1], selector);
    Value one = e.shuffle("bfly", own, 1, 31);
    results.append({own, one, e.shuffle("bfly", own, 2, 31), e.shuffle("bfly", one, 2, 31)});
  }
  op.replaceAllUsesWith(results);
  return success();
}

std::unique_ptr<Pass> createExpandTablesPass() {
  return std::make_unique<ExpandPass<qtile::TablesOp>>(
      "expand-tables", "expand qtile.tables to products and butterfly exchanges", expandTables);
}

} // namespace quern::gpu
