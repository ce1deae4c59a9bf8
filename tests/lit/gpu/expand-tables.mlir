// expand-tables: the 16 products of a block, rounded to pairs and split into byte planes.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-tables --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s --check-prefixes=CHECK,BF16
// RUN: sed 's/act = "bf16"/act = "f16"/;s/state = "bf16"/state = "f16"/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,F16
// RUN: sed 's/state = "bf16"/state = "f16"/' %s | %{pass} | FileCheck %s --check-prefix=TWICE
// RUN: sed 's/state = "bf16"/state = "f32"/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,BF16
// RUN: sed 's/tables %%s/tables %%s zero %%z/' %s | %{pass} | FileCheck %s --check-prefix=ZERO

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  %s, %z = "test.values"() : () -> (f32, f32)
  %planes:8 = qtile.tables %s : i32, i32, i32, i32, i32, i32, i32, i32
  "test.planes"(%planes#0, %planes#1, %planes#2, %planes#3, %planes#4, %planes#5, %planes#6, %planes#7) : (i32, i32, i32, i32, i32, i32, i32, i32) -> ()
}

// CHECK-DAG: %[[V:.*]]:2 = "test.values"()
// CHECK-DAG: %[[E0:.*]] = arith.constant -8.0
// CHECK-DAG: %[[E1:.*]] = arith.constant -7.0
// CHECK-DAG: %[[E15:.*]] = arith.constant 7.0
// CHECK-DAG: %[[P0:.*]] = arith.mulf %[[V]]#0, %[[E0]] : f32
// CHECK-DAG: %[[P1:.*]] = arith.mulf %[[V]]#0, %[[E1]] : f32
// CHECK-DAG: %[[P15:.*]] = arith.mulf %[[V]]#0, %[[E15]] : f32
// The first operand is the upper half. One rounding where both types agree, and where the state is fp32.
// BF16-DAG: %[[W0:.*]] = qtile.prim "cvt.bf16x2"(%[[P1]], %[[P0]])
// F16-DAG: %[[W0:.*]] = qtile.prim "cvt.f16x2"(%[[P1]], %[[P0]])
// BF16-DAG: %[[W7:.*]] = qtile.prim "cvt.bf16x2"(%[[P15]],
// F16-DAG: %[[W7:.*]] = qtile.prim "cvt.f16x2"(%[[P15]],
// CHECK-NOT: cvt
// Low bytes of the products, four to a word, then their high bytes.
// CHECK: %[[L0:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[W0]], %{{.*}}, %c25632_i32)
// CHECK: %[[L3:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%{{.*}}, %[[W7]], %c25632_i32)
// CHECK: %[[H0:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[W0]], %{{.*}}, %c30001_i32)
// CHECK: %[[H3:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%{{.*}}, %[[W7]], %c30001_i32)
// CHECK: "test.planes"(%[[L0]], %{{.*}}, %{{.*}}, %[[L3]], %[[H0]], %{{.*}}, %{{.*}}, %[[H3]])

// Another state: rounded to it first, widened, rounded again.
// TWICE: %[[ONCE:.*]] = qtile.prim "cvt.f16x2"
// TWICE: arith.trunci %[[ONCE]] : i32 to i16
// TWICE: %[[LOW:.*]] = arith.extf %{{.*}} : f16 to f32
// TWICE: arith.shrui %[[ONCE]], %c16_i32
// TWICE: %[[HIGH:.*]] = arith.extf %{{.*}} : f16 to f32
// TWICE: qtile.prim "cvt.bf16x2"(%[[HIGH]], %[[LOW]])
// TWICE-COUNT-7: "cvt.bf16x2"
// TWICE-NOT: cvt

// The zero point is taken off before the scale.
// ZERO-DAG: %[[V:.*]]:2 = "test.values"()
// ZERO-DAG: %[[E15:.*]] = arith.constant 7.0
// ZERO: %[[D15:.*]] = arith.subf %[[E15]], %[[V]]#1 : f32
// ZERO-NEXT: arith.mulf %[[D15]], %[[V]]#0
// ZERO: "cvt.bf16x2"
