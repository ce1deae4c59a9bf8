// Checks shared by the verifiers of contractions and writes. A label in brackets is the rule of
// compiler/LANGUAGE.md that the form would break; messages without one are about the form alone.
#pragma once
#include "compiler/dialect/Dim.h"
#include "compiler/dialect/Quern.h"

namespace mlir::quern {

/// `access` is possible in the kernel around `op`: tokens, experts and weights come from a routing.
LogicalResult verifyAccess(Operation *op, RowAccess access);

/// `dim`, the first dimension of `what`, counts what `access` picks among.
LogicalResult verifyLine(Operation *op, StringRef what, RowAccess access, StringRef dim, StringRef rule);

/// Two dimensions are the same.
LogicalResult verifySame(Operation *op, StringRef what, StringRef found, StringRef whatElse,
                         StringRef expected, StringRef rule);

/// `operand` is a parameter or a contraction: outputs are written only.
LogicalResult verifyIsInput(Operation *op, StringRef what, Value operand);

} // namespace mlir::quern
