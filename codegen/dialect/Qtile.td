// The `qtile` dialect: a GPU kernel as a persistent tile program. Each op below is expanded by one pass of its own
// (codegen/gpu); what remains are `qtile.prim`, one GPU primitive each.
#ifndef QTILE_TD
#define QTILE_TD

include "mlir/IR/OpBase.td"
include "mlir/IR/BuiltinAttributes.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/Dialect/LLVMIR/LLVMOpBase.td"

def Qtile_Dialect : Dialect {
  let name = "qtile";
  let cppNamespace = "::mlir::qtile";
  let summary = "Persistent tile programs for warp-specialised GPU kernels";
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::scf::SCFDialect", "::mlir::LLVM::LLVMDialect"];
}

class Qtile_Op<string mnemonic, list<Trait> traits = []> : Op<Qtile_Dialect, mnemonic, traits>;
class Qtile_Region<string mnemonic, list<Trait> traits = []>
    : Qtile_Op<mnemonic, !listconcat(traits, [SingleBlock, NoTerminator])>;

def Qtile_ProgramOp : Qtile_Region<"program", [Symbol, IsolatedFromAbove, HasParent<"::mlir::ModuleOp">]> {
  let summary = "one GPU kernel";
  let description = [{
    `params` names the block's arguments ("map", "codes 2", "stride 0 1", ...: kind, operand, index). `facts` holds what the
    call fixed (codegen/gpu/Facts.h), `schedule` the choices. The body is run by every thread of every CTA.
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, StrArrayAttr:$params, StrAttr:$schedule, DictionaryAttr:$facts);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name `params` $params `schedule` $schedule `facts` $facts attr-dict-with-keyword $body";
  let hasRegionVerifier = 1;
}

def Qtile_PrimOp : Qtile_Op<"prim"> {
  let summary = "one GPU primitive by its name in codegen/gpu/Primitives.h";
  let description = [{
    ```
    qtile.prim "mbarrier.wait"(%bar, %parity) : (!llvm.ptr<3>, i32) -> ()
    %acc:128 = qtile.prim "wgmma.bf16.n256"(%c#0, ..., %desc) : (...) -> (...)
    ```
    Operand and result types must be those of the table.
  }];
  let arguments = (ins StrAttr:$primitive, Variadic<AnyType>:$inputs);
  let results = (outs Variadic<AnyType>:$outputs);
  let assemblyFormat = "$primitive `(` $inputs `)` attr-dict `:` functional-type($inputs, $outputs)";
  let hasVerifier = 1;
}

def Qtile_SmemOp : Qtile_Op<"smem", [Pure]> {
  let summary = "address in the CTA's dynamic shared memory, `offset` bytes from its 1024-byte aligned start";
  let arguments = (ins I64Attr:$offset);
  let results = (outs LLVM_AnyPointer:$address);
  let assemblyFormat = "$offset attr-dict `:` type($address)";
}

def Qtile_SetupOp : Qtile_Op<"setup"> {
  let summary = "initialises the stage barriers and the tile table; every thread of the CTA takes part";
  let description = [{
    The tile table holds, for each expert, the number of tiles of the experts before it: the kernel finds a tile's expert by
    binary search in shared memory, with no help from the host.
  }];
  let arguments = (ins LLVM_AnyPointer:$offsets, I32:$experts);
  let assemblyFormat = "$offsets `experts` $experts attr-dict `:` type($offsets)";
}

def Qtile_RoleOp : Qtile_Region<"role"> {
  let summary = "code of warps [first, first + count) with a register budget of their own (setmaxnreg)";
  let arguments = (ins StrAttr:$name, I64Attr:$first_warp, I64Attr:$warps, I64Attr:$registers, BoolAttr:$increase);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$name `warps` $first_warp `count` $warps `registers` $registers `increase` $increase attr-dict-with-keyword $body";
}

def Qtile_TilesOp : Qtile_Region<"tiles"> {
  let summary = "this CTA's tiles, one after the other";
  let description = [{
    The block gets, as i32: expert, first row (in the routing), number of valid rows, width (rows rounded up to the ladder),
    weight tile, and the number of K steps done by this CTA in earlier tiles. The result is that number after the last tile.
  }];
  let arguments = (ins LLVM_AnyPointer:$offsets, I32:$experts);
  let results = (outs I32:$done);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$offsets `experts` $experts attr-dict `:` type($offsets) $body";
  let hasVerifier = 1;
}

def Qtile_ProduceOp : Qtile_Op<"produce"> {
  let summary = "fills the stages of one tile: activations, codes, scales";
  let arguments = (ins I32:$expert, I32:$row0, I32:$rows, I32:$width, I32:$weight_tile, I32:$done);
  let assemblyFormat = "$expert `,` $row0 `,` $rows `,` $width `,` $weight_tile `,` $done attr-dict";
}

def Qtile_DrainOp : Qtile_Op<"drain"> {
  let summary = "completes the copies that `produce` left in flight, after the last tile";
  let arguments = (ins I32:$done);
  let assemblyFormat = "$done attr-dict";
}

def Qtile_ConsumeOp : Qtile_Region<"consume"> {
  let summary = "multiplies one tile and writes it, by the code of the tile's width";
  let arguments = (ins I32:$expert, I32:$row0, I32:$rows, I32:$width, I32:$weight_tile, I32:$done, DenseI64ArrayAttr:$widths);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $expert `,` $row0 `,` $rows `,` $width `,` $weight_tile `,` $done `widths` $widths attr-dict-with-keyword $body
  }];
  let hasVerifier = 1;
}

def Qtile_MultiplyOp : Qtile_Op<"multiply"> {
  let summary = "the K loop of one consumer warpgroup: 64 weight rows x `width` tokens, accumulated in fp32";
  let description = [{
    Results are the thread's width/2 accumulators in the order of PTX's wgmma D fragment: 4j + e is token 8j + 2(lane % 4) + e of
    MMA row lane / 4, 4j + 2 + e the same token of MMA row lane / 4 + 8.
  }];
  let arguments = (ins I64Attr:$width, I32:$done);
  let results = (outs Variadic<F32>:$accumulators);
  let assemblyFormat = "$width `after` $done attr-dict `:` type($accumulators)";
  let hasVerifier = 1;
}

def Qtile_ReduceOp : Qtile_Region<"reduce"> {
  let summary = "the sums of the CTAs that share a tile's K range, in the order of their ranks";
  let description = [{
    The CTA of rank 0 runs the body with the sums, the others hand it their accumulators through shared memory. `done` is that of
    qtile.multiply.
  }];
  let arguments = (ins I64Attr:$width, I32:$done, Variadic<F32>:$accumulators);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$width `after` $done `of` $accumulators attr-dict-with-keyword `:` type($accumulators) $body";
  let hasVerifier = 1;
}

def Qtile_TablesOp : Qtile_Op<"tables", [Pure]> {
  let summary = "the 16 products of a block, rounded, as byte planes";
  let description = [{
    (entry - `zero`) * `scale` for the 16 entries of the codec's table, rounded to the quantization state's dtype, then to the
    activations'. Results: the low bytes of products 0..3, 4..7, 8..11 and 12..15, then their high bytes (qtile.decode).
  }];
  let arguments = (ins F32:$scale, Optional<F32>:$zero);
  let results = (outs Variadic<I32>:$planes);
  let assemblyFormat = "$scale (`zero` $zero^)? attr-dict `:` type($planes)";
  let hasVerifier = 1;
}

def Qtile_ArrangeOp : Qtile_Op<"arrange", [Pure, AttrSizedOperandSegments]> {
  let summary = "two units to one word with the codes of MMA row g in its low half, of row g + 8 in its high half";
  let description = [{
    A unit holds rows 2g and 2g + 1 (PTX fragment order after the gpu layout). Without `upper` these become rows g and g + 8. With it
    (a halved gate and up pair) row g comes from `word` and row g + 8 from `upper`, from each the row that `selector` picks.
  }];
  let arguments = (ins I32:$word, Optional<I32>:$upper, Optional<I32>:$selector);
  let results = (outs I32:$arranged);
  let assemblyFormat = "$word (`upper` $upper^ `selector` $selector)? attr-dict";
  let hasVerifier = 1;
}

def Qtile_DecodeOp : Qtile_Op<"decode", [Pure, AttrSizedOperandSegments]> {
  let summary = "8 arranged codes of a thread to its A registers of one k16 step";
  let description = [{
    `first` and `second` are the planes of MMA rows g and g + 8 (of the rounded table in fast mode, with the rows' scales as 16-bit
    pairs). `order` is 0x32103210, the selector that puts bytes in place, in a register.
  }];
  let arguments = (ins I32:$word, I32:$order, Variadic<I32>:$first, Variadic<I32>:$second, Optional<I32>:$scale0,
      Optional<I32>:$scale1);
  let results = (outs I32:$a0, I32:$a1, I32:$a2, I32:$a3);
  let assemblyFormat = [{
    $word `order` $order `planes` `(` $first `)` `(` $second `)` (`scales` $scale0^ `,` $scale1)? attr-dict
  }];
  let hasVerifier = 1;
}

def Qtile_DecodePairsOp : Qtile_Op<"decode_pairs", [AttrSizedOperandSegments]> {
  let summary = "8 codes of a thread to its A registers of one k16 step, by the table of fp32 pairs in shared memory";
  let description = [{
    Bytes of the word stand as the gpu layout has them (row g, row g + 8, twice), or arranged for a halved pair (row g twice, row g + 8
    twice). `lane` is the lane's copy of the table, 8 * lane. (pair - zero) * scale is rounded as qtile.tables does.
  }];
  let arguments = (ins I32:$word, I32:$lane, F32:$scale0, F32:$scale1, Optional<F32>:$zero0, Optional<F32>:$zero1);
  let results = (outs I32:$a0, I32:$a1, I32:$a2, I32:$a3);
  let assemblyFormat = "$word `lane` $lane `scales` $scale0 `,` $scale1 (`zeros` $zero0^ `,` $zero1)? attr-dict";
}

def Qtile_FragmentsOp : Qtile_Op<"fragments"> {
  let summary = "a thread's A registers of k16 step `slice`, from a stage that holds decoded weights";
  let description = [{
    `at` is where this thread's first fragment lies, in bytes from the weights of stage 0. A slice is 2048 bytes: 16 of each thread of
    the warpgroup, so a warp reads 512 neighbouring bytes.
  }];
  let arguments = (ins I32:$at, I64Attr:$slice);
  let results = (outs I32:$a0, I32:$a1, I32:$a2, I32:$a3);
  let assemblyFormat = "$at `slice` $slice attr-dict";
  let hasVerifier = 1;
}

def Qtile_WriteOp : Qtile_Region<"write"> {
  let summary = "a write of the kernel, as scalar code over one output element";
  let description = [{
    `reads` says where each block argument comes from: "contraction 0 mul 2 offset 1", "tensor 3 by expert mul 1 offset 0",
    "tensor 3 by row", "weight", "scalar 5". The last op is `qtile.value`. The attribute `dtype` is the output's.
  }];
  let arguments = (ins I64Attr:$operand, BoolAttr:$combine, I64Attr:$index, I64Attr:$columns, StrArrayAttr:$reads);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "`to` $operand `combine` $combine `index` $index `columns` $columns `reads` $reads attr-dict-with-keyword $body";
  let hasVerifier = 1;
}

def Qtile_ValueOp : Qtile_Op<"value", [HasParent<"WriteOp">]> {
  let summary = "the value of one output element";
  let arguments = (ins F32:$value);
  let assemblyFormat = "$value attr-dict";
}

def Qtile_EpilogueOp : Qtile_Region<"epilogue"> {
  let summary = "runs the writes over a warpgroup's accumulators and stores";
  let arguments = (ins I64Attr:$width, I32:$expert, I32:$row0, I32:$rows, I32:$weight_tile, Variadic<F32>:$accumulators);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $width `,` $expert `,` $row0 `,` $rows `,` $weight_tile `of` $accumulators attr-dict-with-keyword `:` type($accumulators) $body
  }];
  let hasVerifier = 1;
}

def Qtile_TailOp : Qtile_Op<"tail"> {
  let summary = "zeros in the output rows beyond the live ones, by the 128 threads of the producer";
  let arguments = (ins LLVM_AnyPointer:$offsets, I32:$experts, I32:$rows, DenseI64ArrayAttr:$operands, DenseI64ArrayAttr:$columns);
  let assemblyFormat = "$offsets `experts` $experts `rows` $rows `operands` $operands `columns` $columns attr-dict `:` type($offsets)";
  let hasVerifier = 1;
}

#endif
