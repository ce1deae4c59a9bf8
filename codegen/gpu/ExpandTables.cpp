// expand-tables: the 16 products (table[code] - zero) * scale of a block, rounded as bitsandbytes rounds
// them, as byte planes in registers.
//
// A thread of the producer forms them for its row; consumers read them from the stage (expand-multiply).
// Exact for any table, scale type and chain of roundings, at 16 products a block instead of one for each
// weight.
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
  SmallVector<Value> pairs, results;
  for (int i = 0; i < 16; i += 2) {
    SmallVector<Value> products;
    for (int j = i; j < i + 2; ++j) {
      Value v = op.getZero() ? e.subf(e.cf(f.table[j]), op.getZero()) : e.cf(f.table[j]);
      products.push_back(e.mulf(v, op.getScale()));
    }
    pairs.push_back(packWeights(e, f, products[0], products[1]));
  }
  for (int64_t selector : {0x6420, 0x7531}) // low bytes, high bytes
    for (int i = 0; i < 8; i += 2) results.push_back(e.prmt(pairs[i], pairs[i + 1], selector));
  op.replaceAllUsesWith(results);
  return success();
}

std::unique_ptr<Pass> createExpandTablesPass() {
  return std::make_unique<ExpandPass<qtile::TablesOp>>(
      "expand-tables", "expand qtile.tables to products and their byte planes", expandTables);
}

} // namespace quern::gpu
