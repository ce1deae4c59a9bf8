// expand-setup: two mbarriers a stage, counted as the roles will arrive on them, then the tile table: a scan over the experts.
// DEFINE: %{pass} = quern-opt --expand-setup --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s
// RUN: sed 's/stages=3/stages=3 cluster=2/' %s | %{pass} | FileCheck %s --check-prefix=CLUSTER
// RUN: sed 's/stages=3/stages=3 gather=fused/' %s | %{pass} | FileCheck %s --check-prefix=WIDE
// RUN: sed 's/k = 192/k = 160/' %s | %{pass} | FileCheck %s --check-prefix=WIDE
// RUN: sed 's/zero = false/zero = true/' %s | %{pass} | FileCheck %s --check-prefix=WIDE
// RUN: sed 's/scale = "f32"/scale = "bf16"/' %s | %{pass} | FileCheck %s --check-prefix=WIDE
// RUN: sed 's/stages=3/stages=3 split=4/' %s | %{pass} | FileCheck %s --check-prefix=SPLIT
// RUN: sed 's/bn=32 stages=3/bm=64 bn=256 stages=2/' %s | %{pass} | FileCheck %s --check-prefix=OTHER

qtile.program @p params ["offsets -1 0", "experts -1 0"] schedule "bn=32 stages=3 decode=fast" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%offsets: !llvm.ptr<1>, %experts: i32):
  qtile.setup %offsets experts %experts : <1>
}

// One thread initialises: full barriers get one arrival (the elected thread's), empty ones one from each of 2 x 4 consumer warps.
// Stages of 4096 bytes of activations, 4096 of codes and 512 of scales come first.
// CHECK: ^bb0(%[[OFFSETS:.*]]: !llvm.ptr<1>, %[[EXPERTS:.*]]: i32):
// CHECK: scf.if
// CHECK: %[[FULL0:.*]] = qtile.smem 26112
// CHECK-NEXT: qtile.prim "mbarrier.init"(%[[FULL0]], %c1_i32)
// CHECK-NEXT: %[[EMPTY0:.*]] = qtile.smem 26120
// CHECK-NEXT: qtile.prim "mbarrier.init"(%[[EMPTY0]], %c8_i32)
// CHECK: "mbarrier.init"({{.*}}, %c1_i32)
// CHECK: "mbarrier.init"({{.*}}, %c8_i32)
// CHECK: "mbarrier.init"({{.*}}, %c1_i32)
// CHECK: %[[EMPTY2:.*]] = qtile.smem 26152
// CHECK-NEXT: qtile.prim "mbarrier.init"(%[[EMPTY2]], %c8_i32)
// CHECK-NEXT: "fence.mbarrier.init"()
// CHECK-NEXT: }
// CHECK-NOT: mbarrier.init
// CHECK: %[[TABLE:.*]] = qtile.smem 26160
// The table begins with 0.
// CHECK: llvm.store %c0_i32, %[[TABLE]]
// A round takes an expert per thread. Its tiles: rows / 32 rounded up, times ceil(320 / 128) weight tiles.
// CHECK: scf.for %{{.*}} = %c0_i32 to %[[EXPERTS]] step %c384_i32 iter_args(%[[BEFORE:.*]] = %c0_i32)
// CHECK: %[[INSIDE:.*]] = arith.cmpi slt, %[[EXPERT:.*]], %[[EXPERTS]]
// CHECK: %[[MINE:.*]] = scf.if %[[INSIDE]]
// CHECK: %[[ROWS:.*]] = arith.subi
// CHECK-NEXT: %[[UP:.*]] = arith.addi %[[ROWS]], %c31_i32
// CHECK-NEXT: %[[PARTS:.*]] = arith.divui %[[UP]], %c32_i32
// CHECK-NEXT: arith.muli %[[PARTS]], %c3_i32
// CHECK: else
// CHECK-NEXT: scf.yield %c0_i32
// A warp's scan, then the sums of 12 warps through shared memory.
// CHECK: shfl.sync.up.i32"(%c-1_i32, %[[MINE]], %c1_i32, %c0_i32)
// CHECK: shfl.sync.up.i32"(%c-1_i32, {{.*}}, %c2_i32, %c0_i32)
// CHECK: shfl.sync.up.i32"(%c-1_i32, {{.*}}, %c4_i32, %c0_i32)
// CHECK: shfl.sync.up.i32"(%c-1_i32, {{.*}}, %c8_i32, %c0_i32)
// CHECK: shfl.sync.up.i32"(%c-1_i32, {{.*}}, %c16_i32, %c0_i32)
// CHECK-NEXT: arith.cmpi sge, {{.*}}, %c16_i32
// CHECK: %[[SCANNED:.*]] = arith.addi
// CHECK: llvm.store %[[SCANNED]]
// CHECK: barrier.cta.sync
// CHECK-COUNT-12: llvm.load {{.*}} : !llvm.ptr<3> -> i32
// CHECK-NOT: llvm.load
// Entry e + 1 gets the tiles of experts 0..e.
// CHECK: scf.if %[[INSIDE]]
// CHECK-NEXT: %[[SUM:.*]] = arith.addi %{{.*}}, %[[SCANNED]]
// CHECK: arith.addi %[[EXPERT]], %c1_i32
// CHECK: %[[ENTRY:.*]] = llvm.getelementptr %[[TABLE]]
// CHECK: llvm.store %[[SUM]], %[[ENTRY]]
// Scratch is read by all before the next round writes it; the last barrier is there without experts, too.
// CHECK: barrier.cta.sync
// CHECK-NEXT: scf.yield
// CHECK-NEXT: }
// CHECK-NEXT: barrier.cta.sync
// CHECK-NOT: cluster
// CHECK-NOT: qtile.setup

// A cluster's copies land in both CTAs, so both CTAs' consumers free a stage, and no copy may start before both have barriers.
// CLUSTER: "mbarrier.init"({{.*}}, %c1_i32)
// CLUSTER: "mbarrier.init"({{.*}}, %c16_i32)
// Two CTAs take two weight tiles together: 2 groups of 3 tiles.
// CLUSTER: %[[PARTS:.*]] = arith.divui {{.*}}, %c32_i32
// CLUSTER-NEXT: arith.muli %[[PARTS]], %c2_i32
// CLUSTER-COUNT-3: barrier.cta.sync
// CLUSTER-NEXT: qtile.prim "cluster.arrive"
// CLUSTER-NEXT: qtile.prim "cluster.wait"

// Every producer thread arrives where all take part: a fused gather, edges of K, zero points, scales in other types.
// WIDE: "mbarrier.init"({{.*}}, %c129_i32)
// WIDE: "mbarrier.init"({{.*}}, %c8_i32)

// One consumer warpgroup: 256 threads, 8 warps, 5 weight tiles of 64 rows.
// OTHER: "mbarrier.init"({{.*}}, %c1_i32)
// OTHER: "mbarrier.init"({{.*}}, %c4_i32)
// OTHER: step %c256_i32
// OTHER: %[[UP:.*]] = arith.addi %{{.*}}, %c255_i32
// OTHER-NEXT: %[[PARTS:.*]] = arith.divui %[[UP]], %c256_i32
// OTHER-NEXT: arith.muli %[[PARTS]], %c5_i32
// OTHER: barrier.cta.sync
// OTHER-COUNT-8: llvm.load {{.*}} : !llvm.ptr<3> -> i32
// OTHER-NOT: llvm.load

// Two barriers more: 3 x 8 warps say that their sums are there, 8 warps that they were read; no CTA starts before its peers have them.
// SPLIT-COUNT-6: "mbarrier.init"
// SPLIT: %[[READY:.*]] = qtile.smem 26160
// SPLIT-NEXT: qtile.prim "mbarrier.init"(%[[READY]], %c24_i32)
// SPLIT-NEXT: %[[TAKEN:.*]] = qtile.smem 26168
// SPLIT-NEXT: qtile.prim "mbarrier.init"(%[[TAKEN]], %c8_i32)
// SPLIT-NEXT: "fence.mbarrier.init"()
// SPLIT: qtile.smem 26176
// SPLIT: "cluster.arrive"()
// SPLIT-NEXT: qtile.prim "cluster.wait"()
