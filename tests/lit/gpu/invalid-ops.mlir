// One test per message of the qtile ops: nonsense is refused where it stands, not met by a pass.
// RUN: quern-opt %s -split-input-file -verify-diagnostics

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  // expected-error@+1 {{names no GPU primitive: 'mbarrier.rest'}}
  qtile.prim "mbarrier.rest"() : () -> ()
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'mbarrier.init' has the signature v(ii), expected v(si)}}
  qtile.prim "mbarrier.init"(%i, %i) : (i32, i32) -> ()
}

// -----

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  // expected-error@+1 {{'wgmma.commit' has the signature i(), expected v()}}
  %x = qtile.prim "wgmma.commit"() : () -> i32
}

// -----

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  // expected-error@+1 {{names no GPU primitive: 'wgmma.bf16.n12'}}
  qtile.prim "wgmma.bf16.n12"() : () -> ()
}

// -----

qtile.program @p params ["rows -1 0", "scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %s: f32):
  // expected-error@+1 {{'wgmma.bf16.n8' has the signature ff(ffiiii), expected ffff(ffffiiiil)}}
  %x:2 = qtile.prim "wgmma.bf16.n8"(%s, %s, %i, %i, %i, %i) : (f32, f32, i32, i32, i32, i32) -> (f32, f32)
}

// -----

qtile.program @p params ["scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%s: f32):
  // expected-error@+1 {{'wgmma.wait.0.n2' has the signature fff(fff), expected ff(ff)}}
  %x:3 = qtile.prim "wgmma.wait.0.n2"(%s, %s, %s) : (f32, f32, f32) -> (f32, f32, f32)
}

// -----

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  // expected-error@+1 {{names no GPU primitive: 'setmaxnreg.inc.233'}}
  qtile.prim "setmaxnreg.inc.233"() : () -> ()
}

// -----

qtile.program @p params ["offsets -1 0", "experts -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%o: !llvm.ptr<1>, %n: i32):
  // expected-error@+1 {{'qtile.tiles' op needs six i32 block arguments}}
  %d = qtile.tiles %o experts %n : <1> {
  ^bb0(%e: i32):
  }
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.consume' op has no widths}}
  qtile.consume %i, %i, %i, %i, %i, %i widths [] {
  }
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.consume' op has width 12, expected a multiple of 8 in 8..256}}
  qtile.consume %i, %i, %i, %i, %i, %i widths [8, 12] {
  }
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.multiply' op has width 264, expected a multiple of 8 in 8..256}}
  %a:4 = qtile.multiply 264 after %i : f32, f32, f32, f32
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.multiply' op has 2 accumulators, expected 4: half of its width}}
  %a:2 = qtile.multiply 8 after %i : f32, f32
}

// -----

qtile.program @p params ["rows -1 0", "scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %s: f32):
  // expected-error@+1 {{'qtile.epilogue' op has 1 accumulators, expected 4: half of its width}}
  qtile.epilogue 8, %i, %i, %i, %i of %s : f32 {
  }
}

// -----

qtile.program @p params ["rows -1 0", "scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %s: f32):
  // expected-error@+1 {{'qtile.reduce' op has 2 accumulators, expected 4: half of its width}}
  qtile.reduce 8 after %i of %s, %s : f32, f32 {
  ^bb0(%0: f32, %1: f32):
  }
}

// -----

qtile.program @p params ["rows -1 0", "scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %s: f32):
  // expected-error@+1 {{'qtile.reduce' op has 3 block arguments, expected 4}}
  qtile.reduce 8 after %i of %s, %s, %s, %s : f32, f32, f32, f32 {
  ^bb0(%0: f32, %1: f32, %2: f32):
  }
}

// -----

qtile.program @p params ["rows -1 0", "scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %s: f32):
  // expected-error@+1 {{'qtile.reduce' op needs f32 block arguments: the sums}}
  qtile.reduce 8 after %i of %s, %s, %s, %s : f32, f32, f32, f32 {
  ^bb0(%0: f32, %1: f32, %2: f32, %3: i32):
  }
}

// -----

qtile.program @p params ["rows -1 0", "scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %s: f32):
  // expected-error@+1 {{'qtile.tables' op has 7 planes, expected 8}}
  %t:7 = qtile.tables %s : i32, i32, i32, i32, i32, i32, i32
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.arrange' op needs both of upper and selector, or none}}
  %a = "qtile.arrange"(%i, %i) <{operandSegmentSizes = array<i32: 1, 1, 0>}> : (i32, i32) -> i32
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.decode' op has 7 planes of row g, expected 8}}
  %d:4 = qtile.decode %i order %i planes (%i, %i, %i, %i, %i, %i, %i) (%i, %i, %i, %i, %i, %i, %i, %i)
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.decode' op has 1 planes of row g + 8, expected 8}}
  %d:4 = qtile.decode %i order %i planes (%i, %i, %i, %i, %i, %i, %i, %i) (%i)
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op needs the dtype of its output: f32, bf16 or f16}}
  qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0"] {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op needs the dtype of its output}}
  qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0"] attributes {dtype = "i8"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op has 1 block arguments, expected 2}}
  qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0", "weight"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op has a block argument of type 'i32', expected f32}}
  qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0"] attributes {dtype = "bf16"} {
  ^bb0(%c: i32):
    %v = arith.constant 0.0 : f32
    qtile.value %v
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op cannot read "contraction mul 1"}}
  qtile.write to 4 combine false index 0 columns 320 reads ["contraction mul 1"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op cannot read "tensor 3 bf16 by rows column 1 0"}}
  qtile.write to 4 combine false index 0 columns 320 reads ["tensor 3 bf16 by rows column 1 0"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op must end with qtile.value}}
  qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
  }
}

// -----

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  // expected-error@+1 {{'qtile.write' op needs the program's parameter "pointer 4 0"}}
  qtile.write to 4 combine false index 0 columns 320 reads ["contraction column 1 0"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op needs the program's parameter "row_weight -1 0"}}
  qtile.write to 4 combine false index 0 columns 320 reads ["weight"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op needs the program's parameter "scalar 5 0"}}
  qtile.write to 4 combine false index 0 columns 320 reads ["scalar 5"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op needs the program's parameter "pointer 3 0"}}
  qtile.write to 4 combine false index 0 columns 320 reads ["tensor 3 bf16 by expert column 1 0"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0", "pointer 3 0", "stride 3 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64, %p: !llvm.ptr<1>, %p0: i64):
  // expected-error@+1 {{'qtile.write' op needs the program's parameter "stride 3 1"}}
  qtile.write to 4 combine false index 0 columns 320 reads ["tensor 3 bf16 by expert column 1 0"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["pointer 4 0", "stride 4 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%y: !llvm.ptr<1>, %y0: i64):
  // expected-error@+1 {{'qtile.write' op needs the program's parameter "low_rank -1 0"}}
  qtile.write to 4 combine false index 0 columns 320 reads ["low_rank 0 of 6 bf16 rank 16 column 1 0"] attributes {dtype = "bf16"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
  // expected-error@+1 {{'qtile.write' op needs the program's parameter "partial -1 1"}}
  qtile.write to 4 combine true index 1 columns 320 reads ["contraction column 1 0"] attributes {dtype = "f32"} {
  ^bb0(%c: f32):
    qtile.value %c
  }
}

// -----

qtile.program @p params ["scalar 5 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%s: f32):
  // expected-error@+1 {{'qtile.value' op expects parent op 'qtile.write'}}
  qtile.value %s
}

// -----

qtile.program @p params ["offsets -1 0", "experts -1 0", "rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%o: !llvm.ptr<1>, %n: i32, %r: i32):
  // expected-error@+1 {{'qtile.tail' op has 0 line sizes, expected 1}}
  qtile.tail %o experts %n rows %r operands [4] columns [] : <1>
}

// -----

qtile.program @p params ["offsets -1 0", "experts -1 0", "rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%o: !llvm.ptr<1>, %n: i32, %r: i32):
  // expected-error@+1 {{'qtile.tail' op has lines of 0 bytes}}
  qtile.tail %o experts %n rows %r operands [4] columns [0] : <1>
}

// -----

qtile.program @p params ["offsets -1 0", "experts -1 0", "rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%o: !llvm.ptr<1>, %n: i32, %r: i32):
  // expected-error@+1 {{'qtile.tail' op needs the program's parameter "pointer 4 0"}}
  qtile.tail %o experts %n rows %r operands [4] columns [64] : <1>
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.produce' op needs the program's parameter "codes 2 0"}}
  qtile.produce %i, %i, %i, %i, %i, %i
}

// -----

qtile.program @p params ["rows -1 0", "codes 2 0", "scales 2 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %c: !llvm.ptr<1>, %s: !llvm.ptr<1>):
  // expected-error@+1 {{'qtile.produce' op needs the program's parameter "map 0 0"}}
  qtile.produce %i, %i, %i, %i, %i, %i
}

// -----

qtile.program @p params ["rows -1 0", "codes 2 0", "scales 2 0"] schedule "bn=32 gather=fused" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %c: !llvm.ptr<1>, %s: !llvm.ptr<1>):
  // expected-error@+1 {{'qtile.produce' op needs the program's parameter "pointer 0 0"}}
  qtile.produce %i, %i, %i, %i, %i, %i
}

// -----

qtile.program @p params ["rows -1 0", "codes 2 0", "scales 2 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = true} {
^bb0(%i: i32, %c: !llvm.ptr<1>, %s: !llvm.ptr<1>):
  // expected-error@+1 {{'qtile.produce' op needs the program's parameter "zeros 2 0"}}
  qtile.produce %i, %i, %i, %i, %i, %i
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3 decode=ahead" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.produce' op needs the program's parameter "decoded -1 0"}}
  qtile.produce %i, %i, %i, %i, %i, %i
}

// -----

qtile.program @p params ["rows -1 0"] schedule "bn=32 stages=3 decode=ahead" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
  // expected-error@+1 {{'qtile.fragments' op reads slice 4, a step of 64 columns has slices 0 to 3}}
  %a:4 = qtile.fragments %i slice 4
}
