// The `quern` dialect: what a kernel computes, one to one with the front end's normal form. Nothing here names a target.
#ifndef QUERN_DIALECT_TD
#define QUERN_DIALECT_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/AttrTypeBase.td"

def Quern_Dialect : Dialect {
  let name = "quern";
  let cppNamespace = "::mlir::quern";
  let summary = "Fused grouped matmuls on packed 4-bit weights";
  let description = [{
    A module holds codecs and kernels. A kernel's block has contractions (`quern.grouped_matmul`) followed by writes
    (`quern.store`, `quern.combine`), whose regions are scalar f32 code run once per output element.
    Dimensions are strings such as "N", "N/2", "2*N", "3*N/2" and "64".
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::math::MathDialect"];
  let useDefaultAttributePrinterParser = 1;
  let useDefaultTypePrinterParser = 1;
  let extraClassDeclaration = [{
    void registerTypes();
  }];
}

/// How a row r picks its line of an operand: not at all, by r, by r.token, by r.expert; `weight` is r.weight itself.
def Quern_RowAccess : I32EnumAttr<"RowAccess", "how a row picks its line of an operand", [
    I32EnumAttrCase<"None", 0, "none">, I32EnumAttrCase<"Row", 1, "row">, I32EnumAttrCase<"Token", 2, "token">,
    I32EnumAttrCase<"Expert", 3, "expert">, I32EnumAttrCase<"Weight", 4, "weight">]> {
  let cppNamespace = "::mlir::quern";
  let genSpecializedAttr = 0;
}
def Quern_RowAccessAttr : EnumAttr<Quern_Dialect, Quern_RowAccess, "row_access"> {
  let assemblyFormat = "`<` $value `>`";
}
def Quern_RowAccessArrayAttr : TypedArrayAttrBase<Quern_RowAccessAttr, "array of row accesses">;

#endif
