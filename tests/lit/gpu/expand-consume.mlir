// expand-consume: one multiply and one epilogue for each width, chosen by a branch; the writes go into each.
// RUN: quern-opt --allow-unregistered-dialect --expand-consume --canonicalize --cse %s | FileCheck %s
// RUN: sed 's/widths \[8, 16, 32\]/widths [32]/' %s | quern-opt --allow-unregistered-dialect --expand-consume | FileCheck %s --check-prefix=ONE
// RUN: sed 's/stages=3/stages=3 split=2/' %s | quern-opt --allow-unregistered-dialect --expand-consume | FileCheck %s --check-prefix=SPLIT

qtile.program @p params ["pointer 4 0", "stride 4 0", "rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %stride: i64, %all: i32):
  %expert, %row0, %rows, %width, %tile, %done = "test.tile"() : () -> (i32, i32, i32, i32, i32, i32)
  qtile.consume %expert, %row0, %rows, %width, %tile, %done widths [8, 16, 32] {
    qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0"] attributes {dtype = "bf16"} {
    ^bb0(%c: f32):
      qtile.value %c
    }
  }
}

// CHECK: %[[T:.*]]:6 = "test.tile"()
// CHECK: %[[WIDTH:.*]] = arith.index_castui %[[T]]#3 : i32 to index
// CHECK: scf.index_switch %[[WIDTH]]
// CHECK-NEXT: case 8 {
// CHECK-NEXT: %[[C8:.*]]:4 = qtile.multiply 8 after %[[T]]#5 : f32, f32, f32, f32
// CHECK-NEXT: qtile.epilogue 8, %[[T]]#0, %[[T]]#1, %[[T]]#2, %[[T]]#4 of %[[C8]]#0, %[[C8]]#1, %[[C8]]#2, %[[C8]]#3 :
// CHECK-NEXT: qtile.write to 4
// CHECK: qtile.value
// CHECK: case 16 {
// CHECK-NEXT: %[[C16:.*]]:8 = qtile.multiply 16 after
// CHECK-NEXT: qtile.epilogue 16, {{.*}} of %[[C16]]#0, {{.*}}%[[C16]]#7 :
// CHECK-NEXT: qtile.write to 4
// The widest is the default: there is always code.
// CHECK: default {
// CHECK-NEXT: %[[C32:.*]]:16 = qtile.multiply 32 after
// CHECK-NEXT: qtile.epilogue 32,
// CHECK-NEXT: qtile.write to 4
// CHECK-NOT: qtile.multiply
// CHECK-NOT: qtile.consume

// ONE: scf.index_switch
// ONE-NEXT: default {
// ONE-NEXT: qtile.multiply 32
// ONE-NOT: qtile.multiply

// The epilogue takes the sums of all CTAs.
// SPLIT: case 8 {
// SPLIT-NEXT: %[[A:.*]]:4 = qtile.multiply 8 after %[[DONE:.*]] : f32
// SPLIT-NEXT: qtile.reduce 8 after %[[DONE]] of %[[A]]#0, %[[A]]#1, %[[A]]#2, %[[A]]#3 : f32, f32, f32, f32 {
// SPLIT-NEXT: ^bb0(%[[S0:.*]]: f32, %{{.*}}: f32, %{{.*}}: f32, %[[S3:.*]]: f32):
// SPLIT-NEXT: qtile.epilogue 8, {{.*}} of %[[S0]], {{.*}}, %[[S3]] :
// SPLIT: case 16 {
// SPLIT: qtile.reduce 16
// SPLIT: default {
// SPLIT: qtile.reduce 32
