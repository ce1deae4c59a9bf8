// Types of the `quern` dialect: their rules and accessors.
#include "compiler/dialect/Dim.h"
#include "compiler/dialect/Quern.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::quern;

#define GET_TYPEDEF_CLASSES
#include "compiler/dialect/QuernTypes.cpp.inc"

void QuernDialect::registerTypes() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "compiler/dialect/QuernTypes.cpp.inc"
      >();
}

static StringRef textOf(ArrayAttr dims, unsigned i) { return cast<StringAttr>(dims[i]).getValue(); }

StringRef MemTensorType::getDim(unsigned i) const { return textOf(getDims(), i); }
StringRef PackedType::getDim(unsigned i) const { return textOf(getDims(), i); }
StringRef RoutingType::getTokens() const { return textOf(getDims(), 0); }
StringRef RoutingType::getExperts() const { return textOf(getDims(), 1); }

using Emit = function_ref<InFlightDiagnostic()>;

static LogicalResult verifyDim(Emit emitError, Attribute attr) {
  auto text = dyn_cast<StringAttr>(attr);
  if (!text) return emitError() << "expected a dimension as text, got " << attr << " [dim.form]";
  std::optional<Dim> dim = parseDim(text.getValue());
  if (!dim)
    return emitError() << "'" << text.getValue()
                       << "' is not a dimension; expected forms such as N, N/2, 2*N, 3*N/2, 64 [dim.form]";
  if (dim->mul <= 0) return emitError() << "dimension '" << text.getValue() << "' is not positive [dim.form]";
  if (!isWithinLimits(*dim))
    return emitError() << "dimension '" << text.getValue()
                       << "' is too large; expected at most 2^31, and factors up to 2^20 [dim.form]";
  return success();
}

static LogicalResult verifyDims(Emit emitError, ArrayAttr dims, unsigned least, unsigned most, StringRef what,
                                StringRef rule) {
  if (dims.size() < least || dims.size() > most) {
    InFlightDiagnostic error = emitError()
                               << what << " has " << dims.size() << " dimensions; expected " << least;
    if (most != least) error << " to " << most;
    return error << " [" << rule << "]";
  }
  for (Attribute dim : dims)
    if (failed(verifyDim(emitError, dim))) return failure();
  return success();
}

LogicalResult MemTensorType::verify(Emit emitError, ArrayAttr dims, StringAttr element) {
  if (!llvm::is_contained({"act", "float", "f32", "bf16", "f16"}, element.getValue()))
    return emitError() << "element type '" << element.getValue()
                       << "' is unknown; expected act, float, f32, bf16 or f16 [type.unknown]";
  return verifyDims(emitError, dims, 1, 3, "a tensor", "type.rank");
}

LogicalResult PackedType::verify(Emit emitError, FlatSymbolRefAttr, ArrayAttr dims) {
  return verifyDims(emitError, dims, 2, 3, "a packed operand", "type.packed");
}

LogicalResult RoutingType::verify(Emit emitError, ArrayAttr dims) {
  if (failed(verifyDims(emitError, dims, 2, 2, "a routing", "routing.dims"))) return failure();
  Dim tokens = *parseDim(textOf(dims, 0)), experts = *parseDim(textOf(dims, 1));
  auto isPlain = [](const Dim &d) { return !d.isConstant() && d.mul == 1 && d.div == 1 && d.sym != "R"; };
  if (isPlain(tokens) && isPlain(experts) && tokens.sym != experts.sym) return success();
  return emitError() << "a routing has dimensions " << dims
                     << "; expected two different plain symbols, neither of them R [routing.dims]";
}

LogicalResult RowsType::verify(Emit emitError, StringAttr columns) { return verifyDim(emitError, columns); }
