// expand-tables: a lane's 4 of 16 products, rounded to pairs, split into byte planes and traded within the quad.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-tables --canonicalize --cse
// RUN: %{pass} %s | FileCheck %s --check-prefixes=CHECK,BF16
// RUN: sed 's/act = "bf16"/act = "f16"/;s/state = "bf16"/state = "f16"/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,F16
// RUN: sed 's/state = "bf16"/state = "f16"/' %s | %{pass} | FileCheck %s --check-prefix=TWICE
// RUN: sed 's/state = "bf16"/state = "f32"/' %s | %{pass} | FileCheck %s --check-prefixes=CHECK,BF16
// RUN: sed 's/ entries/ zero %%z entries/' %s | %{pass} | FileCheck %s --check-prefix=ZERO

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  %s, %z, %e0, %e1, %e2, %e3 = "test.values"() : () -> (f32, f32, f32, f32, f32, f32)
  %planes:8 = qtile.tables %s entries %e0, %e1, %e2, %e3 : i32, i32, i32, i32, i32, i32, i32, i32
  "test.planes"(%planes#0, %planes#1, %planes#2, %planes#3, %planes#4, %planes#5, %planes#6, %planes#7) : (i32, i32, i32, i32, i32, i32, i32, i32) -> ()
}

// CHECK: %[[V:.*]]:6 = "test.values"()
// CHECK-DAG: %[[P0:.*]] = arith.mulf %[[V]]#2, %[[V]]#0
// CHECK-DAG: %[[P1:.*]] = arith.mulf %[[V]]#3, %[[V]]#0
// CHECK-DAG: %[[P2:.*]] = arith.mulf %[[V]]#4, %[[V]]#0
// CHECK-DAG: %[[P3:.*]] = arith.mulf %[[V]]#5, %[[V]]#0
// The first operand is the upper half. One rounding where both types agree, and where the state is fp32.
// BF16: %[[LOW:.*]] = qtile.prim "cvt.bf16x2"(%[[P1]], %[[P0]])
// BF16: %[[HIGH:.*]] = qtile.prim "cvt.bf16x2"(%[[P3]], %[[P2]])
// F16: %[[LOW:.*]] = qtile.prim "cvt.f16x2"(%[[P1]], %[[P0]])
// F16: %[[HIGH:.*]] = qtile.prim "cvt.f16x2"(%[[P3]], %[[P2]])
// CHECK-NOT: cvt
// Low bytes of the four products, then c^1, c^2, c^3 by butterflies; the same for high bytes.
// CHECK: %[[L0:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[LOW]], %[[HIGH]], %c25632_i32)
// CHECK: %[[L1:.*]] = llvm.call_intrinsic "llvm.nvvm.shfl.sync.bfly.i32"(%c-1_i32, %[[L0]], %c1_i32, %c31_i32)
// CHECK: %[[L2:.*]] = llvm.call_intrinsic "llvm.nvvm.shfl.sync.bfly.i32"(%c-1_i32, %[[L0]], %c2_i32, %c31_i32)
// CHECK: %[[L3:.*]] = llvm.call_intrinsic "llvm.nvvm.shfl.sync.bfly.i32"(%c-1_i32, %[[L1]], %c2_i32, %c31_i32)
// CHECK: %[[H0:.*]] = llvm.call_intrinsic "llvm.nvvm.prmt"(%[[LOW]], %[[HIGH]], %c30001_i32)
// CHECK: %[[H1:.*]] = llvm.call_intrinsic "llvm.nvvm.shfl.sync.bfly.i32"(%c-1_i32, %[[H0]], %c1_i32, %c31_i32)
// CHECK: %[[H2:.*]] = llvm.call_intrinsic "llvm.nvvm.shfl.sync.bfly.i32"(%c-1_i32, %[[H0]], %c2_i32, %c31_i32)
// CHECK: %[[H3:.*]] = llvm.call_intrinsic "llvm.nvvm.shfl.sync.bfly.i32"(%c-1_i32, %[[H1]], %c2_i32, %c31_i32)
// CHECK: "test.planes"(%[[L0]], %[[L1]], %[[L2]], %[[L3]], %[[H0]], %[[H1]], %[[H2]], %[[H3]])

// Another state: rounded to it first, widened, rounded again.
// TWICE: %[[ONCE:.*]] = qtile.prim "cvt.f16x2"
// TWICE: arith.trunci %[[ONCE]] : i32 to i16
// TWICE: %[[LOW:.*]] = arith.extf %{{.*}} : f16 to f32
// TWICE: arith.shrui %[[ONCE]], %c16_i32
// TWICE: %[[HIGH:.*]] = arith.extf %{{.*}} : f16 to f32
// TWICE: qtile.prim "cvt.bf16x2"(%[[HIGH]], %[[LOW]])
// TWICE: "cvt.f16x2"
// TWICE: "cvt.bf16x2"
// TWICE-NOT: cvt

// The zero point is taken off before the scale.
// ZERO: %[[V:.*]]:6 = "test.values"()
// ZERO-DAG: %[[D0:.*]] = arith.subf %[[V]]#2, %[[V]]#1
// ZERO-DAG: arith.mulf %[[D0]], %[[V]]#0
// ZERO-DAG: %[[D3:.*]] = arith.subf %[[V]]#5, %[[V]]#1
// ZERO-DAG: arith.mulf %[[D3]], %[[V]]#0
// ZERO: "cvt.bf16x2"
