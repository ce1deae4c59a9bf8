// lower-program: an llvm function with launch bounds; primitives as declared functions; shared addresses from one array.
// RUN: quern-opt --lower-program %s | FileCheck %s --check-prefixes=CHECK,ONE
// RUN: sed 's/stages=3/stages=3 cluster=2/' %s | quern-opt --lower-program | FileCheck %s --check-prefixes=CHECK,CLUSTER
// RUN: sed 's/stages=3/bm=64 stages=3 regs=104\/40 ctas=2/' %s | quern-opt --lower-program | FileCheck %s --check-prefix=SMALL

qtile.program @down params ["map 0 0", "offsets -1 0", "experts -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%map: !llvm.ptr, %offsets: !llvm.ptr<1>, %n: i32):
  %b = qtile.smem 26112 : <3>
  qtile.prim "mbarrier.init"(%b, %n) : (!llvm.ptr<3>, i32) -> ()
  qtile.prim "mbarrier.init"(%b, %n) : (!llvm.ptr<3>, i32) -> ()
  %p = qtile.prim "mul.bf16x2"(%n, %n) : (i32, i32) -> i32
  qtile.prim "mbarrier.init"(%b, %p) : (!llvm.ptr<3>, i32) -> ()
  %f = llvm.mlir.constant(1.0 : f32) : f32
  %two:2 = qtile.prim "wgmma.wait.0.n2"(%f, %f) : (f32, f32) -> (f32, f32)
  %three:2 = qtile.prim "wgmma.wait.1.n2"(%two#0, %two#1) : (f32, f32) -> (f32, f32)
}

// One declaration each, of exactly the primitive's type: several results are a struct.
// CHECK-DAG: llvm.func @q.mbarrier.init(!llvm.ptr<3>, i32)
// CHECK-DAG: llvm.func @q.mul.bf16x2(i32, i32) -> i32
// CHECK-DAG: llvm.func @q.wgmma.wait.0.n2(f32, f32) -> !llvm.struct<(f32, f32)>
// CHECK-DAG: llvm.mlir.global external @quern_smem() {addr_space = 3 : i32, alignment = 1024 : i64} : !llvm.array<0 x i8>
// The tensor map comes by value, 128 bytes, and is not copied.
// CHECK: llvm.func @down(%{{.*}}: !llvm.ptr {llvm.align = 64 : i64, llvm.byval = !llvm.array<128 x i8>, nvvm.grid_constant}, %{{.*}}: !llvm.ptr<1>, %[[N:.*]]: i32)
// ONE-NOT: nvvm.cluster_dim
// CLUSTER-SAME: nvvm.cluster_dim = array<i32: 2, 1, 1>
// CHECK-SAME: nvvm.kernel, nvvm.minctasm = 1 : i32, nvvm.reqntid = array<i32: 384>
// SMALL: nvvm.minctasm = 2 : i32, nvvm.reqntid = array<i32: 256>
// CHECK: %[[SMEM:.*]] = llvm.mlir.addressof @quern_smem
// CHECK: %[[BARRIER:.*]] = llvm.getelementptr %[[SMEM]][26112]
// CHECK: llvm.call @q.mbarrier.init(%[[BARRIER]], %[[N]])
// CHECK: llvm.call @q.mbarrier.init(%[[BARRIER]], %[[N]])
// CHECK: %[[P:.*]] = llvm.call @q.mul.bf16x2(%[[N]], %[[N]])
// CHECK: llvm.call @q.mbarrier.init(%[[BARRIER]], %[[P]])
// CHECK: %[[TWO:.*]] = llvm.call @q.wgmma.wait.0.n2
// CHECK-DAG: %[[F0:.*]] = llvm.extractvalue %[[TWO]][0]
// CHECK-DAG: %[[F1:.*]] = llvm.extractvalue %[[TWO]][1]
// CHECK: llvm.call @q.wgmma.wait.1.n2(%[[F0]], %[[F1]])
// CHECK-NEXT: llvm.return
// CHECK-NOT: qtile.
