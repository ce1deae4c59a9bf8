// Registration and verifiers of the `qtile` dialect.
#include "codegen/dialect/Qtile.h"
#include "codegen/gpu/PrimitiveTypes.h"
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

LogicalResult ProgramOp::verifyRegions() {
  if (getBody().getNumArguments() != getParams().size())
    return emitOpError() << "has " << getBody().getNumArguments() << " arguments and " << getParams().size()
                         << " entries in params";
  return success();
}

LogicalResult PrimOp::verify() {
  std::string reason =
      ::quern::gpu::checkPrimitive(getPrimitive(), getInputs().getTypes(), getOutputs().getTypes());
  return reason.empty() ? success() : emitOpError(reason);
}

#define GET_OP_CLASSES
#include "codegen/dialect/QtileOps.cpp.inc"
