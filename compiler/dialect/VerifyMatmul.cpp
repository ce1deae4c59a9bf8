// Rules of contractions.
#include "compiler/dialect/Verify.h"

using namespace mlir;
using namespace mlir::quern;

static LogicalResult verifyLhs(GroupedMatmulOp op) {
  RowAccess access = op.getLhsRow();
  StringRef reduced;
  if (auto rows = dyn_cast<RowsType>(op.getLhs().getType())) {
    if (access != RowAccess::Row)
      return op.emitOpError("lhs is a contraction and is read by ")
             << stringifyRowAccess(access) << "; expected row [sum.rows]";
    reduced = rows.getColumns();
  } else {
    auto lhs = cast<MemTensorType>(op.getLhs().getType());
    if (access != RowAccess::Row && access != RowAccess::Token)
      return op.emitOpError("lhs is read by ")
             << stringifyRowAccess(access) << "; expected row or token [sum.rows]";
    if (lhs.getRank() != 2)
      return op.emitOpError("lhs has ") << lhs.getRank() << " dimensions; expected 2 [access.rank]";
    if (failed(verifyLine(op, "lhs", access, lhs.getDim(0), "access.shape"))) return failure();
    reduced = lhs.getDim(1);
  }
  return verifySame(op, "the lhs's last dimension", reduced, "reduce", op.getReduce(), "sum.shape");
}

static LogicalResult verifyRhs(GroupedMatmulOp op) {
  RowAccess access = op.getRhsRow();
  if (access != RowAccess::None && access != RowAccess::Expert)
    return op.emitOpError("rhs is read by ")
           << stringifyRowAccess(access) << "; expected none or expert [sum.columns]";
  auto packed = dyn_cast<PackedType>(op.getRhs().getType());
  ArrayAttr dims = packed ? packed.getDims() : cast<MemTensorType>(op.getRhs().getType()).getDims();
  unsigned rank = access == RowAccess::Expert ? 3 : 2;
  if (dims.size() != rank)
    return op.emitOpError("rhs has ") << dims.size() << " dimensions; by " << stringifyRowAccess(access)
                                      << " it needs " << rank << " [access.rank]";
  auto dim = [&](unsigned i) { return cast<StringAttr>(dims[i]).getValue(); };
  if (rank == 3 && failed(verifyLine(op, "rhs", access, dim(0), "access.shape"))) return failure();
  if (failed(
          verifySame(op, "the rhs's last dimension", dim(rank - 1), "reduce", op.getReduce(), "sum.shape")))
    return failure();
  return verifySame(op, "the rhs's dimension before the last", dim(rank - 2), "columns", op.getColumns(),
                    "sum.shape");
}

LogicalResult GroupedMatmulOp::verify() {
  for (StringRef dim : {getColumns(), getReduce()})
    if (!parseDim(dim)) return emitOpError("'") << dim << "' is not a dimension [dim.form]";
  if (failed(verifyAccess(*this, getLhsRow())) || failed(verifyAccess(*this, getRhsRow())) ||
      failed(verifyIsInput(*this, "lhs", getLhs())) || failed(verifyIsInput(*this, "rhs", getRhs())) ||
      failed(verifyLhs(*this)) || failed(verifyRhs(*this)))
    return failure();
  return verifySame(*this, "the result's columns", getResult().getType().getColumns(), "columns",
                    getColumns(), "sum.shape");
}
