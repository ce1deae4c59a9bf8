// Every op of the qtile dialect, printed and read back, in its own form and in the generic one.
// DEFINE: %{opt} = quern-opt --allow-unregistered-dialect
// RUN: %{opt} %s | %{opt} | FileCheck %s
// RUN: %{opt} %s --mlir-print-op-generic | %{opt} | FileCheck %s

qtile.program @all params ["map 0 0", "codes 2 0", "scales 2 0", "offsets -1 0", "experts -1 0", "rows -1 0", "pointer 4 0", "stride 4 0", "scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%map: !llvm.ptr, %codes: !llvm.ptr<1>, %scales: !llvm.ptr<1>, %offsets: !llvm.ptr<1>, %experts: i32, %rows: i32, %y: !llvm.ptr<1>, %stride: i64, %s: f32):
  // CHECK: qtile.setup %{{.*}} experts %{{.*}} : <1>
  qtile.setup %offsets experts %experts : <1>
  // CHECK: %[[B:.*]] = qtile.smem 26112 : <3>
  %b = qtile.smem 26112 : <3>
  // CHECK: qtile.prim "mbarrier.wait"(%[[B]], %{{.*}}) : (!llvm.ptr<3>, i32) -> ()
  qtile.prim "mbarrier.wait"(%b, %rows) : (!llvm.ptr<3>, i32) -> ()
  // CHECK: qtile.prim "setmaxnreg.inc.232"() : () -> ()
  qtile.prim "setmaxnreg.inc.232"() : () -> ()
  // CHECK: qtile.prim "wgmma.fence.n2.a1"(%{{.*}}) : (f32, f32, i32) -> (f32, f32, i32)
  %f:3 = qtile.prim "wgmma.fence.n2.a1"(%s, %s, %rows) : (f32, f32, i32) -> (f32, f32, i32)
  // CHECK: qtile.role "producer" warps 0 count 4 registers 40 increase false {
  qtile.role "producer" warps 0 count 4 registers 40 increase false {
    // CHECK: %[[D:.*]] = qtile.tiles %{{.*}} experts %{{.*}} : <1> {
    // CHECK: ^bb0(%[[E:.*]]: i32, %[[R0:.*]]: i32, %[[R:.*]]: i32, %[[W:.*]]: i32, %[[T:.*]]: i32, %[[K:.*]]: i32):
    %d = qtile.tiles %offsets experts %experts : <1> {
    ^bb0(%e: i32, %r0: i32, %r: i32, %w: i32, %t: i32, %k: i32):
      // CHECK: qtile.produce %[[E]], %[[R0]], %[[R]], %[[W]], %[[T]], %[[K]]
      qtile.produce %e, %r0, %r, %w, %t, %k
      // CHECK: qtile.consume %[[E]], %[[R0]], %[[R]], %[[W]], %[[T]], %[[K]] widths [8, 32] {
      qtile.consume %e, %r0, %r, %w, %t, %k widths [8, 32] {
        // CHECK: qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0", "scalar 5"] attributes {dtype = "f16"} {
        qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0", "scalar 5"] attributes {dtype = "f16"} {
        ^bb0(%c: f32, %scalar: f32):
          // CHECK: qtile.value %
          qtile.value %c
        }
      }
      // CHECK: %[[A:.*]]:4 = qtile.multiply 8 after %[[K]] : f32, f32, f32, f32
      %a:4 = qtile.multiply 8 after %k : f32, f32, f32, f32
      // CHECK: qtile.epilogue 8, %[[E]], %[[R0]], %[[R]], %[[T]] of %[[A]]#0, %[[A]]#1, %[[A]]#2, %[[A]]#3 : f32, f32, f32, f32 {
      qtile.epilogue 8, %e, %r0, %r, %t of %a#0, %a#1, %a#2, %a#3 : f32, f32, f32, f32 {
      }
      // CHECK: qtile.reduce 8 after %[[K]] of %[[A]]#0, %[[A]]#1, %[[A]]#2, %[[A]]#3 : f32, f32, f32, f32 {
      // CHECK-NEXT: ^bb0(%{{.*}}: f32, %{{.*}}: f32, %{{.*}}: f32, %{{.*}}: f32):
      qtile.reduce 8 after %k of %a#0, %a#1, %a#2, %a#3 : f32, f32, f32, f32 {
      ^bb0(%s0: f32, %s1: f32, %s2: f32, %s3: f32):
      }
    }
    // CHECK: qtile.drain %[[D]]
    qtile.drain %d
    // CHECK: qtile.tail %{{.*}} experts %{{.*}} rows %{{.*}} operands [4] columns [640] : <1>
    qtile.tail %offsets experts %experts rows %rows operands [4] columns [640] : <1>
  }
  // CHECK: %[[L:.*]]:8 = qtile.tables %[[S:.*]] : i32, i32, i32, i32, i32, i32, i32, i32
  %l:8 = qtile.tables %s : i32, i32, i32, i32, i32, i32, i32, i32
  // CHECK: %[[H:.*]]:8 = qtile.tables %[[S]] zero %[[S]] :
  %h:8 = qtile.tables %s zero %s : i32, i32, i32, i32, i32, i32, i32, i32
  // CHECK: %[[W0:.*]] = qtile.arrange %[[ROWS:[a-z0-9]*]]
  %w0 = qtile.arrange %rows
  // CHECK: qtile.arrange %[[ROWS]] upper %[[W0]] selector %[[ROWS]]
  %w1 = qtile.arrange %rows upper %w0 selector %rows
  // CHECK: qtile.decode %[[W0]] order %[[ROWS]] planes(%[[L]]#0, %{{.*}}%[[L]]#7) (%[[H]]#0, %{{.*}}%[[H]]#7)
  %d0:4 = qtile.decode %w0 order %rows planes (%l#0, %l#1, %l#2, %l#3, %l#4, %l#5, %l#6, %l#7) (%h#0, %h#1, %h#2, %h#3, %h#4, %h#5, %h#6, %h#7)
  // CHECK: qtile.decode %[[W0]] order %[[ROWS]] planes(%[[L]]#0, %{{.*}}%[[L]]#7) (%[[L]]#0, %{{.*}}%[[L]]#7) scales %[[ROWS]], %[[ROWS]]
  %d1:4 = qtile.decode %w0 order %rows planes (%l#0, %l#1, %l#2, %l#3, %l#4, %l#5, %l#6, %l#7) (%l#0, %l#1, %l#2, %l#3, %l#4, %l#5, %l#6, %l#7) scales %rows, %rows
  // CHECK: qtile.decode_pairs %[[W0]] lane %[[ROWS]] scales %[[S]], %[[S]]
  %d2:4 = qtile.decode_pairs %w0 lane %rows scales %s, %s
  // CHECK: qtile.decode_pairs %[[W0]] lane %[[ROWS]] scales %[[S]], %[[S]] zeros %[[S]], %[[S]]
  %d3:4 = qtile.decode_pairs %w0 lane %rows scales %s, %s zeros %s, %s
  // CHECK: qtile.fragments %[[ROWS]] slice 2
  %d4:4 = qtile.fragments %rows slice 2
}
