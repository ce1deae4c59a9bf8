// generate-cpu: one kernel becomes three functions of the instr stage and the facts that the launcher needs. The same
// kernel with other schedules has the instructions of those instruction sets and no others.
// RUN: quern-opt --generate-cpu --canonicalize --cse %s | FileCheck %s
// RUN: sed 's/isa=avx512bf16 dot=bf16/isa=avx512 dot=f32/' %s | quern-opt --generate-cpu --canonicalize --cse | FileCheck %s --check-prefixes=F32,AVX512 --implicit-check-not=avx512bf16
// RUN: sed 's/isa=avx512bf16 dot=bf16 lanes=16 rows=8/isa=avx2 dot=f32 lanes=8 rows=4/' %s | quern-opt --generate-cpu --canonicalize --cse | FileCheck %s --check-prefixes=F32,AVX2 --implicit-check-not=x86.avx512
// RUN: sed 's/isa=avx512bf16 dot=bf16 lanes=16 rows=8/isa=x86-64 dot=f32 lanes=4 rows=4/' %s | quern-opt --generate-cpu --canonicalize --cse | FileCheck %s --check-prefix=BASE --implicit-check-not=llvm.x86
// RUN: sed 's/isa=avx512bf16/isa=amx/;s/tile=0/tile=4/' %s | quern-opt --generate-cpu --canonicalize --cse | FileCheck %s --check-prefix=AMX

// 96 columns in bands of 64; a combine visits the segments in order; no copy of bf16 activations that fill whole blocks.
// CHECK: module attributes {quern.image = {bands = 2 : i64, denormal_scales = 0 : i64, isa = "avx512bf16", kernel = "down", max_segment_rows = 48 : i64, ordered = 1 : i64, prepare_min_rows = 0 : i64, scratch_bytes = {{[0-9]+}} : i64, work_bytes_per_row = 0 : i64}}
// CHECK-NOT: quern.codec
// CHECK-NOT: quern.kernel
// CHECK: func.func private @down_contract0(
// The products of a block are rounded together, looked up by code, and multiplied in pairs.
// CHECK: llvm.call_intrinsic "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
// CHECK: llvm.call_intrinsic "llvm.x86.avx512.permvar.hi.512"
// CHECK: llvm.call_intrinsic "llvm.x86.avx512bf16.dpbf16ps.512"
// CHECK-LABEL: func.func @down_prepare(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr)
// CHECK-NEXT: return
// CHECK-LABEL: func.func @down_main(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr, %{{.*}}: i64, %{{.*}}: i64, %{{.*}}: !llvm.ptr)
// CHECK: call @down_contract0(
// The combine: (c + b) * weight, added to what is there.
// CHECK: %[[SUM:.*]] = arith.addf %{{.*}}, %{{.*}} : vector<16xf32>
// CHECK: %[[PART:.*]] = arith.mulf %[[SUM]], %{{.*}} : vector<16xf32>
// CHECK: %[[OLD:.*]] = llvm.load %{{.*}} {alignment = 4 : i64} : !llvm.ptr -> vector<16xf32>
// CHECK: %[[NEW:.*]] = arith.addf %[[OLD]], %[[PART]] : vector<16xf32>
// CHECK: llvm.store %[[NEW]], %{{.*}}

// fp32 products need a copy of the activations, 4 bytes each, in the order of the decoded weights.
// F32: work_bytes_per_row = 512 : i64
// AVX512: llvm.call_intrinsic "llvm.x86.avx512.permvar.sf.512"
// AVX2: llvm.call_intrinsic "llvm.x86.avx2.permps"
// F32: vector.fma
// F32-LABEL: func.func @down_prepare
// F32: vector.shuffle
// F32-LABEL: func.func @down_main

// Plain x86-64 decodes code by code from the table in memory.
// BASE: llvm.mlir.global internal constant @quern_table_nf4(dense<[-1.000000e+00, -0.6961928,
// BASE: vector.fma {{.*}} : vector<4xf32>

// With AMX, segments of 4 rows and more use tiles, shorter ones vectors; both are in the code.
// AMX: prepare_min_rows = 4 : i64
// AMX-SAME: work_bytes_per_row = 256 : i64
// AMX: llvm.mlir.global internal constant @quern_tile_config
// AMX: func.func private @down_contract0
// AMX: llvm.inline_asm has_side_effects asm_dialect = att "ldtilecfg ($0)"
// AMX: "tileloadd ($0,$1), %tmm4"
// AMX: "tdpbf16ps %tmm6, %tmm4, %tmm0"
// AMX: "tilerelease"
// AMX: llvm.x86.avx512bf16.dpbf16ps.512

quern.codec @nf4 {block = 64 : i64, first = "high", scale = "f32", table = array<f32: -1.000000e+00, -0.6961928, -0.525073051, -0.394917488, -0.284441382, -0.18477343, -0.0910500362, 0.000000e+00, 0.0795802995, 0.160930201, 0.246112302, 0.337915242, 0.440709829, 5.626170e-01, 0.722956836, 1.000000e+00>, zero = false}
quern.kernel @down params ["h", "route", "w", "b"] outputs ["y"] attributes {problem = {act = "bf16", dims = {K = 128 : i64, N = 96 : i64}, operands = [{dtype = "bf16", unit_stride = true}, {}, {block = 64 : i64, dtype = "bf16", layout = "cpu"}, {dtype = "bf16", unit_stride = true}, {dtype = "f32", unit_stride = true}]}, rows = "R", schedule = "cpu isa=avx512bf16 dot=bf16 lanes=16 rows=8 tokens=3 fused=3 decoded=24 tile=0 chunk=5 band=64 segment=48"} {
^bb0(%h: !quern.tensor<["R", "K"], "act">, %route: !quern.routing<["T", "E"]>, %w: !quern.packed<@nf4, ["E", "N", "K"]>, %b: !quern.tensor<["E", "N"], "float">, %y: !quern.tensor<["T", "N"], "f32">):
  %0 = quern.grouped_matmul %h by row, %w by expert columns "N" reduce "K" : !quern.tensor<["R", "K"], "act">, !quern.packed<@nf4, ["E", "N", "K"]> -> !quern.rows<"N">
  quern.combine %y columns "N" reads(%0, %b, %route) rows [row, expert, weight] muls [1, 1, 0] offsets ["0", "0", "-"] : !quern.tensor<["T", "N"], "f32">, (!quern.rows<"N">, !quern.tensor<["E", "N"], "float">, !quern.routing<["T", "E"]>) {
  ^bb0(%arg0: f32, %arg1: f32, %arg2: f32):
    %1 = arith.addf %arg0, %arg1 : f32
    %2 = arith.mulf %1, %arg2 : f32
    quern.yield %2 : f32
  }
  quern.return
}
