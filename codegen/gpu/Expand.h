// One pass = one op of the qtile dialect expanded where it stands. The passes differ in the op and in a
// function.
#pragma once
#include "codegen/gpu/Emitter.h"
#include "codegen/gpu/Facts.h"
#include "mlir/Pass/Pass.h"

namespace quern::gpu {

/// Expands every OpT; `expand` builds at the op, which is erased (with its results already replaced) by the
/// caller.
template <class OpT> using ExpandFn = mlir::LogicalResult (*)(OpT op, Emitter &e, const Plan &plan);

template <class OpT>
class ExpandPass : public mlir::PassWrapper<ExpandPass<OpT>, mlir::OperationPass<mlir::ModuleOp>> {
public:
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(ExpandPass)
  ExpandPass(StringRef argument, StringRef description, ExpandFn<OpT> expand)
      : argument(argument), description(description), expand(expand) {}
  StringRef getArgument() const override { return argument; }
  StringRef getDescription() const override { return description; }
  void getDependentDialects(mlir::DialectRegistry &registry) const override {
    registry.insert<mlir::qtile::QtileDialect>();
  }
  void runOnOperation() override {
    SmallVector<OpT> ops;
    this->getOperation().walk([&](OpT op) { ops.push_back(op); });
    for (OpT op : ops) {
      auto program = op->template getParentOfType<mlir::qtile::ProgramOp>();
      if (!program) {
        op->emitError("stands outside of a qtile.program");
        return this->signalPassFailure();
      }
      mlir::OpBuilder builder(op);
      Emitter e(builder, op.getLoc());
      if (mlir::failed(expand(op, e, Plan(program)))) return this->signalPassFailure();
      op->erase();
    }
  }

private:
  StringRef argument, description;
  ExpandFn<OpT> expand;
};

/// Two products as a pair of the activations' dtype, rounded to the quantization state's dtype first
/// (bitsandbytes' chain of roundings).
Value packWeights(Emitter &e, const Facts &facts, Value low, Value high);

/// The K steps of this CTA, the same ones in every tile: all, or its part of a cluster with split. The first
/// steps % split CTAs take one more than the others; none takes nothing (readTileKernel refuses that).
struct Share {
  Value rank;         // of the CTA in its cluster; null without split
  Value first, count; // i32
  Value tiles;        // that this CTA has finished; null without split
};
/// `done`: the steps that this CTA did in earlier tiles, or null (then `tiles` is null).
Share shareOf(Emitter &e, const Plan &plan, Value done = {});

/// The K loop of decode=ahead for a qtile.multiply of `width` tokens: its accumulators.
SmallVector<Value> multiplyFragments(Emitter &e, const Plan &plan, int64_t width, Value done);

/// Moves the ops of `from`'s only block to the insertion point, its arguments replaced by `values`.
void inlineRegion(Emitter &e, mlir::Region &from, ValueRange values);

} // namespace quern::gpu
