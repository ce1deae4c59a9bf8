// expand-tiles: the persistent loop. A CTA (or cluster) takes every n-th tile; a tile's expert is found in the table.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-tiles --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s --check-prefixes=CHECK,SMALL
// RUN: sed 's/bn=32 stages=3/bn=32 stages=3 cluster=2/' %s | %{pass} | FileCheck %s --check-prefix=CLUSTER
// RUN: sed 's/bn=32 stages=3/bn=8 stages=3/;s/k = 192/k = 160/' %s | %{pass} | FileCheck %s --check-prefix=LEAST
// RUN: sed 's/bn=32 stages=3/bn=192 stages=3/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,LARGE

qtile.program @p params ["offsets -1 0", "experts -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%offsets: !llvm.ptr<1>, %experts: i32):
  %done = qtile.tiles %offsets experts %experts : <1> {
  ^bb0(%expert: i32, %row0: i32, %rows: i32, %width: i32, %tile: i32, %before: i32):
    "test.expert"(%expert) : (i32) -> ()
    "test.weight_tile"(%tile) : (i32) -> ()
    "test.rows"(%row0, %rows) : (i32, i32) -> ()
    "test.width"(%width) : (i32) -> ()
    "test.before"(%before) : (i32) -> ()
  }
  "test.done"(%done) : (i32) -> ()
}

// CHECK: ^bb0(%[[OFFSETS:.*]]: !llvm.ptr<1>, %[[EXPERTS:.*]]: i32):
// The last entry of the table is the number of all tiles.
// CHECK: %[[TABLE:.*]] = qtile.smem
// CHECK: %[[LAST:.*]] = arith.shli %[[EXPERTS]], %c2_i32
// CHECK: %[[TOTAL:.*]] = llvm.load
// CHECK: %[[CTA:.*]] = llvm.call_intrinsic "llvm.nvvm.read.ptx.sreg.ctaid.x"
// CHECK: %[[CTAS:.*]] = llvm.call_intrinsic "llvm.nvvm.read.ptx.sreg.nctaid.x"
// CHECK: %[[LOOP:.*]]:2 = scf.while (%[[T:.*]] = %[[CTA]], %{{.*}} = %c0_i32)
// CHECK-NEXT: %[[MORE:.*]] = arith.cmpi slt, %[[T]], %[[TOTAL]]
// CHECK-NEXT: scf.condition(%[[MORE]])
// CHECK: ^bb0(%[[TILE:.*]]: i32, %[[BEFORE:.*]]: i32):
// Binary search: the last expert whose first tile is not beyond this one. Experts without rows have no tile: of equal entries
// the last one wins.
// CHECK: %[[FOUND:.*]]:2 = scf.while (%[[LOW:.*]] = %c0_i32, %[[HIGH:.*]] = %[[EXPERTS]])
// CHECK-NEXT: %[[NEXT:.*]] = arith.addi %[[LOW]], %c1_i32
// CHECK-NEXT: arith.cmpi slt, %[[NEXT]], %[[HIGH]]
// CHECK: do {
// CHECK-NEXT: ^bb0(%[[L:.*]]: i32, %[[H:.*]]: i32):
// CHECK-NEXT: %[[SUM:.*]] = arith.addi %[[L]], %[[H]]
// CHECK-NEXT: %[[MIDDLE:.*]] = arith.shrui %[[SUM]], %c1_i32
// CHECK: %[[FIRST:.*]] = llvm.load
// CHECK-NEXT: %[[IN:.*]] = arith.cmpi sge, %[[TILE]], %[[FIRST]]
// CHECK-NEXT: %[[L2:.*]] = arith.select %[[IN]], %[[MIDDLE]], %[[L]]
// CHECK-NEXT: %[[H2:.*]] = arith.select %[[IN]], %[[H]], %[[MIDDLE]]
// CHECK-NEXT: scf.yield %[[L2]], %[[H2]]
// Weight tiles run first: token tile = local / 3, weight tile = the rest.
// CHECK: %[[LOCAL:.*]] = arith.subi %[[TILE]], %{{.*}}
// CHECK-NEXT: %[[TOKENS:.*]] = arith.divui %[[LOCAL]], %c3_i32
// CHECK-NEXT: %[[SKIPPED:.*]] = arith.muli %[[TOKENS]], %c3_i32
// CHECK-NEXT: %[[WEIGHTS:.*]] = arith.subi %[[LOCAL]], %[[SKIPPED]]
// The expert's rows in equal parts, rounded up to 16: parts = ceil(count / bn), part = ceil(count / parts).
// CHECK: %[[BEGIN:.*]] = llvm.load
// CHECK: %[[END:.*]] = llvm.load
// CHECK: %[[COUNT:.*]] = arith.subi %[[END]], %[[BEGIN]]
// SMALL-NEXT: %[[A:.*]] = arith.addi %[[COUNT]], %c31_i32
// SMALL-NEXT: %[[PARTS:.*]] = arith.divui %[[A]], %c32_i32
// LARGE-NEXT: %[[A:.*]] = arith.addi %[[COUNT]], %c191_i32
// LARGE-NEXT: %[[PARTS:.*]] = arith.divui %[[A]], %c192_i32
// CHECK-NEXT: %[[B:.*]] = arith.addi %[[COUNT]], %[[PARTS]]
// CHECK-NEXT: %[[C:.*]] = arith.subi %[[B]], %c1_i32
// CHECK-NEXT: %[[D:.*]] = arith.divui %[[C]], %[[PARTS]]
// CHECK-NEXT: %[[E:.*]] = arith.addi %[[D]], %c15_i32
// CHECK-NEXT: %[[F:.*]] = arith.divui %[[E]], %c16_i32
// CHECK-NEXT: %[[PART:.*]] = arith.muli %[[F]], %c16_i32
// CHECK-NEXT: %[[G:.*]] = arith.muli %[[TOKENS]], %[[PART]]
// CHECK-NEXT: %[[ROW0:.*]] = arith.addi %[[BEGIN]], %[[G]]
// CHECK-NEXT: %[[REST:.*]] = arith.subi %[[END]], %[[ROW0]]
// CHECK-NEXT: %[[ROWS:.*]] = arith.minsi %[[PART]], %[[REST]]
// The smallest width of the ladder that holds the rows.
// SMALL-NEXT: %[[LE16:.*]] = arith.cmpi sle, %[[ROWS]], %c16_i32
// SMALL-NEXT: %[[W16:.*]] = arith.select %[[LE16]], %c16_i32, %c32_i32
// SMALL-NEXT: %[[LE8:.*]] = arith.cmpi sle, %[[ROWS]], %c8_i32
// SMALL-NEXT: %[[WIDTH:.*]] = arith.select %[[LE8]], %c8_i32, %[[W16]]
// LARGE-NEXT: %[[UP:.*]] = arith.addi %[[ROWS]], %c31_i32
// LARGE: %[[WIDTH:.*]] = arith.{{andi|shli}}
// CHECK: "test.expert"(%[[FOUND]]#0)
// CHECK-NEXT: "test.weight_tile"(%[[WEIGHTS]])
// CHECK-NEXT: "test.rows"(%[[ROW0]], %[[ROWS]])
// CHECK-NEXT: "test.width"(%[[WIDTH]])
// CHECK-NEXT: "test.before"(%[[BEFORE]])
// 192 columns of K are 3 steps.
// CHECK: %[[THEN:.*]] = arith.addi %[[TILE]], %[[CTAS]]
// CHECK-NEXT: %[[AFTER:.*]] = arith.addi %[[BEFORE]], %c3_i32
// CHECK-NEXT: scf.yield %[[THEN]], %[[AFTER]]
// CHECK: "test.done"(%[[LOOP]]#1)

// The CTAs of a cluster take neighbouring weight tiles of the same tokens, so that they can share a box of activations.
// CLUSTER: %[[CTA:.*]] = llvm.call_intrinsic "llvm.nvvm.read.ptx.sreg.ctaid.x"
// CLUSTER: %[[RANK:.*]] = arith.remui %[[CTA]], %c2_i32
// CLUSTER-NEXT: %[[FIRST:.*]] = arith.divui %[[CTA]], %c2_i32
// CLUSTER-NEXT: %[[STRIDE:.*]] = arith.divui %{{.*}}, %c2_i32
// CLUSTER: scf.while (%{{.*}} = %[[FIRST]], %{{.*}} = %c0_i32)
// CLUSTER: ^bb0(%[[TILE:.*]]: i32, %{{.*}}: i32):
// CLUSTER: %[[LOCAL:.*]] = arith.subi %[[TILE]]
// CLUSTER: arith.divui %[[LOCAL]], %c2_i32
// CLUSTER: %[[IN:.*]] = arith.subi %[[LOCAL]], %{{.*}}
// CLUSTER-NEXT: %[[GROUP:.*]] = arith.muli %[[IN]], %c2_i32
// CLUSTER-NEXT: %[[WEIGHTS:.*]] = arith.addi %[[GROUP]], %[[RANK]]
// CLUSTER: "test.weight_tile"(%[[WEIGHTS]])
// CLUSTER: arith.addi %[[TILE]], %[[STRIDE]]

// One width: no selection. 160 columns are 3 steps, too.
// LEAST: %[[PARTS:.*]] = arith.divui %{{.*}}, %c8_i32
// LEAST: arith.minsi
// LEAST-NOT: arith.select
// LEAST: "test.width"(%c8_i32)
// LEAST: arith.addi %{{.*}}, %c3_i32
