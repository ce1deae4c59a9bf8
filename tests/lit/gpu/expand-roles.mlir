// expand-roles: a branch on the warp, and the register budget before anything else.
// RUN: quern-opt --expand-roles --canonicalize --cse %s | FileCheck %s

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  qtile.role "producer" warps 0 count 4 registers 40 increase false {
    qtile.prim "cp.async.commit"() : () -> ()
  }
  qtile.role "consumer" warps 4 count 8 registers 232 increase true {
    qtile.prim "wgmma.commit"() : () -> ()
    qtile.prim "cluster.wait"() : () -> ()
  }
  // No budget of its own: the registers that the launch gave.
  qtile.role "idle" warps 12 count 1 registers 0 increase false {
    qtile.prim "fence.proxy.async"() : () -> ()
  }
}

// CHECK: %[[WARP:.*]] = arith.shrui %{{.*}}, %c5_i32
// CHECK: arith.cmpi sge, %[[WARP]], %c0_i32
// CHECK: arith.cmpi slt, %[[WARP]], %c4_i32
// CHECK: scf.if
// CHECK-NEXT: qtile.prim "setmaxnreg.dec.40"()
// CHECK-NEXT: qtile.prim "cp.async.commit"()
// CHECK-NEXT: }
// CHECK: %[[WARP2:.*]] = arith.shrui
// CHECK: %[[GE:.*]] = arith.cmpi sge, %[[WARP2]], %c4_i32
// CHECK: %[[LT:.*]] = arith.cmpi slt, %[[WARP2]], %c12_i32
// CHECK: %[[INSIDE:.*]] = arith.andi %[[GE]], %[[LT]]
// CHECK: scf.if %[[INSIDE]]
// CHECK-NEXT: qtile.prim "setmaxnreg.inc.232"()
// CHECK-NEXT: qtile.prim "wgmma.commit"()
// CHECK-NEXT: qtile.prim "cluster.wait"()
// CHECK-NEXT: }
// CHECK: arith.cmpi sge, %{{.*}}, %c12_i32
// CHECK: arith.cmpi slt, %{{.*}}, %c13_i32
// CHECK: scf.if
// CHECK-NEXT: qtile.prim "fence.proxy.async"()
// CHECK-NOT: setmaxnreg
// CHECK-NOT: qtile.role
