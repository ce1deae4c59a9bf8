// expand-decode and expand-decode-pairs: 8 codes to 8 weights, through byte permutes or through the pair table.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-decode --expand-decode-pairs --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s --check-prefixes=CHECK,BF16 --implicit-check-not=qtile.decode
// RUN: sed 's/act = "bf16"/act = "f16"/;s/state = "bf16"/state = "f16"/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,F16

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  %w, %o, %l:8, %h:8, %s0, %s1 = "test.values"() : () -> (i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32)
  %a:4 = qtile.decode %w order %o planes (%l#0, %l#1, %l#2, %l#3, %l#4, %l#5, %l#6, %l#7) (%h#0, %h#1, %h#2, %h#3, %h#4, %h#5, %h#6, %h#7)
  "test.exact"(%a#0, %a#1, %a#2, %a#3) : (i32, i32, i32, i32) -> ()
  %b:4 = qtile.decode %w order %o planes (%l#0, %l#1, %l#2, %l#3, %l#4, %l#5, %l#6, %l#7) (%l#0, %l#1, %l#2, %l#3, %l#4, %l#5, %l#6, %l#7) scales %s0, %s1
  "test.fast"(%b#0, %b#1, %b#2, %b#3) : (i32, i32, i32, i32) -> ()
}

qtile.program @pairs params [] schedule "bn=32 stages=3 decode=pairs" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  %w, %lane, %s0, %s1, %z0, %z1 = "test.values"() : () -> (i32, i32, f32, f32, f32, f32)
  %a:4 = qtile.decode_pairs %w lane %lane scales %s0, %s1
  "test.pairs"(%a#0, %a#1, %a#2, %a#3) : (i32, i32, i32, i32) -> ()
  %b:4 = qtile.decode_pairs %w lane %lane scales %s0, %s1 zeros %z0, %z1
  "test.zeros"(%b#0, %b#1, %b#2, %b#3) : (i32, i32, i32, i32) -> ()
}

// CHECK: %[[V:.*]]:20 = "test.values"()
// Lower three bits of the codes select within 8 entries; the top bit chooses between the two results.
// CHECK: %[[CODES:.*]] = arith.andi %[[V]]#0, %c2004318071_i32
// CHECK: arith.andi %{{.*}}, %c1145324612_i32
// CHECK: %[[CHOOSE:.*]] = arith.xori %{{.*}}, %[[V]]#1
// Row g: low bytes, then high bytes, of the low half word's four codes.
// CHECK: %[[A:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[V]]#2, %[[V]]#3, %[[CODES]])
// CHECK: %[[B:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[V]]#4, %[[V]]#5, %[[CODES]])
// CHECK: %[[LOW:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[A]], %[[B]], %[[CHOOSE]])
// CHECK: %[[C:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[V]]#6, %[[V]]#7, %[[CODES]])
// CHECK: %[[D:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[V]]#8, %[[V]]#9, %[[CODES]])
// CHECK: %[[HIGH:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[C]], %[[D]], %[[CHOOSE]])
// Bytes to halves: weights 0 and 1 (selector 0x5140), 2 and 3 (0x7362).
// CHECK: %[[A0:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[LOW]], %[[HIGH]], %c20800_i32)
// CHECK: %[[A2:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[LOW]], %[[HIGH]], %c29538_i32)
// Row g + 8 by the upper half words.
// CHECK-DAG: %[[CODES8:.*]] = arith.shrui %[[CODES]], %c16_i32
// CHECK-DAG: %[[CHOOSE8:.*]] = arith.shrui %[[CHOOSE]], %c16_i32
// CHECK: "llvm.nvvm.prmt"(%[[V]]#10, %[[V]]#11, %[[CODES8]])
// CHECK: %[[LOW8:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%{{.*}}, %{{.*}}, %[[CHOOSE8]])
// CHECK: "llvm.nvvm.prmt"(%[[V]]#14, %[[V]]#15, %[[CODES8]])
// CHECK: %[[A1:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"({{.*}}, %c20800_i32)
// CHECK: %[[A3:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"({{.*}}, %c29538_i32)
// CHECK: "test.exact"(%[[A0]], %[[A1]], %[[A2]], %[[A3]])
// Fast mode multiplies the table's entries by each row's scale.
// CHECK-DAG: %[[F0:.*]] = qtile.prim "mul.[[TYPE:b?f16]]x2"(%{{.*}}, %[[V]]#18)
// CHECK-DAG: %[[F2:.*]] = qtile.prim "mul.[[TYPE]]x2"(%{{.*}}, %[[V]]#18)
// CHECK-DAG: %[[F1:.*]] = qtile.prim "mul.[[TYPE]]x2"(%{{.*}}, %[[V]]#19)
// CHECK-DAG: %[[F3:.*]] = qtile.prim "mul.[[TYPE]]x2"(%{{.*}}, %[[V]]#19)
// CHECK: "test.fast"(%[[F0]], %[[F1]], %[[F2]], %[[F3]])

// CHECK: qtile.program @pairs
// CHECK: %[[P:.*]]:6 = "test.values"()
// An entry is 32 copies of 8 bytes: byte 0 of the codes over the lane's byte, then byte 1.
// CHECK: %[[ENTRY:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[P]]#0, %[[P]]#1, %c21764_i32)
// CHECK: arith.extui %[[ENTRY]] : i32 to i64
// CHECK: %[[ENTRIES:.*]] = llvm.load %{{.*}} -> vector<2xf32>
// CHECK: %[[E0:.*]] = llvm.extractelement %[[ENTRIES]][%c0_i32
// CHECK: %[[P0:.*]] = arith.mulf %[[E0]], %[[P]]#2
// CHECK: %[[E1:.*]] = llvm.extractelement %[[ENTRIES]][%c1_i32
// CHECK: %[[P1:.*]] = arith.mulf %[[E1]], %[[P]]#2
// BF16: %[[R0:.*]] = qtile.prim "cvt.bf16x2"(%[[P1]], %[[P0]])
// F16: %[[R0:.*]] = qtile.prim "cvt.f16x2"(%[[P1]], %[[P0]])
// Bytes are rows g, g + 8, g, g + 8: scales alternate, and bytes are registers in order.
// CHECK: arith.mulf %{{.*}}, %[[P]]#3
// CHECK: %[[R1:.*]] = qtile.prim "cvt
// CHECK: arith.mulf %{{.*}}, %[[P]]#2
// CHECK: %[[R2:.*]] = qtile.prim "cvt
// CHECK: arith.mulf %{{.*}}, %[[P]]#3
// CHECK: %[[R3:.*]] = qtile.prim "cvt
// CHECK: "test.pairs"(%[[R0]], %[[R1]], %[[R2]], %[[R3]])
// CHECK: arith.subf %{{.*}}, %[[P]]#4
// CHECK: arith.subf %{{.*}}, %[[P]]#5
