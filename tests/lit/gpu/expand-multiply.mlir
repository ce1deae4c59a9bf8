// expand-multiply: the K loop. What must hold however it is scheduled: a stage is read only after a wait for it, each of the four
// slices is fenced before its wgmma and committed after it, and a stage is released only when no wgmma reads it any more.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-multiply --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s --check-prefixes=CHECK,ONE,EXACT
// RUN: sed 's/stages=3/stages=3 cluster=2/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,CLUSTER,EXACT
// RUN: sed 's/stages=3/stages=3 decode=fast/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,ONE,FAST --implicit-check-not=qtile.tables
// RUN: sed 's/stages=3/stages=3 decode=pairs/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,ONE --implicit-check-not=qtile.tables --implicit-check-not=twist
// RUN: %{pass} %s | FileCheck %s --check-prefix=READS
// RUN: sed 's/act = "bf16"/act = "f16"/' %s | %{pass} | FileCheck %s --check-prefix=F16
// RUN: sed 's/block = 64/block = 32/' %s | %{pass} | FileCheck %s --check-prefix=TWO
// RUN: sed 's/zero = false/zero = true/' %s | %{pass} | FileCheck %s --check-prefix=ZERO
// RUN: sed 's/"none"/"halved"/;s/n = 320/n = 384/' %s | %{pass} | FileCheck %s --check-prefix=HALVED

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%rows: i32):
  %done = "test.done"() : () -> i32
  %c:4 = qtile.multiply 8 after %done : f32, f32, f32, f32
  "test.accumulators"(%c#0, %c#1, %c#2, %c#3) : (f32, f32, f32, f32) -> ()
}

// The ring goes on where it stood; a consumer waits for the parity of the pass itself.
// CHECK: %[[DONE:.*]] = "test.done"()
// CHECK: %[[STAGE:.*]] = arith.remui %[[DONE]], %c3_i32
// CHECK: %[[PASS:.*]] = arith.divui %[[DONE]], %c3_i32
// CHECK: %[[PARITY:.*]] = arith.andi %[[PASS]], %c1_i32
// CHECK-NOT: llvm.load
// CHECK: qtile.prim "mbarrier.wait"(%{{.*}}, %[[PARITY]])
// EXACT: qtile.tables
// FAST: qtile.prim "cvt.bf16x2"
// CHECK: %[[SUM:.*]]:{{[0-9]+}} = scf.for %{{.*}} = %c0_i32 to %c3_i32 step %c1_i32 iter_args(%{{[a-z0-9]*}} = %[[START:cst[_0-9]*]], %{{[a-z0-9]*}} = %[[START]], %{{[a-z0-9]*}} = %[[START]], %{{[a-z0-9]*}} = %[[START]],
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
// At every CTA whose copies may land in this stage.
// CLUSTER: qtile.prim "mbarrier.arrive.cluster"(%[[EMPTY:.*]], %c0_i32)
// CLUSTER-NEXT: qtile.prim "mbarrier.arrive.cluster"(%[[EMPTY]], %c1_i32)
// CHECK-NOT: mbarrier.arrive
// CHECK: %[[F:.*]]:8 = qtile.prim "wgmma.fence.n4.a4"(
// CHECK-NEXT: qtile.prim "wgmma.bf16.n8"(%[[F]]#0,
// CHECK-NEXT: qtile.prim "wgmma.commit"
// CHECK: %[[F:.*]]:8 = qtile.prim "wgmma.fence.n4.a4"(
// CHECK-NEXT: qtile.prim "wgmma.bf16.n8"(%[[F]]#0,
// CHECK-NEXT: qtile.prim "wgmma.commit"
// CHECK: %[[F:.*]]:8 = qtile.prim "wgmma.fence.n4.a4"(
// CHECK-NEXT: qtile.prim "wgmma.bf16.n8"(%[[F]]#0,
// CHECK-NEXT: qtile.prim "wgmma.commit"
// CHECK-NOT: wgmma.bf16
// Slice 0 is done, so its registers may be written again; the last slice goes on into the next step.
// CHECK: %[[OUT:.*]]:4 = qtile.prim "wgmma.wait.1.n4"(
// CHECK: scf.yield %[[OUT]]#0, %[[OUT]]#1, %[[OUT]]#2, %[[OUT]]#3,
// CHECK: %[[END:.*]]:4 = qtile.prim "wgmma.wait.0.n4"(%[[SUM]]#0, %[[SUM]]#1, %[[SUM]]#2, %[[SUM]]#3)
// CHECK: "llvm.nvvm.bar.warp.sync"(%c-1_i32)
// ONE: qtile.prim "mbarrier.arrive"(
// CLUSTER: qtile.prim "mbarrier.arrive.cluster"(
// CHECK: "test.accumulators"(%[[END]]#0, %[[END]]#1, %[[END]]#2, %[[END]]#3)

// Codes and scales are read behind a wait, before the loop and in it.
// READS: scf.for
// READS-NOT: llvm.load
// READS: "mbarrier.wait"
// READS: llvm.load %{{.*}} : !llvm.ptr<3> -> vector<2xi32>
// READS: llvm.load %{{.*}} : !llvm.ptr<3> -> vector<2xf32>
// READS-NOT: "mbarrier.arrive"
// READS: scf.yield

// F16-COUNT-4: qtile.prim "wgmma.f16.n8"
// F16-NOT: wgmma.f16

// Blocks of 32: two scales for each of a row's halves, so two pairs of tables a step.
// TWO: scf.for
// TWO-COUNT-4: qtile.tables
// TWO-NOT: qtile.tables

// ZERO: scf.for
// ZERO: qtile.tables %{{.*}} zero %{{.*}} entries
// ZERO: qtile.tables %{{.*}} zero %{{.*}} entries

// A thread takes half of its rows from the gate block, half from the up block.
// HALVED: scf.for
// HALVED-COUNT-4: qtile.arrange %{{.*}} upper %{{.*}} selector %
