// One test per message about a qtile.program: its parameters, schedule and facts.
// RUN: quern-opt %s -split-input-file -verify-diagnostics

// expected-error@+1 {{'qtile.program' op has 1 arguments and 2 entries in params}}
qtile.program @p params ["rows -1 0", "experts -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
}

// -----

// expected-error@+1 {{'qtile.program' op cannot read parameter "row -1 0", expected KIND OPERAND INDEX}}
qtile.program @p params ["row -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
}

// -----

// expected-error@+1 {{'qtile.program' op cannot read parameter "rows", expected KIND OPERAND INDEX}}
qtile.program @p params ["rows"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
}

// -----

// expected-error@+1 {{'qtile.program' op has parameter "rows -1 0" twice}}
qtile.program @p params ["rows -1 0", "rows -1 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32, %j: i32):
}

// -----

// expected-error@+1 {{'qtile.program' op has parameter "map 0 0" of type 'i32', expected '!llvm.ptr'}}
qtile.program @p params ["map 0 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: i32):
}

// -----

// expected-error@+1 {{'qtile.program' op has parameter "codes 2 0" of type '!llvm.ptr', expected '!llvm.ptr<1>'}}
qtile.program @p params ["codes 2 0"] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
^bb0(%i: !llvm.ptr):
}

// -----

// expected-error@+1 {{'qtile.program' op has the schedule "bn=33": bn: must be 8, 16 or a multiple of 32 up to 256}}
qtile.program @p params [] schedule "bn=33" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op has the schedule "cpu isa=avx2": 'cpu' is not sm_90a, the target of this schedule}}
qtile.program @p params [] schedule "cpu isa=avx2" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op cannot read its fact 'table': it is missing or of another form than array<f32: 0.0}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op cannot read its fact 'table'}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op cannot read its fact 'pairing': it is missing or of another form than "none"}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "crossed", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op cannot read its fact 'scale'}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f16", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op cannot read its fact 'act'}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "i8", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op cannot read its fact 'zero'}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = 0 : i64} {
}

// -----

// expected-error@+1 {{'qtile.program' op has an unknown fact 'colour'}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false, colour = "red"} {
}

// -----

// expected-error@+1 {{'qtile.program' op has n = 324, expected a multiple of 8}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 324 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op has n = 0, expected a multiple of 8}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 0 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op has k = 180, expected a multiple of 32}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 180 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op has blocks of 0 codes, expected a multiple of 32}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "bf16", block = 0 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op has f32 activations, expected bf16 or f16}}
qtile.program @p params [] schedule "bn=32 stages=3" facts {act = "f32", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "none", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}

// -----

// expected-error@+1 {{'qtile.program' op has halved pairs in tiles of bm=64, expected 128}}
qtile.program @p params [] schedule "bm=64 bn=32" facts {act = "bf16", block = 64 : i64, by_expert = true, by_token = true, high_first = true, k = 192 : i64, lhs = 0 : i64, n = 320 : i64, packed = 2 : i64, pairing = "halved", routed = true, scale = "f32", state = "bf16", table = array<f32: -8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.>, zero = false} {
}
