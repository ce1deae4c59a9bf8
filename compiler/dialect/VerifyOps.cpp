// Rules of contractions and writes.
#include "compiler/dialect/Dim.h"
#include "compiler/dialect/Quern.h"

using namespace mlir;
using namespace mlir::quern;

/// Dimension of the lines that `access` picks among; empty: none, or a dense kernel that does not name its
/// rows.
static StringRef lineDim(KernelOp kernel, RowAccess access) {
  auto routing = kernel.getRouting() ? cast<RoutingType>(kernel.getRouting().getType()) : RoutingType();
  switch (access) {
  case RowAccess::Row: return kernel.getRowDim();
  case RowAccess::Token: return routing.getTokens();
  case RowAccess::Expert: return routing.getExperts();
  default: return "";
  }
}

/// `access` is possible in this kernel: tokens, experts and weights come from a routing.
static LogicalResult verifyAccess(Operation *op, RowAccess access) {
  bool routed = access == RowAccess::Token || access == RowAccess::Expert || access == RowAccess::Weight;
  if (routed && !cast<KernelOp>(op->getParentOp()).getRouting())
    return op->emitOpError("reads by ") << stringifyRowAccess(access) << ", but the kernel has no routing";
  return success();
}

static LogicalResult verifyLine(Operation *op, StringRef what, RowAccess access, StringRef dim) {
  StringRef expected = lineDim(cast<KernelOp>(op->getParentOp()), access);
  if (expected.empty() || sameDim(dim, expected)) return success();
  return op->emitOpError() << what << " has '" << dim << "' lines, but by " << stringifyRowAccess(access)
                           << " it needs '" << expected << "'";
}

static LogicalResult verifySame(Operation *op, StringRef what, StringRef found, StringRef whatElse,
                                StringRef expected) {
  if (sameDim(found, expected)) return success();
  return op->emitOpError() << what << " is '" << found << "', but " << whatElse << " is '" << expected << "'";
}

/// `operand` is a parameter or a contraction: outputs are written only.
static LogicalResult verifyIsInput(Operation *op, StringRef what, Value operand) {
  auto kernel = cast<KernelOp>(op->getParentOp());
  int output = kernel.getOutputIndex(operand);
  if (output < 0) return success();
  return op->emitOpError() << what << " is the output '" << kernel.getOutputName(output)
                           << "'; outputs cannot be read";
}

LogicalResult GroupedMatmulOp::verify() {
  for (StringRef dim : {getColumns(), getReduce()})
    if (!parseDim(dim)) return emitOpError("'") << dim << "' is not a dimension";
  if (failed(verifyAccess(*this, getLhsRow())) || failed(verifyAccess(*this, getRhsRow())) ||
      failed(verifyIsInput(*this, "lhs", getLhs())) || failed(verifyIsInput(*this, "rhs", getRhs())))
    return failure();

  if (auto rows = dyn_cast<RowsType>(getLhs().getType())) {
    if (getLhsRow() != RowAccess::Row)
      return emitOpError("lhs is a contraction and is read by ")
             << stringifyRowAccess(getLhsRow()) << "; expected row";
    if (failed(verifySame(*this, "the lhs's last dimension", rows.getColumns(), "reduce", getReduce())))
      return failure();
  } else {
    auto lhs = cast<MemTensorType>(getLhs().getType());
    if (getLhsRow() != RowAccess::Row && getLhsRow() != RowAccess::Token)
      return emitOpError("lhs is read by ") << stringifyRowAccess(getLhsRow()) << "; expected row or token";
    if (lhs.getRank() != 2) return emitOpError("lhs has ") << lhs.getRank() << " dimensions; expected 2";
    if (failed(verifyLine(*this, "lhs", getLhsRow(), lhs.getDim(0))) ||
        failed(verifySame(*this, "the lhs's last dimension", lhs.getDim(1), "reduce", getReduce())))
      return failure();
  }

  auto packed = dyn_cast<PackedType>(getRhs().getType());
  ArrayAttr dims = packed ? packed.getDims() : cast<MemTensorType>(getRhs().getType()).getDims();
  auto dim = [&](unsigned fromEnd) { return cast<StringAttr>(dims[dims.size() - 1 - fromEnd]).getValue(); };
  if (getRhsRow() != RowAccess::None && getRhsRow() != RowAccess::Expert)
    return emitOpError("rhs is read by ") << stringifyRowAccess(getRhsRow()) << "; expected none or expert";
  unsigned rank = getRhsRow() == RowAccess::Expert ? 3 : 2;
  if (dims.size() != rank)
    return emitOpError("rhs has ") << dims.size() << " dimensions; by " << stringifyRowAccess(getRhsRow())
                                   << " it needs " << rank;
  if (rank == 3 && failed(verifyLine(*this, "rhs", RowAccess::Expert, dim(2)))) return failure();
  if (failed(verifySame(*this, "the rhs's last dimension", dim(0), "reduce", getReduce())) ||
      failed(verifySame(*this, "the rhs's dimension before the last", dim(1), "columns", getColumns())))
    return failure();
  return verifySame(*this, "the result's columns", getResult().getType().getColumns(), "columns",
                    getColumns());
}

/// Read i of a write: its operand, row access and columns.
static LogicalResult verifyRead(WriteOpInterface op, unsigned i, const Dim &columns) {
  Read read = op.getRead(i);
  std::string what = "read " + std::to_string(i);
  if (failed(verifyAccess(op, read.row)) || failed(verifyIsInput(op, what, read.value))) return failure();
  if (!read.hasColumn && read.mul != 0)
    return op->emitOpError() << what << " has no column but mul " << read.mul << "; expected 0";

  Type type = read.value.getType();
  if (isa<RoutingType>(type) != (read.row == RowAccess::Weight))
    return op->emitOpError() << what << " reads " << type << " by " << stringifyRowAccess(read.row)
                             << "; a routing, and only a routing, is read by weight";
  if (isa<RoutingType>(type)) {
    if (read.hasColumn)
      return op->emitOpError() << what << " is a row weight and has no column; expected offset '-'";
    return success();
  }

  StringRef extent;
  if (auto rows = dyn_cast<RowsType>(type)) {
    if (read.row != RowAccess::Row || !read.hasColumn)
      return op->emitOpError() << what << " is a contraction; expected row access 'row' and a column";
    extent = rows.getColumns();
  } else {
    auto tensor = cast<MemTensorType>(type);
    bool hasLine = read.row != RowAccess::None;
    if (tensor.getRank() != int(hasLine) + int(read.hasColumn))
      return op->emitOpError() << what << " picks " << int(hasLine) + int(read.hasColumn)
                               << " of the tensor's " << tensor.getRank() << " dimensions; expected all";
    if (hasLine && failed(verifyLine(op, what, read.row, tensor.getDim(0)))) return failure();
    extent = tensor.getDim(tensor.getRank() - 1);
  }
  if (!read.hasColumn) return success();
  std::optional<Dim> offset = parseDim(read.offset);
  if (!offset) return op->emitOpError() << what << ": offset '" << read.offset << "' is not a dimension";
  if (certainlyOutOfRange(read.mul, *offset, columns, *parseDim(extent)))
    return op->emitOpError() << what << ": column " << read.mul << "*j + " << read.offset
                             << " leaves the extent '" << extent << "' for j in [0, " << op.getColumns()
                             << ")";
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
    return op->emitOpError("writes to a value that is not an output of the kernel");
  auto output = cast<MemTensorType>(op.getOutput().getType());
  if (output.getRank() != 2)
    return op->emitOpError("output has ") << output.getRank() << " dimensions; expected 2";
  std::optional<Dim> columns = parseDim(op.getColumns());
  if (!columns) return op->emitOpError("columns '") << op.getColumns() << "' is not a dimension";
  if (op.isCombine()) {
    if (!kernel.getRouting()) return op->emitOpError("adds rows by token, but the kernel has no routing");
    if (output.getElement() != "f32")
      return op->emitOpError("adds into an output of ") << output.getElement().getValue() << "; expected f32";
  }
  if (failed(
          verifyLine(op, "output", op.isCombine() ? RowAccess::Token : RowAccess::Row, output.getDim(0))) ||
      failed(verifySame(op, "the output's last dimension", output.getDim(1), "columns", op.getColumns())))
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
