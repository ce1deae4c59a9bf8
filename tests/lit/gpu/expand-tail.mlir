// expand-tail: rows that no expert has become zeros, by all producer threads of the grid: 16 bytes of a thread where lines are
// multiples of that, else 8 (4 columns of 2 bytes are the least).
// RUN: quern-opt --expand-tail --canonicalize --cse %s | FileCheck %s

qtile.program @p params ["offsets -1 0", "experts -1 0", "rows -1 0", "pointer 4 0", "pointer 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%offsets: !llvm.ptr<1>, %experts: i32, %rows: i32, %y: !llvm.ptr<1>, %z: !llvm.ptr<1>):
  qtile.tail %offsets experts %experts rows %rows operands [4, 5] columns [256, 640] : <1>
}

// CHECK: ^bb0(%[[OFFSETS:.*]]: !llvm.ptr<1>, %[[EXPERTS:.*]]: i32, %[[ROWS:.*]]: i32, %[[Y:.*]]: !llvm.ptr<1>, %[[Z:.*]]: !llvm.ptr<1>):
// The live rows end at the last offset.
// CHECK: arith.shli %[[EXPERTS]], %c2_i32
// CHECK: %[[LIVE:.*]] = llvm.load
// CHECK-NEXT: %[[SOME:.*]] = arith.cmpi slt, %[[LIVE]], %[[ROWS]]
// CHECK-NEXT: scf.if %[[SOME]]
// CHECK: arith.muli %{{.*}}, %c128_i32
// CHECK: arith.muli %{{.*}}, %c128_i32
// CHECK: %[[LIVE64:.*]] = arith.extui %[[LIVE]]
// CHECK: %[[FIRST:.*]] = arith.muli %[[LIVE64]], %c256_i64
// CHECK: %[[END:.*]] = arith.muli %{{.*}}, %c256_i64
// CHECK: %[[FROM:.*]] = arith.addi %[[FIRST]],
// CHECK: scf.for %[[AT:.*]] = %[[FROM]] to %[[END]]
// CHECK: %[[P:.*]] = llvm.getelementptr %[[Y]][%[[AT]]]
// CHECK-NEXT: llvm.store %{{.*}}, %[[P]] {alignment = 16 : i64} : vector<4xi32>
// CHECK: %[[FIRST2:.*]] = arith.muli %{{.*}}, %c640_i64
// CHECK: scf.for
// CHECK: llvm.getelementptr %[[Z]][
// CHECK-NEXT: llvm.store {{.*}} vector<4xi32>
// CHECK-NOT: llvm.store
// CHECK-NOT: qtile.tail

// RUN: sed 's/\[256, 640\]/[24, 8]/' %s | quern-opt --expand-tail --canonicalize --cse | FileCheck %s --check-prefix=EIGHT
// EIGHT: arith.shli %{{.*}}, %c3_i64
// EIGHT: scf.for
// EIGHT: llvm.store {{.*}} {alignment = 8 : i64} : vector<2xi32>
// EIGHT: llvm.store {{.*}} {alignment = 8 : i64} : vector<2xi32>
