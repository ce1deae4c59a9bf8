// expand-drain: a fused gather still owes the arrivals of its last steps; everything else owes nothing.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-drain --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s --implicit-check-not=qtile.prim --implicit-check-not=qtile.drain
// RUN: sed 's/stages=3/stages=4 gather=fused/' %s | %{pass} | FileCheck %s --check-prefix=FUSED
// RUN: sed 's/stages=3/stages=3 gather=fused/' %s | %{pass} | FileCheck %s --check-prefix=THREE
// RUN: sed 's/stages=3/stages=2 gather=fused/' %s | %{pass} | FileCheck %s --check-prefix=TWO

qtile.program @p params [] schedule "bn=32 stages=3 decode=fast" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  %done = "test.done"() : () -> i32
  qtile.drain %done
}

// CHECK: "test.done"()

// All copies are complete and visible to wgmma before the first arrival. In order: steps done - 2 and done - 1, if there were such.
// FUSED: %[[DONE:.*]] = "test.done"()
// FUSED-NEXT: qtile.prim "cp.async.wait.0"()
// FUSED-NEXT: qtile.prim "fence.proxy.async"()
// FUSED-NEXT: %[[A:.*]] = arith.subi %[[DONE]], %c2_i32
// FUSED-NEXT: %[[IF:.*]] = arith.cmpi sge, %[[A]], %c0_i32
// FUSED-NEXT: scf.if %[[IF]]
// FUSED-NEXT: %[[STAGE:.*]] = arith.remui %[[A]], %c4_i32
// FUSED-NEXT: %[[OFFSET:.*]] = arith.shli %[[STAGE]], %c4_i32
// FUSED: %[[BARRIERS:.*]] = qtile.smem 34816
// FUSED: %[[BARRIER:.*]] = llvm.getelementptr %[[BARRIERS]]
// FUSED-NEXT: qtile.prim "mbarrier.arrive"(%[[BARRIER]])
// FUSED: %[[B:.*]] = arith.subi %[[DONE]], %c1_i32
// FUSED-NEXT: arith.cmpi sge, %[[B]], %c0_i32
// FUSED: arith.remui %[[B]], %c4_i32
// FUSED: qtile.prim "mbarrier.arrive"
// FUSED-NOT: mbarrier.arrive

// Consumers hold a stage until the next one is theirs too: of three stages one is in flight, of two none.
// THREE: "cp.async.wait.0"
// THREE: arith.subi %{{.*}}, %c1_i32
// THREE: arith.remui %{{.*}}, %c3_i32
// THREE: "mbarrier.arrive"
// THREE-NOT: mbarrier.arrive
// TWO: "test.done"()
// TWO-NOT: mbarrier.arrive
