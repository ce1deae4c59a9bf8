// Types of kernel operands. Extents are symbolic: a dimension is text (see compiler/dialect/Dim.h).
#ifndef QUERN_TYPES_TD
#define QUERN_TYPES_TD

include "compiler/dialect/QuernDialect.td"

class Quern_Type<string cppName, string typeMnemonic> : TypeDef<Quern_Dialect, cppName> {
  let mnemonic = typeMnemonic;
  let genVerifyDecl = 1;
}

def Quern_TensorType : Quern_Type<"MemTensor", "tensor"> {
  let summary = "a tensor in memory, 1 to 3 dimensions";
  let description = [{
    `!quern.tensor<["T", "K"], "act">`. The element is `act` (one dtype variable per kernel), `float` (any of f32, bf16,
    f16, each operand on its own) or a literal f32, bf16, f16.
  }];
  let parameters = (ins "::mlir::ArrayAttr":$dims, "::mlir::StringAttr":$element);
  let assemblyFormat = "`<` $dims `,` $element `>`";
  let extraClassDeclaration = [{
    int64_t getRank() const { return getDims().size(); }
    /// Text of dimension `i`.
    ::llvm::StringRef getDim(unsigned i) const;
  }];
}

def Quern_PackedType : Quern_Type<"Packed", "packed"> {
  let summary = "4-bit codes and their scales, [N, K] or [E, N, K]";
  let description = [{ `!quern.packed<@nf4, ["E", "N", "K"]>`; the symbol names a `quern.codec` of the module. }];
  let parameters = (ins "::mlir::FlatSymbolRefAttr":$codec, "::mlir::ArrayAttr":$dims);
  let assemblyFormat = "`<` $codec `,` $dims `>`";
  let extraClassDeclaration = [{
    int64_t getRank() const { return getDims().size(); }
    ::llvm::StringRef getDim(unsigned i) const;
  }];
}

def Quern_RoutingType : Quern_Type<"Routing", "routing"> {
  let summary = "rows sorted by expert: for each row its token, expert and weight";
  let description = [{ `!quern.routing<["T", "E"]>`. }];
  let parameters = (ins "::mlir::ArrayAttr":$dims);
  let assemblyFormat = "`<` $dims `>`";
  let extraClassDeclaration = [{
    ::llvm::StringRef getTokens() const;
    ::llvm::StringRef getExperts() const;
  }];
}

def Quern_RowsType : Quern_Type<"Rows", "rows"> {
  let summary = "a contraction's result: the live rows by `columns` values of f32, never rounded";
  let description = [{ `!quern.rows<"N">`. }];
  let parameters = (ins "::mlir::StringAttr":$columns);
  let assemblyFormat = "`<` $columns `>`";
}

#endif
