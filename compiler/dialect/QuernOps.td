// Ops of the `quern` dialect.
#ifndef QUERN_OPS_TD
#define QUERN_OPS_TD

include "compiler/dialect/QuernTypes.td"
include "compiler/dialect/QuernInterfaces.td"
include "mlir/IR/BuiltinAttributes.td"
include "mlir/IR/OpAsmInterface.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

class Quern_Op<string mnemonic, list<Trait> traits = []> : Op<Quern_Dialect, mnemonic, traits>;

def Quern_CodecOp : Quern_Op<"codec", [Symbol, HasParent<"::mlir::ModuleOp">]> {
  let summary = "how a 4-bit code becomes a weight: value = (table[code] - zero) * scale";
  let description = [{
    ```
    quern.codec @nf4 {table = array<f32: ...16 values>, first = "high", scale = "f32", block = 64 : i64, zero = false}
    ```
    `first` says which nibble of byte j is element 2j. `block` is the default for generated data; a packed operand's own block
    size wins. With `zero` there is one u4 zero point per block, in the code domain.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, DenseF32ArrayAttr:$table, StrAttr:$first, StrAttr:$scale, I64Attr:$block,
      BoolAttr:$zero);
  let assemblyFormat = "$sym_name attr-dict";
  let hasVerifier = 1;
}

def Quern_KernelOp : Quern_Op<"kernel", [Symbol, IsolatedFromAbove, SingleBlock, HasParent<"::mlir::ModuleOp">,
    DeclareOpInterfaceMethods<SymbolUserOpInterface>,
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmBlockArgumentNames"]>]> {
  let summary = "one kernel: contractions, then writes";
  let description = [{
    The block's arguments are the parameters, then the outputs. Scalars are f32. `rows` is the row dimension: "R" (the live rows
    of the routing) or, without a routing, a dimension of the operands. `schedule` (one line) and `problem` appear at the
    scheduled stage.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, StrArrayAttr:$params, StrArrayAttr:$outputs, OptionalAttr<StrAttr>:$rows,
      OptionalAttr<StrAttr>:$schedule, OptionalAttr<DictionaryAttr>:$problem);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name `params` $params `outputs` $outputs attr-dict-with-keyword $body";
  let extraClassDeclaration = [{
    unsigned getNumParams() { return getParams().size(); }
    unsigned getNumOutputs() { return getOutputs().size(); }
    ::llvm::StringRef getParamName(unsigned i) { return ::llvm::cast<::mlir::StringAttr>(getParams()[i]).getValue(); }
    ::llvm::StringRef getOutputName(unsigned i) { return ::llvm::cast<::mlir::StringAttr>(getOutputs()[i]).getValue(); }
    ::mlir::BlockArgument getParam(unsigned i) { return getBody().getArgument(i); }
    ::mlir::BlockArgument getOutput(unsigned i) { return getBody().getArgument(getNumParams() + i); }
    /// The routing parameter, or null: a dense kernel.
    ::mlir::BlockArgument getRouting();
    /// Position of `value` among the outputs, or -1.
    int getOutputIndex(::mlir::Value value);
    /// "R" with a routing, else `rows`.
    ::llvm::StringRef getRowDim();
  }];
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
}

def Quern_ReturnOp : Quern_Op<"return", [Terminator, Pure, HasParent<"KernelOp">]> {
  let summary = "ends a kernel";
  let assemblyFormat = "attr-dict";
}

def Quern_YieldOp : Quern_Op<"yield", [Terminator, Pure, ParentOneOf<["StoreOp", "CombineOp"]>]> {
  let summary = "the value of one output element";
  let arguments = (ins F32:$value);
  let assemblyFormat = "$value attr-dict `:` type($value)";
}

def Quern_GroupedMatmulOp : Quern_Op<"grouped_matmul", [Pure, HasParent<"KernelOp">]> {
  let summary = "C[r, n] = sum(k) lhs[row, k] * rhs[(expert,) n, k], accumulated in f32";
  let description = [{
    ```
    %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
        : !quern.tensor<["T", "K"], "act">, !quern.packed<@nf4, ["E", "N", "K"]> -> !quern.rows<"N">
    ```
    The lhs is a tensor (by `row` or `token`) or an earlier contraction's rows (by `row`). The codec of a packed rhs is the
    dequantize prologue: weights are decoded inside the contraction and never written to memory.
  }];
  let arguments = (ins AnyTypeOf<[Quern_TensorType, Quern_RowsType]>:$lhs, AnyTypeOf<[Quern_PackedType, Quern_TensorType]>:$rhs,
      Quern_RowAccessAttr:$lhs_row, Quern_RowAccessAttr:$rhs_row, StrAttr:$columns, StrAttr:$reduce);
  let results = (outs Quern_RowsType:$result);
  let assemblyFormat = [{
    $lhs `by` custom<RowAccess>($lhs_row) `,` $rhs `by` custom<RowAccess>($rhs_row) `columns` $columns `reduce` $reduce attr-dict
    `:` type($lhs) `,` type($rhs) `->` custom<FullType>(type($result))
  }];
  let hasVerifier = 1;
}

class Quern_WriteOp<string mnemonic> : Quern_Op<mnemonic, [SingleBlock, HasParent<"KernelOp">,
    DeclareOpInterfaceMethods<Quern_WriteOpInterface>, MemoryEffects<[MemRead, MemWrite]>]> {
  let arguments = (ins Quern_TensorType:$output, StrAttr:$columns,
      Variadic<AnyTypeOf<[Quern_RowsType, Quern_TensorType, Quern_RoutingType]>>:$reads, Quern_RowAccessArrayAttr:$rows,
      DenseI64ArrayAttr:$muls, StrArrayAttr:$offsets);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $output `columns` $columns `reads` `(` $reads `)` `rows` custom<RowAccessList>($rows) `muls` $muls `offsets` $offsets
    attr-dict `:` custom<FullType>(type($output)) `,` custom<TypeList>(type($reads)) $body
  }];
  let hasVerifier = 1;
  let hasRegionVerifier = 1;
}

def Quern_StoreOp : Quern_WriteOp<"store"> {
  let summary = "output[row, j] = value, for j in [0, columns)";
  let description = [{
    ```
    quern.store %h columns "N/2" reads(%c, %c) rows [row, row] muls [2, 2] offsets ["0", "1"]
        : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">, !quern.rows<"N">) {
    ^bb0(%g: f32, %u: f32):
      %v = arith.mulf %g, %u : f32
      quern.yield %v : f32
    }
    ```
    Read i is column muls[i] * j + offsets[i] of its operand, on the line that rows[i] picks. An operand without columns has
    mul 0 and offset "-"; so has r.weight, which is the routing read by `weight`. The value is rounded once, to the output's type.
  }];
}

def Quern_CombineOp : Quern_WriteOp<"combine"> {
  let summary = "output[r.token, j] += value, for j in [0, columns)";
  let description = [{
    The form of `quern.store`. The output is f32 with a line per token; the rows that meet in one token are added in ascending
    order, so the same input gives the same bits. A token without rows gets zero.
  }];
}

#endif
