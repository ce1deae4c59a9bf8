// expand-reduce: partial sums meet in the first CTA of the cluster, in the order of ranks, through the region of each peer.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-reduce --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s
// RUN: sed 's/k = 384/k = 512/' %s | %{pass} | FileCheck %s --check-prefix=EVEN
// RUN: sed 's/bn=32 stages=3 decode=fast split=4/bm=64 bn=64 stages=3 decode=fast split=2/' %s | %{pass} | FileCheck %s --check-prefix=TWO
// RUN: sed 's/ split=4//' %s | not %{pass} 2>&1 | FileCheck %s --check-prefix=WITHOUT

qtile.program @p params [] schedule "bn=32 stages=3 decode=fast split=4" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 384 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  %done, %a:4 = "test.multiplied"() : () -> (i32, f32, f32, f32, f32)
  qtile.reduce 8 after %done of %a#0, %a#1, %a#2, %a#3 : f32, f32, f32, f32 {
  ^bb0(%s0: f32, %s1: f32, %s2: f32, %s3: f32):
    "test.epilogue"(%s0, %s1, %s2, %s3) : (f32, f32, f32, f32) -> ()
  }
}

// The parity of the exchange is that of the tiles done: 6 steps are 2, 2, 1 and 1 for the ranks.
// CHECK: %[[IN:.*]]:5 = "test.multiplied"()
// CHECK: %[[ID:.*]] = llvm.call_intrinsic "llvm.nvvm.read.ptx.sreg.ctaid.x"
// CHECK: %[[RANK:.*]] = arith.remui %[[ID]], %c4_i32
// CHECK: %[[LONGER:.*]] = arith.cmpi slt, %[[RANK]], %c2_i32
// CHECK: %[[HALF:.*]] = arith.divui %[[IN]]#0, %c2_i32
// CHECK: %[[TILES:.*]] = arith.select %[[LONGER]], %[[HALF]], %[[IN]]#0
// CHECK: %[[FIRST:.*]] = arith.cmpi eq, %[[RANK]], %c0_i32
// CHECK-NEXT: scf.if %[[FIRST]] {
// Rank 0 waits for all peers, then adds what they left: own sum first, rank 1 next.
// CHECK-NEXT: %[[PARITY:.*]] = arith.andi %[[TILES]], %c1_i32
// CHECK-NEXT: %[[READY:.*]] = qtile.smem 26160
// CHECK-NEXT: "mbarrier.wait.cluster"(%[[READY]], %[[PARITY]])
// CHECK-NEXT: %[[SUM:.*]]:4 = scf.for %[[PEER:.*]] = %c1_i32 to %c4_i32 step %c1_i32 iter_args(%[[S0:.*]] = %[[IN]]#1, {{.*}}, %[[S3:.*]] = %[[IN]]#4)
// CHECK: %[[THREAD:.*]] = arith.addi %{{.*}}, %c-128_i32
// CHECK: %[[REGION:.*]] = qtile.smem 30464
// CHECK: %[[OFFSET:.*]] = arith.shli %[[THREAD]], %c3_i32
// CHECK: %[[WIDE:.*]] = arith.extui %[[OFFSET]]
// CHECK: %[[AT:.*]] = llvm.getelementptr %[[REGION]][%[[WIDE]]]
// CHECK: %[[BITS:.*]] = qtile.prim "ld.cluster.b64"(%[[AT]], %[[PEER]])
// CHECK: %[[PAIR:.*]] = llvm.bitcast %[[BITS]] : i64 to vector<2xf32>
// 2 x 128 threads of 8 bytes further: the next pair.
// CHECK: llvm.getelementptr %{{.*}}[2048]
// CHECK-NEXT: "ld.cluster.b64"({{.*}}, %[[PEER]])
// CHECK: %[[LOW:.*]] = llvm.extractelement %[[PAIR]][%c0_i32 : i32]
// CHECK-NEXT: %[[N0:.*]] = arith.addf %[[S0]], %[[LOW]]
// CHECK: %[[N3:.*]] = arith.addf %[[S3]],
// CHECK-NEXT: scf.yield %[[N0]], {{.*}}, %[[N3]]
// Each warp lets the peers overwrite, once all of its lanes have read.
// CHECK: %[[TAKEN:.*]] = qtile.smem 26168
// CHECK-NEXT: "llvm.nvvm.bar.warp.sync"
// CHECK: scf.if
// CHECK-NEXT: "mbarrier.arrive.release.cluster"(%[[TAKEN]], %c1_i32)
// CHECK-NEXT: "mbarrier.arrive.release.cluster"(%[[TAKEN]], %c2_i32)
// CHECK-NEXT: "mbarrier.arrive.release.cluster"(%[[TAKEN]], %c3_i32)
// CHECK-NEXT: }
// CHECK-NEXT: "test.epilogue"(%[[SUM]]#0, %[[SUM]]#1, %[[SUM]]#2, %[[SUM]]#3)
// CHECK-NEXT: } else {
// A peer may write when its sums of the tile before were read (at first: at once), then tells rank 0.
// CHECK: %[[TAKEN2:.*]] = qtile.smem 26168
// CHECK: %[[LAST:.*]] = arith.andi %[[TILES]], %c1_i32
// CHECK-NEXT: %[[BEFORE:.*]] = arith.xori %[[LAST]], %c1_i32
// CHECK-NEXT: "mbarrier.wait.cluster"(%[[TAKEN2]], %[[BEFORE]])
// CHECK-COUNT-2: llvm.store {{.*}} {alignment = 8 : i64} : vector<2xf32>, !llvm.ptr<3>
// CHECK: %[[READY2:.*]] = qtile.smem 26160
// CHECK-NEXT: "llvm.nvvm.bar.warp.sync"
// CHECK: scf.if
// CHECK-NEXT: "mbarrier.arrive.release.cluster"(%[[READY2]], %c0_i32)
// CHECK-NOT: test.epilogue
// CHECK-NOT: qtile.reduce

// 8 steps: 2 for each rank.
// EVEN: %[[DONE:.*]]:5 = "test.multiplied"()
// EVEN-NOT: arith.select
// EVEN: arith.divui %[[DONE]]#0, %c2_i32

// One consumer warpgroup: pairs lie 1024 bytes apart; stages of 8192 + 2048 + 256 bytes and the table come before the region.
// TWO: qtile.smem 31536
// TWO: qtile.smem 35840
// TWO: "ld.cluster.b64"({{.*}}, %c1_i32)
// TWO: [1024]

// WITHOUT: 'qtile.reduce' op needs a schedule with split
