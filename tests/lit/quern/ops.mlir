// Every op and type of the dialect: prints as written, in the generic form too.
// RUN: quern-opt %s | FileCheck %s
// RUN: quern-opt %s | quern-opt | FileCheck %s
// RUN: quern-opt %s --mlir-print-op-generic | quern-opt | FileCheck %s
// RUN: quern-opt %s --emit-bytecode | quern-opt | FileCheck %s
// RUN: quern-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC

// CHECK: quern.codec @nf4 {block = 64 : i64, first = "high", scale = "f32", table = array<f32: -1.000000e+00, {{.*}}>, zero = false}
quern.codec @nf4 {table = array<f32: -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
    0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0>,
    first = "high", scale = "f32", block = 64 : i64, zero = false}
// CHECK: quern.codec @odd {block = 32 : i64, first = "low", scale = "e8m0", table = array<f32: 0x7FC00000, 0x7F800000, 0xFF800000, {{.*}}>, zero = true}
quern.codec @odd {table = array<f32: 0x7FC00000, 0x7F800000, 0xFF800000, 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.>,
    first = "low", scale = "e8m0", block = 32 : i64, zero = true}

// A gather, a grouped matmul, an interleaved pair with biases, a select on a scalar of the kernel.
// CHECK-LABEL: quern.kernel @gate_up params ["x", "route", "w", "b", "limit"] outputs ["h"] attributes {rows = "R"} {
// CHECK-NEXT: ^bb0(%[[X:.*]]: !quern.tensor<["T", "K"], "act">, %{{.*}}: !quern.routing<["T", "E"]>, %[[W:.*]]: !quern.packed<@nf4, ["E", "N", "K"]>, %[[B:.*]]: !quern.tensor<["E", "N"], "float">, %[[L:.*]]: f32, %[[H:.*]]: !quern.tensor<["R", "N/2"], "act">):
// CHECK-NEXT: %[[C:.*]] = quern.grouped_matmul %[[X]] by token, %[[W]] by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.packed<@nf4, ["E", "N", "K"]> -> !quern.rows<"N">
// CHECK-NEXT: quern.store %[[H]] columns "N/2" reads(%[[C]], %[[C]], %[[B]], %[[B]]) rows [row, row, expert, expert] muls [2, 2, 2, 2] offsets ["0", "1", "0", "1"] : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">, !quern.rows<"N">, !quern.tensor<["E", "N"], "float">, !quern.tensor<["E", "N"], "float">) {
// CHECK-NEXT: ^bb0(%[[A0:.*]]: f32, %[[A1:.*]]: f32, %[[A2:.*]]: f32, %[[A3:.*]]: f32):
// CHECK: arith.minimumf %{{.*}}, %[[L]] : f32
// CHECK: quern.yield %{{.*}} : f32
// CHECK: quern.return
// GENERIC: "quern.grouped_matmul"(%{{.*}}, %{{.*}}) <{columns = "N", lhs_row = #quern.row_access<token>, reduce = "K", rhs_row = #quern.row_access<expert>}>
// GENERIC: "quern.store"({{.*}}) <{columns = "N/2", muls = array<i64: 2, 2, 2, 2>, offsets = ["0", "1", "0", "1"], rows = [#quern.row_access<row>, #quern.row_access<row>, #quern.row_access<expert>, #quern.row_access<expert>]}>
quern.kernel @gate_up params ["x", "route", "w", "b", "limit"] outputs ["h"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %route: !quern.routing<["T", "E"]>, %w: !quern.packed<@nf4, ["E", "N", "K"]>,
     %b: !quern.tensor<["E", "N"], "float">, %limit: f32, %h: !quern.tensor<["R", "N/2"], "act">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.packed<@nf4, ["E", "N", "K"]> -> !quern.rows<"N">
  quern.store %h columns "N/2" reads(%c, %c, %b, %b) rows [row, row, expert, expert] muls [2, 2, 2, 2] offsets ["0", "1", "0", "1"]
      : !quern.tensor<["R", "N/2"], "act">,
        (!quern.rows<"N">, !quern.rows<"N">, !quern.tensor<["E", "N"], "float">, !quern.tensor<["E", "N"], "float">) {
  ^bb0(%g: f32, %u: f32, %bg: f32, %bu: f32):
    %0 = arith.addf %g, %bg : f32
    %1 = arith.addf %u, %bu : f32
    %2 = arith.minimumf %0, %limit : f32
    %zero = arith.constant 0.0 : f32
    %3 = arith.cmpf olt, %1, %zero : f32
    %4 = math.exp %1 : f32
    %5 = arith.select %3, %4, %2 : f32
    quern.yield %5 : f32
  }
  quern.return
}

// The combine, a row weight, a halved pair, a bias without a column, and a contraction of a contraction (LoRA).
// CHECK-LABEL: quern.kernel @down params ["h", "route", "w", "a", "l", "e"] outputs ["y", "z"] {
// CHECK: %[[C0:.*]] = quern.grouped_matmul %{{.*}} by row, %{{.*}} by expert columns "N" reduce "K"
// CHECK: %[[C1:.*]] = quern.grouped_matmul %{{.*}} by row, %{{.*}} by expert columns "P" reduce "K"
// CHECK: %[[C2:.*]] = quern.grouped_matmul %[[C1]] by row, %{{.*}} by expert columns "N" reduce "P" : !quern.rows<"P">, !quern.tensor<["E", "N", "P"], "float"> -> !quern.rows<"N">
// CHECK: quern.combine %{{.*}} columns "N" reads(%[[C0]], %[[C2]], %{{.*}}, %{{.*}}) rows [row, row, weight, expert] muls [1, 1, 0, 0] offsets ["0", "0", "-", "-"]
// CHECK: quern.store %{{.*}} columns "N/2" reads(%[[C0]], %[[C0]]) rows [row, row] muls [1, 1] offsets ["0", "N/2"]
quern.kernel @down params ["h", "route", "w", "a", "l", "e"] outputs ["y", "z"] {
^bb0(%h: !quern.tensor<["R", "K"], "act">, %route: !quern.routing<["T", "E"]>, %w: !quern.packed<@odd, ["E", "N", "K"]>,
     %a: !quern.tensor<["E", "P", "K"], "float">, %l: !quern.tensor<["E", "N", "P"], "float">, %e: !quern.tensor<["E"], "f32">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["R", "N/2"], "bf16">):
  %c = quern.grouped_matmul %h by row, %w by expert columns "N" reduce "K"
      : !quern.tensor<["R", "K"], "act">, !quern.packed<@odd, ["E", "N", "K"]> -> !quern.rows<"N">
  %p = quern.grouped_matmul %h by row, %a by expert columns "P" reduce "K"
      : !quern.tensor<["R", "K"], "act">, !quern.tensor<["E", "P", "K"], "float"> -> !quern.rows<"P">
  %d = quern.grouped_matmul %p by row, %l by expert columns "N" reduce "P"
      : !quern.rows<"P">, !quern.tensor<["E", "N", "P"], "float"> -> !quern.rows<"N">
  quern.combine %y columns "N" reads(%c, %d, %route, %e) rows [row, row, weight, expert] muls [1, 1, 0, 0] offsets ["0", "0", "-", "-"]
      : !quern.tensor<["T", "N"], "f32">,
        (!quern.rows<"N">, !quern.rows<"N">, !quern.routing<["T", "E"]>, !quern.tensor<["E"], "f32">) {
  ^bb0(%v: f32, %lora: f32, %weight: f32, %bias: f32):
    %0 = arith.addf %v, %lora : f32
    %1 = arith.addf %0, %bias : f32
    %2 = arith.mulf %1, %weight : f32
    quern.yield %2 : f32
  }
  quern.store %z columns "N/2" reads(%c, %c) rows [row, row] muls [1, 1] offsets ["0", "N/2"]
      : !quern.tensor<["R", "N/2"], "bf16">, (!quern.rows<"N">, !quern.rows<"N">) {
  ^bb0(%v: f32, %w2: f32):
    %0 = math.tanh %v : f32
    %1 = math.erf %w2 : f32
    %2 = arith.subf %0, %1 : f32
    %3 = arith.divf %2, %w2 : f32
    %4 = arith.negf %3 : f32
    %5 = arith.maximumf %4, %v : f32
    quern.yield %5 : f32
  }
  quern.return
}

// A dense kernel; a write may read nothing.
// CHECK-LABEL: quern.kernel @linear params ["x", "w", "s"] outputs ["y", "ones"] attributes {problem = {K = 64 : i64}, rows = "T", schedule = "bm=32 bn=32"} {
// CHECK: quern.grouped_matmul %{{.*}} by row, %{{.*}} by none columns "N" reduce "K"
// CHECK: quern.store %{{.*}} columns "64" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "64"], "f16">, () {
quern.kernel @linear params ["x", "w", "s"] outputs ["y", "ones"] attributes {rows = "T", schedule = "bm=32 bn=32", problem = {K = 64 : i64}} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.packed<@nf4, ["N", "K"]>, %s: f32,
     %y: !quern.tensor<["T", "N"], "act">, %ones: !quern.tensor<["T", "64"], "f16">):
  %c = quern.grouped_matmul %x by row, %w by none columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.packed<@nf4, ["N", "K"]> -> !quern.rows<"N">
  quern.store %y columns "N" reads(%c) rows [row] muls [1] offsets ["0"] : !quern.tensor<["T", "N"], "act">, (!quern.rows<"N">) {
  ^bb0(%v: f32):
    quern.yield %v : f32
  }
  quern.store %ones columns "64" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "64"], "f16">, () {
    quern.yield %s : f32
  }
  quern.return
}
