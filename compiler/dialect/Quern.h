// The `quern` dialect in C++: types, ops and the record of one read. Include this, not the generated files.
#pragma once
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "compiler/dialect/QuernDialect.h.inc"
#include "compiler/dialect/QuernEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "compiler/dialect/QuernAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "compiler/dialect/QuernTypes.h.inc"

namespace mlir::quern {

/// One read of a write: column mul * j + offset of `value`, on the line that `row` picks.
struct Read {
  Value value; // rows, tensor, or the routing (row == Weight: r.weight)
  RowAccess row;
  int64_t mul;      // 0 without a column
  StringRef offset; // a dimension's text, "-" without a column
  bool hasColumn;
  BlockArgument arg; // the f32 that the region sees
};

} // namespace mlir::quern

#include "compiler/dialect/QuernInterfaces.h.inc"
#define GET_OP_CLASSES
#include "compiler/dialect/QuernOps.h.inc"
