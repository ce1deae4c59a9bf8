// expand-fragments: A registers of a slice, from a stage of decoded weights by one 16-byte load.
// RUN: quern-opt --allow-unregistered-dialect --expand-fragments --canonicalize --cse %s | FileCheck %s --implicit-check-not=qtile.fragments
// RUN: sed 's/ decode=ahead//' %s | not quern-opt --allow-unregistered-dialect --expand-fragments 2>&1 | FileCheck %s --check-prefix=OTHER

qtile.program @p params [] schedule "bn=32 stages=3 decode=ahead" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  %at = "test.at"() : () -> i32
  %a:4 = qtile.fragments %at slice 0
  %b:4 = qtile.fragments %at slice 3
  "test.registers"(%a#0, %a#1, %a#2, %a#3, %b#3) : (i32, i32, i32, i32, i32) -> ()
}

// CHECK: %[[AT:.*]] = "test.at"()
// Behind three stages of 32 tokens x 128 bytes; a slice is 2048 bytes.
// CHECK: %[[BASE:.*]] = qtile.smem 12288
// CHECK: %[[WIDE:.*]] = arith.extui %[[AT]]
// CHECK: %[[FIRST:.*]] = llvm.getelementptr %[[BASE]][%[[WIDE]]]
// CHECK: %[[A:.*]] = llvm.load %[[FIRST]] {alignment = 16 : i64} : !llvm.ptr<3> -> vector<4xi32>
// CHECK: %[[A0:.*]] = llvm.extractelement %[[A]][%c0_i32
// CHECK: %[[A1:.*]] = llvm.extractelement %[[A]][%c1_i32
// CHECK: %[[A2:.*]] = llvm.extractelement %[[A]][%c2_i32
// CHECK: %[[A3:.*]] = llvm.extractelement %[[A]][%c3_i32
// CHECK: %[[LAST:.*]] = llvm.getelementptr %[[FIRST]][6144]
// CHECK: %[[B:.*]] = llvm.load %[[LAST]] {alignment = 16 : i64} : !llvm.ptr<3> -> vector<4xi32>
// CHECK: %[[B3:.*]] = llvm.extractelement %[[B]][%c3_i32
// CHECK: "test.registers"(%[[A0]], %[[A1]], %[[A2]], %[[A3]], %[[B3]])
// OTHER: 'qtile.fragments' op needs a schedule with decode=ahead
