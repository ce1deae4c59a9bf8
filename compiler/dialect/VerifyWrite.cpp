// Rules of writes: their reads, their output and their region.
#include "compiler/dialect/Verify.h"

using namespace mlir;
using namespace mlir::quern;

/// The line and the number of dimensions that read i picks; `extent` becomes its operand's columns.
static LogicalResult verifyReadShape(WriteOpInterface op, const Read &read, StringRef what,
                                     StringRef &extent) {
  if (auto rows = dyn_cast<RowsType>(read.value.getType())) {
    if (read.row != RowAccess::Row || !read.hasColumn)
      return op->emitOpError() << what
                               << " is a contraction; expected row access 'row' and a column [access.row]";
    extent = rows.getColumns();
    return success();
  }
  auto tensor = cast<MemTensorType>(read.value.getType());
  bool hasLine = read.row != RowAccess::None;
  int picked = int(hasLine) + int(read.hasColumn);
  if (tensor.getRank() != picked)
    return op->emitOpError() << what << " picks " << picked << " of the tensor's " << tensor.getRank()
                             << " dimensions; expected all [access.rank]";
  extent = tensor.getDim(tensor.getRank() - 1);
  return hasLine ? verifyLine(op, what, read.row, tensor.getDim(0), "access.shape") : success();
}

static LogicalResult verifyRead(WriteOpInterface op, unsigned i, const Dim &columns) {
  Read read = op.getRead(i);
  std::string what = "read " + std::to_string(i);
  if (failed(verifyAccess(op, read.row)) || failed(verifyIsInput(op, what, read.value))) return failure();
  if (!read.hasColumn && read.mul != 0)
    return op->emitOpError() << what << " has no column but mul " << read.mul << "; expected 0";
  if (read.mul < -maxFactor || read.mul > maxFactor)
    return op->emitOpError() << what << " has mul " << read.mul << "; expected at most 2^20 [index.form]";

  Type type = read.value.getType();
  if (isa<RoutingType>(type) != (read.row == RowAccess::Weight))
    return op->emitOpError() << what << " reads " << type << " by " << stringifyRowAccess(read.row)
                             << "; a routing, and only a routing, is read by weight [row.field]";
  if (isa<RoutingType>(type)) {
    if (!read.hasColumn) return success();
    return op->emitOpError() << what << " is a row weight and has no column; expected offset '-' [row.field]";
  }

  StringRef extent;
  if (failed(verifyReadShape(op, read, what, extent))) return failure();
  if (!read.hasColumn) return success();
  std::optional<Dim> offset = parseDim(read.offset);
  if (!offset)
    return op->emitOpError() << what << ": offset '" << read.offset << "' is not a dimension [index.form]";
  if (!isWithinLimits(*offset))
    return op->emitOpError() << what << ": offset '" << read.offset
                             << "' is too large; expected at most 2^31, and factors up to 2^20 [index.form]";
  if (certainlyOutOfRange(read.mul, *offset, columns, *parseDim(extent)))
    return op->emitOpError() << what << ": column " << read.mul << "*j + " << read.offset
                             << " leaves the extent '" << extent << "' for j in [0, " << op.getColumns()
                             << ") [access.range]";
  return success();
}

static LogicalResult verifyWrite(WriteOpInterface op) {
  auto kernel = cast<KernelOp>(op->getParentOp());
  size_t reads = op.getReads().size();
  if (op.getRows().size() != reads || op.getMuls().size() != reads || op.getOffsets().size() != reads)
    return op->emitOpError("has ") << reads << " reads, " << op.getRows().size() << " rows, "
                                   << op.getMuls().size() << " muls and " << op.getOffsets().size()
                                   << " offsets; expected one of each per read";
  Block &block = op.getBody().front();
  if (block.getNumArguments() != reads || !llvm::all_of(block.getArgumentTypes(), llvm::IsaPred<Float32Type>))
    return op->emitOpError("region must have one f32 argument for each of the ") << reads << " reads";

  if (kernel.getOutputIndex(op.getOutput()) < 0)
    return op->emitOpError("writes to a value that is not an output of the kernel [assign.target]");
  auto output = cast<MemTensorType>(op.getOutput().getType()); // of two dimensions: the kernel's verifier
  std::optional<Dim> columns = parseDim(op.getColumns());
  if (!columns) return op->emitOpError("columns '") << op.getColumns() << "' is not a dimension [dim.form]";
  if (op.isCombine()) {
    if (!kernel.getRouting())
      return op->emitOpError("adds rows by token, but the kernel has no routing [row.routing]");
    if (output.getElement() != "f32")
      return op->emitOpError("adds into an output of ")
             << output.getElement().getValue() << "; expected f32 [type.combine]";
  }
  RowAccess line = op.isCombine() ? RowAccess::Token : RowAccess::Row;
  if (failed(verifyLine(op, "output", line, output.getDim(0), "assign.row")) ||
      failed(verifySame(op, "the output's last dimension", output.getDim(1), "columns", op.getColumns(),
                        "assign.column")))
    return failure();
  for (unsigned i = 0; i < reads; ++i)
    if (failed(verifyRead(op, i, *columns))) return failure();
  return success();
}

/// The scalar code: f32 (and i1 for conditions), from a fixed list of ops, on region values and scalars of
/// the kernel.
static LogicalResult verifyScalarCode(WriteOpInterface op) {
  Block &block = op.getBody().front();
  if (!isa<YieldOp>(block.getTerminator())) return op->emitOpError("region must end with quern.yield");
  for (Operation &inner : block) {
    if (!isa<YieldOp, arith::ConstantOp, arith::AddFOp, arith::SubFOp, arith::MulFOp, arith::DivFOp,
             arith::NegFOp, arith::MinimumFOp, arith::MaximumFOp, arith::CmpFOp, arith::SelectOp, math::ExpOp,
             math::TanhOp, math::ErfOp>(inner))
      return inner.emitOpError("is not allowed in the region of ") << op->getName();
    for (Type type : inner.getResultTypes())
      if (!type.isF32() && !type.isInteger(1))
        return inner.emitOpError("has a result of type ")
               << type << " in the region of " << op->getName() << "; expected f32 or i1";
  }
  return success();
}

LogicalResult StoreOp::verify() { return verifyWrite(*this); }
LogicalResult StoreOp::verifyRegions() { return verifyScalarCode(*this); }
LogicalResult CombineOp::verify() { return verifyWrite(*this); }
LogicalResult CombineOp::verifyRegions() { return verifyScalarCode(*this); }
