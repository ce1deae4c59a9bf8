// expand-arrange: rows g and g + 8 of a unit to the halves of a word.
// RUN: quern-opt --allow-unregistered-dialect --expand-arrange --canonicalize --cse %s | FileCheck %s

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  %word, %upper, %selector = "test.words"() : () -> (i32, i32, i32)
  %a = qtile.arrange %word
  "test.neighbours"(%a) : (i32) -> ()
  %b = qtile.arrange %word upper %upper selector %selector
  "test.pair"(%b) : (i32) -> ()
}

// CHECK: %[[W:.*]]:3 = "test.words"()
// Bytes 0 and 2 are the lower row's, 1 and 3 the upper row's: 0x3120.
// CHECK: %[[A:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[W]]#0, %[[W]]#0, %c12576_i32)
// CHECK: "test.neighbours"(%[[A]])
// CHECK: %[[B:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[W]]#0, %[[W]]#1, %[[W]]#2)
// CHECK: "test.pair"(%[[B]])
// CHECK-NOT: qtile.arrange
