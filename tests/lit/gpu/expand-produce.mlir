// expand-produce: a step waits for its stage to be empty, announces the bytes of its bulk copies, then copies.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-produce --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s --check-prefixes=CHECK,SINGLE
// RUN: sed 's/stages=3/stages=3 cluster=2/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,MULTICAST
// RUN: sed 's/stages=3/stages=4 gather=fused/' %s | %{pass} | FileCheck %s --check-prefix=FUSED
// RUN: sed 's/stages=3/stages=3 gather=fused/;s/by_token = true/by_token = false/' %s | %{pass} | FileCheck %s --check-prefix=SORTED-FUSED
// RUN: sed 's/k = 192/k = 160/' %s | %{pass} | FileCheck %s --check-prefixes=EDGE,HIGH
// RUN: sed 's/k = 192/k = 160/;s/high_first = true/high_first = false/' %s | %{pass} | FileCheck %s --check-prefixes=EDGE,LOW
// RUN: sed 's/n = 320/n = 328/' %s | %{pass} | FileCheck %s --check-prefix=EDGE-N
// RUN: sed 's/n = 320/n = 256/' %s | %{pass} | FileCheck %s --check-prefix=WHOLE --implicit-check-not=scf.if
// RUN: sed 's/scale = "f32"/scale = "e8m0"/;s/block = 64/block = 32/' %s | %{pass} | FileCheck %s --check-prefix=E8M0
// RUN: sed 's/scale = "f32"/scale = "bf16"/;s/block = 64/block = 128/' %s | %{pass} | FileCheck %s --check-prefix=BF16
// RUN: sed 's/zero = false/zero = true/' %s | %{pass} | FileCheck %s --check-prefix=ZERO
// RUN: sed 's/"none"/"halved"/;s/n = 320/n = 384/' %s | %{pass} | FileCheck %s --check-prefix=HALVED
// RUN: sed 's/by_expert = true/by_expert = false/' %s | %{pass} | FileCheck %s --check-prefix=DENSE
// RUN: sed 's/ decode=fast//' %s | %{pass} | FileCheck %s --check-prefix=EXACT
// RUN: sed 's/ decode=fast//;s/zero = false/zero = true/;s/block = 64/block = 32/' %s | %{pass} | FileCheck %s --check-prefix=EXACT-ZERO
// DEFINE: %{ahead} = sed 's/decode=fast/decode=ahead/;s/"codes 2 0"/"decoded -1 0"/'
// RUN: %{ahead} %s | %{pass} | FileCheck %s --check-prefixes=AHEAD,AHEAD-SORTED
// RUN: %{ahead} %s | sed 's/k = 192/k = 160/;s/n = 320/n = 328/;s/block = 64/block = 32/;s/zero = false/zero = true/' | %{pass} | FileCheck %s --check-prefixes=AHEAD,AHEAD-SORTED
// RUN: %{ahead} %s | sed 's/stages=3/stages=3 cluster=2/' | %{pass} | FileCheck %s --check-prefixes=AHEAD,AHEAD-CLUSTER
// RUN: %{ahead} %s | sed 's/stages=3/stages=3 gather=fused/' | %{pass} | FileCheck %s --check-prefixes=AHEAD,AHEAD-FUSED

qtile.program @p params ["map 0 0", "codes 2 0", "scales 2 0", "zeros 2 0", "pointer 0 0", "stride 0 0", "token -1 0"] schedule "bn=64 stages=3 decode=fast" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%map: !llvm.ptr, %codes: !llvm.ptr<1>, %scales: !llvm.ptr<1>, %zeros: !llvm.ptr<1>, %x: !llvm.ptr<1>, %stride: i64, %token: !llvm.ptr<1>):
  %expert, %row0, %rows, %width, %tile, %done = "test.tile"() : () -> (i32, i32, i32, i32, i32, i32)
  qtile.produce %expert, %row0, %rows, %width, %tile, %done
}

// CHECK: ^bb0(%[[MAP:[a-z0-9]*]]: !llvm.ptr, %[[CODES:[a-z0-9]*]]: !llvm.ptr<1>, %[[SCALES:[a-z0-9]*]]: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}
// CHECK: %[[T:.*]]:6 = "test.tile"()
// One thread does everything.
// CHECK: arith.cmpi eq, %{{.*}}, %c0_i32
// CHECK-NEXT: scf.if
// The expert's own arrays, from the tables of addresses.
// CHECK: %[[AT:.*]] = llvm.getelementptr %[[CODES]][
// CHECK-NEXT: %[[C:.*]] = llvm.load %[[AT]]
// CHECK: %[[AT2:.*]] = llvm.getelementptr %[[SCALES]][
// CHECK-NEXT: %[[S:.*]] = llvm.load %[[AT2]]
// The ring goes on where the tile before left it: stage = done % 3, parity of the pass = (done / 3) % 2.
// CHECK: %[[STAGE0:.*]] = arith.remui %[[T]]#5, %c3_i32
// CHECK-NEXT: %[[PASS:.*]] = arith.divui %[[T]]#5, %c3_i32
// CHECK-NEXT: %[[PARITY0:.*]] = arith.andi %[[PASS]], %c1_i32
// CHECK: scf.for %[[K:.*]] = %c0_i32 to %c3_i32 step %c1_i32 iter_args(%[[STAGE:.*]] = %[[STAGE0]], %[[PARITY:.*]] = %[[PARITY0]])
// A producer waits for the opposite parity: the first pass over the ring does not wait.
// CHECK: %[[FLIPPED:.*]] = arith.xori %[[PARITY]], %c1_i32
// CHECK: "mbarrier.wait"(%{{.*}}, %[[FLIPPED]])
// Bytes: the width's rows of 128, two blocks of codes, 128 fp32 scales.
// CHECK: %[[ROWS:.*]] = arith.shli %[[T]]#3, %c7_i32
// CHECK: %[[BYTES:.*]] = arith.addi %[[ROWS]], %c4608_i32
// CHECK: %[[FULL:.*]] = llvm.getelementptr
// CHECK-NEXT: "mbarrier.expect_tx"(%[[FULL]], %[[BYTES]])
// Boxes of 32 rows at columns 64 k; in a cluster each CTA loads every other box for both.
// CHECK: %[[BOXES:.*]] = arith.shrui %[[T]]#3, %c5_i32
// SINGLE: scf.for %[[BOX:.*]] = %c0_i32 to %[[BOXES]] step %c1_i32
// MULTICAST: %[[RANK:.*]] = arith.remui %{{.*}}, %c2_i32
// MULTICAST: scf.for %[[BOX:.*]] = %[[RANK]] to %[[BOXES]] step %c2_i32
// CHECK: %[[DOWN:.*]] = arith.muli %[[BOX]], %c32_i32
// CHECK-NEXT: %[[ROW:.*]] = arith.addi %[[T]]#1, %[[DOWN]]
// SINGLE-NEXT: "tma.load2d"(%{{.*}}, %[[MAP]], %{{.*}}, %[[ROW]], %[[FULL]])
// MULTICAST-NEXT: "tma.load2d.multicast"(%{{.*}}, %[[MAP]], %{{.*}}, %[[ROW]], %[[FULL]], %c3_i16)
// A tile may reach beyond N: it copies the last block again, which is never stored.
// CHECK: arith.minsi %{{.*}}, %c4_i32
// CHECK: %[[FROM:.*]] = llvm.getelementptr %[[C]][
// CHECK-NEXT: "cp.bulk"(%{{.*}}, %[[FROM]], %c2048_i32, %[[FULL]])
// CHECK: arith.minsi %{{.*}}, %c4_i32
// CHECK: %[[FROM2:.*]] = llvm.getelementptr %[[C]][
// CHECK-NEXT: "cp.bulk"(%{{.*}}, %[[FROM2]], %c2048_i32, %[[FULL]])
// 128 scales at once where the tile is inside, else 64 rows at a time: the bytes are the same.
// CHECK: arith.cmpi slt, %{{.*}}, %c193_i32
// CHECK: "cp.bulk"(%{{.*}}, %{{.*}}, %c512_i32, %[[FULL]])
// CHECK: else
// CHECK-COUNT-2: "cp.bulk"(%{{.*}}, %{{.*}}, %c256_i32, %[[FULL]])
// CHECK-NOT: cp.bulk
// The parity flips where the ring wraps.
// CHECK: %[[PLUS:.*]] = arith.addi %[[STAGE]], %c1_i32
// CHECK-NEXT: %[[WRAPS:.*]] = arith.cmpi eq, %[[PLUS]], %c3_i32
// CHECK-NEXT: %[[NEXT:.*]] = arith.select %[[WRAPS]], %c0_i32, %[[PLUS]]
// CHECK-NEXT: %[[NEXTP:.*]] = arith.select %[[WRAPS]], %[[FLIPPED]], %[[PARITY]]
// CHECK-NEXT: scf.yield %[[NEXT]], %[[NEXTP]]
// CHECK-NOT: mbarrier.arrive

// 64 rows, 16 at a time; a thread looks up its 4 tokens once for all steps; -1 where the tile has no row.
// FUSED: %[[TID:.*]] = llvm.call_intrinsic "llvm.nvvm.read.ptx.sreg.tid.x"
// FUSED-COUNT-4: scf.yield %c-1_i32
// FUSED-NOT: scf.yield %c-1_i32
// FUSED: scf.for
// FUSED: "mbarrier.wait"
// The elected thread announces what bulk copies bring: codes and scales, no activations.
// FUSED: "mbarrier.expect_tx"(%{{.*}}, %c4608_i32)
// FUSED-NOT: tma.load2d
// FUSED-COUNT-4: "cp.bulk"
// 16-byte chunks land in the 128-byte swizzle: chunk ^ row % 8. A row that is not there reads 0 bytes.
// FUSED: %[[CHUNK:.*]] = arith.andi %[[TID]], %c7_i32
// FUSED: arith.xori %[[CHUNK]],
// FUSED: %[[INK:.*]] = arith.cmpi slt, %{{.*}}, %c192_i32
// FUSED: %[[THERE:.*]] = arith.cmpi sge, %{{.*}}, %c0_i32
// FUSED-NEXT: %[[VALID:.*]] = arith.andi %[[INK]], %[[THERE]]
// FUSED: %[[SIZE:.*]] = arith.select %[[VALID]], %c16_i32, %c0_i32
// FUSED-NEXT: "cp.async16"(%{{.*}}, %{{.*}}, %[[SIZE]])
// FUSED-COUNT-3: "cp.async16"
// FUSED-NOT: cp.async16
// FUSED: "cp.async.commit"()
// Copies stay in flight for two steps; then they are made visible to wgmma, and their stage is handed over.
// FUSED: %[[STEP:.*]] = arith.addi %{{.*}}#5, %{{.*}}
// FUSED-NEXT: "cp.async.wait.2"()
// FUSED-NEXT: "fence.proxy.async"()
// FUSED-NEXT: arith.cmpi sge, %[[STEP]], %c2_i32
// FUSED-NEXT: scf.if
// FUSED-NEXT: %[[OLD:.*]] = arith.subi %[[STEP]], %c2_i32
// FUSED-NEXT: arith.remui %[[OLD]], %c4_i32
// FUSED: "mbarrier.arrive"

// Rows that need no token are rows of the routing. Consumers hold two stages at a time: a third one leaves room for one step in flight.
// SORTED-FUSED: ^bb0({{.*}}, %[[TOKEN:[a-z0-9]*]]: !llvm.ptr<1>):
// SORTED-FUSED-NOT: %[[TOKEN]]
// SORTED-FUSED: "cp.async16"
// SORTED-FUSED: "cp.async.wait.1"()
// SORTED-FUSED: arith.cmpi sge, %{{.*}}, %c1_i32

// The last 32 columns have no block: in that step threads gather codes, zeros beyond K, and no bytes are announced for them.
// EDGE: scf.for %[[K:.*]] = %c0_i32 to %c3_i32
// EDGE: "mbarrier.wait"
// EDGE: arith.cmpi slt, %[[K]], %c2_i32
// EDGE: arith.select %{{.*}}, %c2048_i32, %c0_i32
// EDGE: arith.select %{{.*}}, %c2048_i32, %c0_i32
// EDGE: "mbarrier.expect_tx"
// EDGE: "tma.load2d"
// EDGE: scf.if
// EDGE: "cp.bulk"(%{{.*}}, %{{.*}}, %c2048_i32
// EDGE: scf.if
// EDGE: "cp.bulk"(%{{.*}}, %{{.*}}, %c2048_i32
// EDGE-NOT: cp.bulk
// In whole blocks the low nibble comes first; in edges the codec decides.
// EDGE: llvm.load %{{.*}} -> i8
// HIGH: arith.andi %{{.*}}, %c15_i32
// LOW-NOT: arith.andi %{{.*}}, %c15_i32
// EDGE: llvm.store %{{.*}} : i32, !llvm.ptr<3>
// A row has two scales in a step. Every producer thread hands the stage over.
// EDGE: llvm.store %{{.*}} : f32, !llvm.ptr<3>
// EDGE: llvm.store %{{.*}} : f32, !llvm.ptr<3>
// EDGE: "mbarrier.arrive"
// EDGE-NOT: mbarrier.arrive

// 320 rows are in blocks, 8 are not: which a block is depends on the tile.
// EDGE-N: arith.cmpi slt, %{{.*}}, %c320_i32
// EDGE-N: "mbarrier.expect_tx"
// EDGE-N: arith.cmpi slt, %{{.*}}, %c328_i32
// EDGE-N: "mbarrier.arrive"

// Tiles that divide N take the short way without a question. (Not so in clusters: those may have a tile beyond N.)
// WHOLE: %[[ONE:.*]] = arith.cmpi eq, %{{.*}}, %c0_i32
// WHOLE-NEXT: scf.if %[[ONE]]
// WHOLE: "cp.bulk"(%{{.*}}, %{{.*}}, %c512_i32
// WHOLE-NOT: cp.bulk

// Other scales are converted by the threads: 2^(s - 127), 0 is 2^-127, 255 is NaN.
// They are read ahead of their step: before the loop for the first steps, in it for a later one.
// E8M0: %[[BYTE:.*]] = arith.extui %{{.*}} : i8 to i32
// E8M0-DAG: %[[LEAST:.*]] = arith.cmpi eq, %[[BYTE]], %c0_i32
// E8M0-DAG: %[[SHIFTED:.*]] = arith.shli %[[BYTE]], %c23_i32
// E8M0: %[[BITS:.*]] = arith.select %[[LEAST]], %c4194304_i32, %[[SHIFTED]]
// E8M0: %[[NAN:.*]] = arith.cmpi eq, %[[BYTE]], %c255_i32
// E8M0: arith.select %[[NAN]], %c2143289344_i32, %[[BITS]]
// E8M0: scf.for
// E8M0: arith.extui %{{.*}} : i8 to i32
// E8M0: "mbarrier.expect_tx"
// E8M0-COUNT-2: "cp.bulk"(%{{.*}}, %{{.*}}, %c2048_i32
// E8M0-NOT: cp.bulk
// E8M0: llvm.store %{{.*}} : f32, !llvm.ptr<3>
// E8M0: llvm.store %{{.*}} : f32, !llvm.ptr<3>
// E8M0-NOT: llvm.store

// Blocks of 128 codes: two steps share a scale, found by (n K + k) / 128.
// BF16: arith.divui %{{.*}}, %c128_i64 : i64
// BF16: llvm.load %{{.*}} -> bf16
// BF16-NEXT: arith.extf %{{.*}} : bf16 to f32
// BF16: llvm.store %{{.*}} : f32, !llvm.ptr<3>
// BF16-NOT: llvm.store

// Zero points follow the scales, as fp32.
// ZERO: ^bb0(%{{[a-z0-9]*}}: !llvm.ptr, %{{[a-z0-9]*}}: !llvm.ptr<1>, %{{[a-z0-9]*}}: !llvm.ptr<1>, %[[ZEROS:[a-z0-9]*]]: !llvm.ptr<1>,
// ZERO: llvm.getelementptr %[[ZEROS]][
// ZERO: scf.for
// ZERO: arith.uitofp %{{.*}} : i8 to f32
// ZERO: "mbarrier.expect_tx"
// ZERO: llvm.store %{{.*}} : f32, !llvm.ptr<3>
// ZERO: llvm.store %{{.*}} : f32, !llvm.ptr<3>
// ZERO-NOT: llvm.store

// Of a halved pair one block of 64 rows comes from each half of N; their scales, too.
// HALVED: "mbarrier.expect_tx"
// HALVED: %[[GATE:.*]] = arith.shli %{{.*}}#4, %c6_i32
// HALVED: "cp.bulk"(%{{.*}}, %{{.*}}, %c2048_i32
// HALVED: arith.addi %[[GATE]], %c192_i32
// HALVED: "cp.bulk"(%{{.*}}, %{{.*}}, %c2048_i32
// HALVED-NOT: scf.if
// HALVED-COUNT-2: "cp.bulk"(%{{.*}}, %{{.*}}, %c256_i32

// Without experts the tables of addresses have one entry.
// DENSE: ^bb0(%{{[a-z0-9]*}}: !llvm.ptr, %[[CODES:[a-z0-9]*]]: !llvm.ptr<1>, %[[SCALES:[a-z0-9]*]]: !llvm.ptr<1>, {{.*}}
// DENSE-DAG: llvm.load %[[CODES]] {alignment = 8 : i64}
// DENSE-DAG: llvm.load %[[SCALES]] {alignment = 8 : i64}

// decode=exact: scales are read three steps ahead; each thread stores its row's table of products, 2 x 16 bytes, and arrives.
// EXACT-COUNT-3: llvm.load %{{.*}} : !llvm.ptr<1> -> f32
// EXACT: scf.for
// EXACT: llvm.load %{{.*}} : !llvm.ptr<1> -> f32
// EXACT: "mbarrier.expect_tx"
// EXACT: %[[T:.*]]:8 = qtile.tables %
// EXACT: llvm.store %{{.*}} : vector<4xi32>, !llvm.ptr<3>
// EXACT: llvm.store %{{.*}} : vector<4xi32>, !llvm.ptr<3>
// EXACT: "mbarrier.arrive"
// EXACT-NOT: llvm.store

// Two blocks a step: a table for each, from its scale and zero point.
// EXACT-ZERO: scf.for
// EXACT-ZERO: "mbarrier.expect_tx"
// EXACT-ZERO: qtile.tables %{{.*}} zero %
// EXACT-ZERO-COUNT-2: llvm.store %{{.*}} : vector<4xi32>
// EXACT-ZERO: qtile.tables %{{.*}} zero %
// EXACT-ZERO-COUNT-2: llvm.store %{{.*}} : vector<4xi32>
// EXACT-ZERO: "mbarrier.arrive"
// Decoded weights: one copy of 128 rows x 128 bytes for a step, whatever N, K and the scales are: tiles [expert][tile][step].
// AHEAD: ^bb0({{.*}}, %[[DECODED:[a-z0-9]*]]: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: i64, %{{.*}}: !llvm.ptr<1>):
// AHEAD: %[[AT:.*]]:6 = "test.tile"()
// AHEAD: scf.for
// AHEAD: "mbarrier.wait"
// AHEAD-SORTED: arith.addi %{{.*}}, %c16384_i32
// AHEAD-CLUSTER: arith.addi %{{.*}}, %c16384_i32
// AHEAD-FUSED: "mbarrier.expect_tx"(%{{.*}}, %c16384_i32)
// AHEAD-SORTED: "tma.load2d"
// AHEAD-CLUSTER: "tma.load2d.multicast"
// A cluster's last weight tile may not exist: it takes the last one again, which is not stored.
// AHEAD-SORTED-NOT: arith.minsi
// AHEAD-CLUSTER: arith.minsi %[[AT]]#4, %c2_i32
// AHEAD: %[[EXPERT:.*]] = arith.extui %[[AT]]#0
// AHEAD: arith.muli %[[EXPERT]], %c3_i64
// AHEAD: %[[STEP:.*]] = arith.addi
// AHEAD: %[[BYTES:.*]] = arith.muli %{{.*}}, %c16384_i64
// AHEAD: %[[FROM:.*]] = llvm.getelementptr %[[DECODED]][%[[BYTES]]]
// AHEAD: "cp.bulk"(%{{.*}}, %[[FROM]], %c16384_i32
// AHEAD-NOT: cp.bulk
// AHEAD-NOT: llvm.store
