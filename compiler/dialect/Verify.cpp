// See Verify.h.
#include "compiler/dialect/Verify.h"

namespace mlir::quern {

/// Dimension of the lines that `access` picks among; empty: it picks none.
static StringRef lineDim(KernelOp kernel, RowAccess access) {
  auto routing = kernel.getRouting() ? cast<RoutingType>(kernel.getRouting().getType()) : RoutingType();
  switch (access) {
  case RowAccess::Row: return kernel.getRowDim();
  case RowAccess::Token: return routing.getTokens();
  case RowAccess::Expert: return routing.getExperts();
  case RowAccess::None:
  case RowAccess::Weight: break;
  }
  return "";
}

LogicalResult verifyAccess(Operation *op, RowAccess access) {
  bool routed = access == RowAccess::Token || access == RowAccess::Expert || access == RowAccess::Weight;
  if (!routed || cast<KernelOp>(op->getParentOp()).getRouting()) return success();
  return op->emitOpError("reads by ")
         << stringifyRowAccess(access) << ", but the kernel has no routing [row.routing]";
}

LogicalResult verifyLine(Operation *op, StringRef what, RowAccess access, StringRef dim, StringRef rule) {
  StringRef expected = lineDim(cast<KernelOp>(op->getParentOp()), access);
  if (expected.empty() || sameDim(dim, expected)) return success();
  return op->emitOpError() << what << " has '" << dim << "' lines, but by " << stringifyRowAccess(access)
                           << " it needs '" << expected << "' [" << rule << "]";
}

LogicalResult verifySame(Operation *op, StringRef what, StringRef found, StringRef whatElse,
                         StringRef expected, StringRef rule) {
  if (sameDim(found, expected)) return success();
  return op->emitOpError() << what << " is '" << found << "', but " << whatElse << " is '" << expected
                           << "' [" << rule << "]";
}

LogicalResult verifyIsInput(Operation *op, StringRef what, Value operand) {
  auto kernel = cast<KernelOp>(op->getParentOp());
  int output = kernel.getOutputIndex(operand);
  if (output < 0) return success();
  return op->emitOpError() << what << " is the output '" << kernel.getOutputName(output)
                           << "'; outputs cannot be read [access.output]";
}

} // namespace mlir::quern
