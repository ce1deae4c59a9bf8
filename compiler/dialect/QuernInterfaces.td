// The interface shared by `quern.store` and `quern.combine`.
#ifndef QUERN_INTERFACES_TD
#define QUERN_INTERFACES_TD

include "mlir/IR/OpBase.td"

def Quern_WriteOpInterface : OpInterface<"WriteOpInterface"> {
  let cppNamespace = "::mlir::quern";
  let description = [{
    A pointwise write: for each row and each j in [0, columns), the region computes one f32 from the values read and from the
    kernel's scalars.
  }];
  let methods = [
    InterfaceMethod<"the tensor written", "::mlir::Value", "getOutput">,
    InterfaceMethod<"columns written, as text", "::llvm::StringRef", "getColumns">,
    InterfaceMethod<"the operands read, one per region argument", "::mlir::OperandRange", "getReads">,
    InterfaceMethod<"row access of each read", "::mlir::ArrayAttr", "getRows">,
    InterfaceMethod<"column factor of each read", "::llvm::ArrayRef<int64_t>", "getMuls">,
    InterfaceMethod<"column offset of each read", "::mlir::ArrayAttr", "getOffsets">,
    InterfaceMethod<"the scalar code", "::mlir::Region &", "getBody">
  ];
  let extraSharedClassDeclaration = [{
    /// The i-th read, as one record.
    ::mlir::quern::Read getRead(unsigned i) {
      auto op = $_op;
      ::llvm::StringRef offset = ::llvm::cast<::mlir::StringAttr>(op.getOffsets()[i]).getValue();
      return {op.getReads()[i], ::llvm::cast<::mlir::quern::RowAccessAttr>(op.getRows()[i]).getValue(), op.getMuls()[i],
              offset, offset != "-", op.getBody().getArgument(i)};
    }
    /// The value that the region yields.
    ::mlir::Value getYielded() { return $_op.getBody().front().getTerminator()->getOperand(0); }
    /// output[r.token, j] += value, rather than output[row, j] = value.
    bool isCombine() { return $_op->getName().getStringRef() == "quern.combine"; }
  }];
}

#endif
