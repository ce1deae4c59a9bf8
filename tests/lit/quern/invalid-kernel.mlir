// One test per message of codecs and kernels.
// RUN: quern-opt %s -split-input-file -verify-diagnostics

// expected-error@+1 {{'quern.codec' op table has 15 entries; expected 16 [codec.table]}}
quern.codec @c {table = array<f32: 0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14.>, first = "high", scale = "f32", block = 64 : i64, zero = false}

// -----

// expected-error@+1 {{'quern.codec' op first is 'middle'; expected high or low [codec.first]}}
quern.codec @c {table = array<f32: 0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.>, first = "middle", scale = "f32", block = 64 : i64, zero = false}

// -----

// expected-error@+1 {{'quern.codec' op scale is 'f16'; expected f32, bf16 or e8m0 [codec.scale]}}
quern.codec @c {table = array<f32: 0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.>, first = "high", scale = "f16", block = 64 : i64, zero = false}

// -----

// expected-error@+1 {{'quern.codec' op block is 16; expected a power of two from 32 to 4096 [codec.block]}}
quern.codec @c {table = array<f32: 0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.>, first = "high", scale = "f32", block = 16 : i64, zero = false}

// -----

// expected-error@+1 {{'quern.codec' op block is 8192; expected a power of two from 32 to 4096 [codec.block]}}
quern.codec @c {table = array<f32: 0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.>, first = "high", scale = "f32", block = 8192 : i64, zero = false}

// -----

// expected-error@+1 {{'quern.codec' op block is 96; expected a power of two from 32 to 4096 [codec.block]}}
quern.codec @c {table = array<f32: 0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.>, first = "high", scale = "f32", block = 96 : i64, zero = false}

// -----

// expected-error@+1 {{'quern.codec' op block is -64; expected a power of two from 32 to 4096 [codec.block]}}
quern.codec @c {table = array<f32: 0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.>, first = "high", scale = "f32", block = -64 : i64, zero = false}

// -----

// expected-error@+1 {{'quern.kernel' op has 2 block arguments; expected one for each of the 2 params and 1 outputs}}
quern.kernel @k params ["s", "t"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op has no output}}
quern.kernel @k params ["s"] outputs [] attributes {rows = "T"} {
^bb0(%s: f32):
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op names 's' twice [name.duplicate]}}
quern.kernel @k params ["s"] outputs ["s"] attributes {rows = "T"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op output 'y' has type '!quern.tensor<["T"], "f32">'; expected a !quern.tensor of two dimensions of act, f32, bf16 or f16 [type.output]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: f32, %y: !quern.tensor<["T"], "f32">):
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op output 'y' has type '!quern.tensor<["T", "N"], "float">'; expected a !quern.tensor of two dimensions of act, f32, bf16 or f16 [type.output]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "float">):
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op output 'y' has type 'f32'; expected a !quern.tensor of two dimensions of act, f32, bf16 or f16 [type.output]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: f32, %y: f32):
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op param 's' has type 'i32'; expected a !quern.tensor, !quern.packed, !quern.routing or f32 [type.unknown]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: i32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op has 2 routings; expected at most one [routing.one]}}
quern.kernel @k params ["a", "b"] outputs ["y"] attributes {rows = "T"} {
^bb0(%a: !quern.routing<["T", "E"]>, %b: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op rows 'T+1' is not a dimension [dim.form]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T+1"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op has a routing, so rows must be 'R', not 'T' [dim.rows]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op has rows 'R' but no routing [dim.rows]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "R"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op has no routing, so rows must name the row dimension}}
quern.kernel @k params ["s"] outputs ["y"] {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op schedule must be one line}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T", schedule = "a\nb"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op must end with quern.return}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  llvm.unreachable
}

// -----

// expected-error@+1 {{'quern.kernel' op writes output 'y' 0 times; expected once [output.unwritten]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op writes output 'y' 2 times; expected once [assign.twice]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: f32, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

// expected-error@+1 {{'quern.kernel' op param 's' names codec @nf5, which this module does not have [type.unknown]}}
quern.kernel @k params ["s"] outputs ["y"] attributes {rows = "T"} {
^bb0(%s: !quern.packed<@nf5, ["N", "K"]>, %y: !quern.tensor<["T", "N"], "f32">):
  quern.store %y columns "N" reads() rows [] muls [] offsets [] : !quern.tensor<["T", "N"], "f32">, () {
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params [] outputs ["y"] attributes {rows = "T"} {
^bb0(%y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'arith.constant' op is not allowed in a kernel; expected quern.grouped_matmul, quern.store or quern.combine}}
  %0 = arith.constant 1.0 : f32
  quern.return
}
