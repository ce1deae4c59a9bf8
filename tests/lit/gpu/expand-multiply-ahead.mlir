// expand-multiply with decode=ahead: the K loop over decoded weights. A stage is read only after a wait for it; while slice 0 runs
// the fragments of the others are read, and nothing but wgmmas is left to issue before the next stage is waited for.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-multiply --canonicalize --cse
// DEFINE: %{check} = FileCheck %s --implicit-check-not=llvm.load --implicit-check-not=qtile.decode --implicit-check-not=qtile.tables
// RUN: %{pass} %s | %{check} --check-prefixes=CHECK,ONE
// RUN: sed 's/stages=3/stages=3 cluster=2/' %s | %{pass} | %{check} --check-prefixes=CHECK,CLUSTER
// Blocks, zero points, pairs and edges were the decoder's affair: the loop is the same.
// RUN: sed 's/block = 64/block = 32/;s/zero = false/zero = true/;s/"none"/"halved"/;s/n = 320/n = 392/;s/k = 192/k = 160/' %s | %{pass} | %{check} --check-prefixes=CHECK,ONE
// RUN: sed 's/act = "bf16"/act = "f16"/' %s | %{pass} | FileCheck %s --check-prefix=F16

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3 decode=ahead" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%rows: i32):
  %done = "test.done"() : () -> i32
  %c:4 = qtile.multiply 8 after %done : f32, f32, f32, f32
  "test.accumulators"(%c#0, %c#1, %c#2, %c#3) : (f32, f32, f32, f32) -> ()
}

// CHECK: %[[DONE:.*]] = "test.done"()
// A warpgroup's fragments are 8192 bytes, a thread's 16.
// CHECK: arith.shli %{{.*}}, %c13_i32
// CHECK: arith.shli %{{.*}}, %c4_i32
// CHECK: %[[STAGE:.*]] = arith.remui %[[DONE]], %c3_i32
// CHECK: %[[PASS:.*]] = arith.divui %[[DONE]], %c3_i32
// CHECK: %[[PARITY:.*]] = arith.andi %[[PASS]], %c1_i32
// CHECK: qtile.prim "mbarrier.wait"(%{{.*}}, %[[PARITY]])
// 128 rows x 128 bytes in a stage.
// CHECK: %[[AT0:.*]] = arith.muli %[[STAGE]], %c16384_i32
// CHECK: qtile.fragments %{{.*}} slice 0
// CHECK: %[[SUM:.*]]:{{[0-9]+}} = scf.for %{{.*}} = %c0_i32 to %c3_i32
// CHECK: %[[F:.*]]:8 = qtile.prim "wgmma.fence.n4.a4"(
// CHECK-NEXT: qtile.prim "wgmma.bf16.n8"(%[[F]]#0, %[[F]]#1, %[[F]]#2, %[[F]]#3, %[[F]]#4, %[[F]]#5, %[[F]]#6, %[[F]]#7, %
// CHECK-NEXT: qtile.prim "wgmma.commit"
// The last slice of the step before is done, so its stage is given back; at the first step there is none. One arrival of each warp.
// CHECK: qtile.prim "wgmma.wait.1.n4"(
// CHECK: %[[LATER:.*]] = arith.cmpi sge, %{{.*}}, %c1_i32
// CHECK: "llvm.nvvm.bar.warp.sync"(%c-1_i32)
// CHECK: arith.andi %[[LATER]], %{{.*}} : i1
// CHECK-NEXT: scf.if
// ONE: qtile.prim "mbarrier.arrive"(
// CLUSTER: qtile.prim "mbarrier.arrive.cluster"(%[[EMPTY:.*]], %c0_i32)
// CLUSTER-NEXT: qtile.prim "mbarrier.arrive.cluster"(%[[EMPTY]], %c1_i32)
// CHECK: %[[A1:[a-z0-9_]+]], %{{.*}} = qtile.fragments %[[AT:.*]] slice 1
// CHECK: %[[A2:[a-z0-9_]+]], %{{.*}} = qtile.fragments %[[AT]] slice 2
// CHECK: %[[A3:[a-z0-9_]+]], %{{.*}} = qtile.fragments %[[AT]] slice 3
// CHECK: "wgmma.fence.n4.a4"(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %[[A1]],
// CHECK-NEXT: "wgmma.bf16.n8"
// CHECK: "wgmma.fence.n4.a4"(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %[[A2]],
// CHECK-NEXT: "wgmma.bf16.n8"
// CHECK: "wgmma.fence.n4.a4"(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %[[A3]],
// CHECK-NEXT: "wgmma.bf16.n8"
// CHECK: "mbarrier.wait"
// Slice 0 is done, so its registers may be written again; the last slice goes on into the next step.
// CHECK: %[[OUT:.*]]:4 = qtile.prim "wgmma.wait.1.n4"(
// CHECK: %[[A0:[a-z0-9_]+]], %{{.*}} = qtile.fragments %{{.*}} slice 0
// CHECK: scf.yield %[[OUT]]#0, %[[OUT]]#1, %[[OUT]]#2, %[[OUT]]#3, %[[A0]],
// CHECK: %[[END:.*]]:4 = qtile.prim "wgmma.wait.0.n4"(%[[SUM]]#0, %[[SUM]]#1, %[[SUM]]#2, %[[SUM]]#3)
// CHECK: "llvm.nvvm.bar.warp.sync"(%c-1_i32)
// ONE: qtile.prim "mbarrier.arrive"(
// CHECK: "test.accumulators"(%[[END]]#0, %[[END]]#1, %[[END]]#2, %[[END]]#3)

// F16-COUNT-4: qtile.prim "wgmma.f16.n8"
// F16-NOT: wgmma.f16
