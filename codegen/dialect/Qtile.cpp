// Registration of the `qtile` dialect, and verifiers of its ops; those of whole programs are in
// VerifyProgram.cpp.
#include "codegen/dialect/Qtile.h"
#include "codegen/gpu/PrimitiveTypes.h"
#include "codegen/gpu/Reads.h"
#include "mlir/IR/DialectImplementation.h"

using namespace mlir;
using namespace mlir::qtile;

#include "codegen/dialect/QtileDialect.cpp.inc"

void QtileDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "codegen/dialect/QtileOps.cpp.inc"
      >();
}

LogicalResult PrimOp::verify() {
  std::string reason =
      ::quern::gpu::checkPrimitive(getPrimitive(), getInputs().getTypes(), getOutputs().getTypes());
  return reason.empty() ? success() : emitOpError(reason);
}

/// A width of the ladder is the N of a wgmma; `accumulators` is a thread's share, 64 x width over 128
/// threads.
static LogicalResult checkWidth(Operation *op, int64_t width, size_t accumulators) {
  if (width < 8 || width > 256 || width % 8)
    return op->emitOpError() << "has width " << width << ", expected a multiple of 8 in 8..256";
  if (int64_t(accumulators) != width / 2)
    return op->emitOpError() << "has " << accumulators << " accumulators, expected " << width / 2
                             << ": half of its width";
  return success();
}

static LogicalResult checkCount(Operation *op, StringRef what, size_t found, size_t expected) {
  if (found == expected) return success();
  return op->emitOpError() << "has " << found << " " << what << ", expected " << expected;
}

LogicalResult TilesOp::verify() {
  auto types = getBody().getArgumentTypes();
  if (types.size() == 6 && llvm::all_of(types, [](Type t) { return t.isInteger(32); })) return success();
  return emitOpError(
      "needs six i32 block arguments: expert, first row, rows, width, weight tile, steps done");
}

LogicalResult ConsumeOp::verify() {
  if (getWidths().empty()) return emitOpError("has no widths");
  for (int64_t width : getWidths())
    if (failed(checkWidth(*this, width, size_t(width / 2)))) return failure();
  return success();
}

LogicalResult MultiplyOp::verify() { return checkWidth(*this, getWidth(), getAccumulators().size()); }

LogicalResult ReduceOp::verify() {
  if (failed(checkWidth(*this, getWidth(), getAccumulators().size()))) return failure();
  auto types = getBody().getArgumentTypes();
  if (!llvm::all_of(types, [](Type t) { return t.isF32(); }))
    return emitOpError("needs f32 block arguments: the sums");
  return checkCount(*this, "block arguments", types.size(), getAccumulators().size());
}

LogicalResult EpilogueOp::verify() { return checkWidth(*this, getWidth(), getAccumulators().size()); }

LogicalResult TablesOp::verify() { return checkCount(*this, "planes", getPlanes().size(), 8); }

LogicalResult ArrangeOp::verify() {
  if (bool(getUpper()) == bool(getSelector())) return success();
  return emitOpError("needs both of upper and selector, or none");
}

LogicalResult DecodeOp::verify() {
  if (failed(checkCount(*this, "planes of row g", getFirst().size(), 8)) ||
      failed(checkCount(*this, "planes of row g + 8", getSecond().size(), 8)))
    return failure();
  if (bool(getScale0()) == bool(getScale1())) return success();
  return emitOpError("needs the scales of both rows, or none");
}

LogicalResult FragmentsOp::verify() {
  if (getSlice() >= 0 && getSlice() < 4) return success();
  return emitOpError() << "reads slice " << getSlice() << ", a step of 64 columns has slices 0 to 3";
}

LogicalResult TailOp::verify() {
  if (failed(checkCount(*this, "line sizes", getColumns().size(), getOperands().size()))) return failure();
  for (int64_t bytes : getColumns())
    if (bytes <= 0) return emitOpError() << "has lines of " << bytes << " bytes";
  return success();
}

LogicalResult WriteOp::verify() {
  auto dtype = (*this)->getAttrOfType<StringAttr>("dtype");
  if (!dtype || !::quern::parseDType(dtype.getValue()))
    return emitOpError("needs the dtype of its output: f32, bf16 or f16");
  if (failed(checkCount(*this, "block arguments", getBody().getNumArguments(), getReads().size())))
    return failure();
  for (Type type : getBody().getArgumentTypes())
    if (!type.isF32()) return emitOpError() << "has a block argument of type " << type << ", expected f32";
  for (auto text : getReads().getAsRange<StringAttr>())
    if (::quern::gpu::parseRead(text.getValue()).str() != text.getValue())
      return emitOpError() << "cannot read " << text << ", see codegen/gpu/Reads.h";
  if (getBody().front().empty() || !isa<ValueOp>(getBody().front().back()))
    return emitOpError("must end with qtile.value");
  return success();
}

#define GET_OP_CLASSES
#include "codegen/dialect/QtileOps.cpp.inc"
