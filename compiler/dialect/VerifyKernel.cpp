// Rules of codecs and kernels as a whole.
#include "compiler/dialect/Dim.h"
#include "compiler/dialect/Quern.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::quern;

LogicalResult CodecOp::verify() {
  if (getTable().size() != 16)
    return emitOpError("table has ") << getTable().size() << " entries; expected 16 [codec.table]";
  if (getFirst() != "high" && getFirst() != "low")
    return emitOpError("first is '") << getFirst() << "'; expected high or low [codec.first]";
  if (getScale() != "f32" && getScale() != "bf16" && getScale() != "e8m0")
    return emitOpError("scale is '") << getScale() << "'; expected f32, bf16 or e8m0 [codec.scale]";
  int64_t block = getBlock();
  if (block < 32 || block > 4096 || !llvm::isPowerOf2_64(uint64_t(block)))
    return emitOpError("block is ") << block << "; expected a power of two from 32 to 4096 [codec.block]";
  return success();
}

BlockArgument KernelOp::getRouting() {
  for (unsigned i = 0; i < getNumParams(); ++i)
    if (isa<RoutingType>(getParam(i).getType())) return getParam(i);
  return {};
}

int KernelOp::getOutputIndex(Value value) {
  auto argument = dyn_cast<BlockArgument>(value);
  if (!argument || argument.getOwner() != &getBody().front()) return -1;
  return int(argument.getArgNumber()) < int(getNumParams()) ? -1
                                                            : int(argument.getArgNumber() - getNumParams());
}

StringRef KernelOp::getRowDim() {
  if (getRouting()) return "R";
  return getRows().value_or("");
}

static bool isOutputType(Type type) {
  auto tensor = dyn_cast<MemTensorType>(type);
  return tensor && tensor.getRank() == 2 && tensor.getElement() != "float";
}

static LogicalResult verifyArguments(KernelOp kernel) {
  Block &block = kernel.getBody().front();
  unsigned params = kernel.getNumParams(), outputs = kernel.getNumOutputs();
  if (block.getNumArguments() != params + outputs)
    return kernel.emitOpError("has ")
           << block.getNumArguments() << " block arguments; expected one for each of the " << params
           << " params and " << outputs << " outputs";
  if (outputs == 0) return kernel.emitOpError("has no output");
  llvm::StringSet<> names;
  unsigned routings = 0;
  for (unsigned i = 0; i < params + outputs; ++i) {
    bool isParam = i < params;
    StringRef name = isParam ? kernel.getParamName(i) : kernel.getOutputName(i - params);
    Type type = block.getArgument(i).getType();
    if (!names.insert(name).second)
      return kernel.emitOpError("names '") << name << "' twice [name.duplicate]";
    if (!isParam && !isOutputType(type))
      return kernel.emitOpError("output '")
             << name << "' has type " << type
             << "; expected a !quern.tensor of two dimensions of act, f32, bf16 or f16 [type.output]";
    if (isParam && !isa<MemTensorType, PackedType, RoutingType, Float32Type>(type))
      return kernel.emitOpError("param '")
             << name << "' has type " << type
             << "; expected a !quern.tensor, !quern.packed, !quern.routing or f32 [type.unknown]";
    routings += isa<RoutingType>(type);
  }
  if (routings > 1)
    return kernel.emitOpError("has ") << routings << " routings; expected at most one [routing.one]";
  return success();
}

LogicalResult KernelOp::verify() {
  if (failed(verifyArguments(*this))) return failure();
  std::optional<StringRef> rows = getRows();
  if (rows && !parseDim(*rows)) return emitOpError("rows '") << *rows << "' is not a dimension [dim.form]";
  if (getRouting()) {
    if (rows && *rows != "R")
      return emitOpError("has a routing, so rows must be 'R', not '") << *rows << "' [dim.rows]";
  } else {
    if (!rows) return emitOpError("has no routing, so rows must name the row dimension");
    if (*rows == "R") return emitOpError("has rows 'R' but no routing [dim.rows]");
  }
  if (getSchedule() && getSchedule()->contains('\n')) return emitOpError("schedule must be one line");
  return success();
}

LogicalResult KernelOp::verifyRegions() {
  Block &block = getBody().front();
  if (!isa<ReturnOp>(block.getTerminator())) return emitOpError("must end with quern.return");
  SmallVector<unsigned> writes(getNumOutputs());
  for (Operation &op : block) {
    if (auto write = dyn_cast<WriteOpInterface>(op)) {
      ++writes[getOutputIndex(write.getOutput())]; // an output: the write's own verifier
    } else if (!isa<GroupedMatmulOp, ReturnOp>(op)) {
      return op.emitOpError(
          "is not allowed in a kernel; expected quern.grouped_matmul, quern.store or quern.combine");
    }
  }
  for (unsigned i = 0; i < getNumOutputs(); ++i)
    if (writes[i] != 1)
      return emitOpError("writes output '")
             << getOutputName(i) << "' " << writes[i] << " times; expected once "
             << (writes[i] ? "[assign.twice]" : "[output.unwritten]");
  return success();
}

LogicalResult KernelOp::verifySymbolUses(SymbolTableCollection &symbols) {
  for (unsigned i = 0; i < getNumParams(); ++i)
    if (auto packed = dyn_cast<PackedType>(getParam(i).getType()))
      if (!symbols.lookupNearestSymbolFrom<CodecOp>(*this, packed.getCodec()))
        return emitOpError("param '") << getParamName(i) << "' names codec " << packed.getCodec()
                                      << ", which this module does not have [type.unknown]";
  return success();
}
