// expand-math: vector exp, tanh and erf by upstream's polynomial approximations (a few ulp; NaN passes
// through). Upstream's exp clamps its argument; here it overflows to infinity and underflows to zero as
// libm's does.
#include "codegen/cpu/Passes.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include <limits>

using namespace mlir;

namespace quern::cpu {
namespace {

/// exp(x) becomes select(x > 88.7228, inf, select(x < -87.3365, 0, exp(x))): fp32's overflow and smallest
/// normal.
void boundExp(math::ExpOp op) {
  OpBuilder b(op);
  b.setInsertionPointAfter(op);
  Location loc = op.getLoc();
  auto type = cast<VectorType>(op.getType());
  auto splat = [&](float v) -> Value {
    return arith::ConstantOp::create(b, loc, DenseElementsAttr::get(type, v));
  };
  Value x = op.getOperand(), result = op.getResult();
  Value low = arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OLT, x, splat(-87.33654f));
  Value high = arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OGT, x, splat(88.72283f));
  auto inner = arith::SelectOp::create(b, loc, low, splat(0.0f), result);
  auto outer = arith::SelectOp::create(b, loc, high, splat(std::numeric_limits<float>::infinity()), inner);
  result.replaceAllUsesExcept(outer, inner);
}

struct ExpandMath : PassWrapper<ExpandMath, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(ExpandMath)
  StringRef getArgument() const override { return "expand-math"; }
  StringRef getDescription() const override { return "expand vector exp, tanh and erf to polynomials"; }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<arith::ArithDialect, vector::VectorDialect, math::MathDialect>();
  }
  void runOnOperation() override {
    SmallVector<math::ExpOp> exps;
    getOperation().walk([&](math::ExpOp op) {
      if (isa<VectorType>(op.getType())) exps.push_back(op);
    });
    for (math::ExpOp op : exps) boundExp(op);
    RewritePatternSet patterns(&getContext());
    MathPolynomialApproximationOptions options;
    populateMathPolynomialApproximationPatterns(patterns, options);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns)))) signalPassFailure();
  }
};

} // namespace

std::unique_ptr<Pass> createExpandMathPass() { return std::make_unique<ExpandMath>(); }

} // namespace quern::cpu
