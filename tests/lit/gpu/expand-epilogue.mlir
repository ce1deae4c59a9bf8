// expand-epilogue: the writes over a thread's fragments, and stores of what is inside rows and columns.
// DEFINE: %{pass} = quern-opt --allow-unregistered-dialect --expand-epilogue --canonicalize --cse
// RUN: split-file %s %t
// RUN: %{pass} %t/plain.mlir | FileCheck %s --check-prefix=PLAIN
// RUN: %{pass} %t/pair.mlir | FileCheck %s --check-prefixes=PAIR,INTERLEAVED
// RUN: sed 's/"interleaved"/"halved"/;s/column 2 0"/column 1 0"/;s/column 2 1"/column 1 160"/' %t/pair.mlir | %{pass} | FileCheck %s --check-prefixes=PAIR
// RUN: %{pass} %t/combine.mlir | FileCheck %s --check-prefix=COMBINE

//--- plain.mlir
qtile.program @p params ["pointer 3 0", "stride 3 0", "stride 3 1", "pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%b: !llvm.ptr<1>, %b0: i64, %b1: i64, %y: !llvm.ptr<1>, %y0: i64):
  %expert, %row0, %rows, %tile, %c0, %c1, %c2, %c3 = "test.tile"() : () -> (i32, i32, i32, i32, f32, f32, f32, f32)
  qtile.epilogue 8, %expert, %row0, %rows, %tile of %c0, %c1, %c2, %c3 : f32, f32, f32, f32 {
    qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0", "tensor 3 bf16 by expert column 1 0"] attributes {dtype = "bf16"} {
    ^bb0(%c: f32, %bias: f32):
      %v = arith.addf %c, %bias : f32
      qtile.value %v
    }
  }
}
// PLAIN: %[[T:.*]]:8 = "test.tile"()
// The thread's columns: 128 to a tile, 64 to a warpgroup, 16 to a warp, two neighbours to a row of the fragment.
// PLAIN: arith.muli %[[T]]#3, %c128_i32
// PLAIN: %[[N:.*]] = arith.addi
// PLAIN: %[[N1:.*]] = arith.addi %[[N]], %c1_i32
// Biases of both columns are read once, for all tokens; columns beyond the output read column 0.
// PLAIN: %[[IN:.*]] = arith.cmpi slt, %[[N]], %c320_i32
// PLAIN: arith.select %[[IN]], %[[N]], %c0_i32
// PLAIN: llvm.load %{{.*}} -> bf16
// PLAIN-NEXT: %[[B0:.*]] = arith.extf
// PLAIN: llvm.load %{{.*}} -> bf16
// PLAIN-NEXT: %[[B1:.*]] = arith.extf
// PLAIN-NOT: llvm.load
// Accumulators 0 and 2 are this token's two rows, 1 and 3 the next token's.
// PLAIN-DAG: %[[V0:.*]] = arith.addf %[[T]]#4, %[[B0]]
// PLAIN-DAG: %[[V1:.*]] = arith.addf %[[T]]#6, %[[B1]]
// PLAIN-DAG: %[[W0:.*]] = arith.addf %[[T]]#5, %[[B0]]
// PLAIN-DAG: %[[W1:.*]] = arith.addf %[[T]]#7, %[[B1]]
// PLAIN: scf.if
// PLAIN: %[[BOTH:.*]] = qtile.prim "cvt.bf16x2"(%[[V1]], %[[V0]])
// PLAIN: llvm.store %[[BOTH]], %{{.*}} {alignment = 4 : i64} : i32, !llvm.ptr<1>
// PLAIN: scf.if
// PLAIN: %[[BOTH:.*]] = qtile.prim "cvt.bf16x2"(%[[W1]], %[[W0]])
// PLAIN: llvm.store %[[BOTH]], %{{.*}} {alignment = 4 : i64} : i32, !llvm.ptr<1>
// PLAIN-NOT: llvm.store
// Nothing that LLVM might sink out of the widths' branches.
// PLAIN: "llvm.nvvm.bar.warp.sync"(%c-1_i32)

//--- pair.mlir
qtile.program @p params ["pointer 4 0", "stride 4 0", "scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "interleaved", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64, %s: f32):
  %expert, %row0, %rows, %tile, %c0, %c1, %c2, %c3 = "test.tile"() : () -> (i32, i32, i32, i32, f32, f32, f32, f32)
  qtile.epilogue 8, %expert, %row0, %rows, %tile of %c0, %c1, %c2, %c3 : f32, f32, f32, f32 {
    qtile.write to 4 combine false index 0 columns 160 reads ["contraction column 2 0", "contraction column 2 1", "scalar 5"] attributes {dtype = "f16"} {
    ^bb0(%gate: f32, %up: f32, %scale: f32):
      %one = arith.constant 1.0 : f32
      %n = arith.negf %gate : f32
      %e = math.exp %n : f32
      %d = arith.addf %e, %one : f32
      %q = arith.divf %one, %d : f32
      %g = arith.mulf %gate, %q : f32
      %h = arith.mulf %g, %up : f32
      %r = arith.divf %h, %scale : f32
      qtile.value %r
    }
  }
}
// PAIR: ^bb0(%{{[a-z0-9]*}}: !llvm.ptr<1>, %{{[a-z0-9]*}}: i64, %[[SCALE:[a-z0-9]*]]: f32):
// PAIR: %[[T:.*]]:8 = "test.tile"()
// 64 columns to a tile: the gate is accumulator row g, the up row g + 8.
// PAIR: arith.muli %[[T]]#3, %c64_i32
// exp(x) = 2^(x log2 e), 1 / x by rcp; a division by anything else stays one.
// PAIR: %[[NEG:.*]] = arith.negf %[[T]]#4
// PAIR: %[[X:.*]] = arith.mulf %[[NEG]], %{{.*}}
// PAIR: %[[EXP:.*]] = qtile.prim "ex2"(%[[X]])
// PAIR: %[[D:.*]] = arith.addf %[[EXP]],
// PAIR: %[[Q:.*]] = qtile.prim "rcp"(%[[D]])
// PAIR: %[[G:.*]] = arith.mulf %[[T]]#4, %[[Q]]
// PAIR: %[[H:.*]] = arith.mulf %[[G]], %[[T]]#6
// PAIR: arith.divf %[[H]], %[[SCALE]]
// PAIR-NOT: math.exp
// One column of a thread: 2 bytes.
// PAIR: qtile.prim "cvt.f16x2"
// PAIR: arith.trunci %{{.*}} : i32 to i16
// PAIR: llvm.store %{{.*}} {alignment = 2 : i64} : i16, !llvm.ptr<1>
// INTERLEAVED: llvm.store %{{.*}} {alignment = 2 : i64} : i16, !llvm.ptr<1>
// INTERLEAVED-NOT: llvm.store

//--- combine.mlir
qtile.program @p params ["partial -1 0", "row_weight -1 0", "low_rank -1 0", "pointer 6 0", "stride 6 0", "stride 6 1", "stride 6 2", "token -1 0", "pointer 7 0", "stride 7 0", "stride 7 1"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%partial: !llvm.ptr<1>, %weight: !llvm.ptr<1>, %xa: !llvm.ptr<1>, %B: !llvm.ptr<1>, %B0: i64, %B1: i64, %B2: i64, %token: !llvm.ptr<1>, %t: !llvm.ptr<1>, %t0: i64, %t1: i64):
  %expert, %row0, %rows, %tile, %c0, %c1, %c2, %c3 = "test.tile"() : () -> (i32, i32, i32, i32, f32, f32, f32, f32)
  qtile.epilogue 8, %expert, %row0, %rows, %tile of %c0, %c1, %c2, %c3 : f32, f32, f32, f32 {
    qtile.write to 4 combine true index 0 columns 320 reads ["contraction column 1 0", "low_rank 0 of 6 bf16 rank 16 by expert column 1 0", "tensor 7 f32 by token column 1 0", "weight"] attributes {dtype = "f32"} {
    ^bb0(%c: f32, %l: f32, %r: f32, %w: f32):
      %s = arith.addf %c, %l : f32
      %u = arith.addf %s, %r : f32
      %v = arith.mulf %u, %w : f32
      qtile.value %v
    }
  }
}
// COMBINE: ^bb0(%[[PARTIAL:[a-z0-9]*]]: !llvm.ptr<1>, %[[WEIGHT:[a-z0-9]*]]: !llvm.ptr<1>, %[[XA:[a-z0-9]*]]: !llvm.ptr<1>, %[[B:[a-z0-9]*]]: !llvm.ptr<1>,
// A combine writes fp32 lines of its workspace, two columns at a time.
// COMBINE: %[[TO:.*]] = llvm.getelementptr %[[PARTIAL]][
// A low-rank product: 16 terms in fp32, in order.
// COMBINE-DAG: llvm.getelementptr %[[XA]][
// COMBINE-DAG: llvm.getelementptr %[[B]][
// COMBINE: %[[LOW:.*]] = scf.for %{{.*}} = %c0_i64 to %c16_i64 step %c1_i64 iter_args(%[[SUM:.*]] = %{{.*}}) -> (f32)
// COMBINE: %[[PRODUCT:.*]] = arith.mulf
// COMBINE-NEXT: arith.addf %[[SUM]], %[[PRODUCT]]
// COMBINE: arith.addf %{{.*}}, %[[LOW]]
// COMBINE: llvm.store %{{.*}}, %[[TO]] {alignment = 8 : i64} : vector<2xf32>, !llvm.ptr<1>
// COMBINE: llvm.store %{{.*}} {alignment = 8 : i64} : vector<2xf32>, !llvm.ptr<1>
// COMBINE-NOT: llvm.store
