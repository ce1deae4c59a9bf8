// One test per message about quern.store and quern.combine, their reads apart, and their regions.
// RUN: quern-opt %s -split-input-file -verify-diagnostics

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op has 1 reads, 2 rows, 1 muls and 1 offsets; expected one of each per read}}
  quern.store %h columns "N/2" reads(%c) rows [row, row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op has 1 reads, 1 rows, 0 muls and 1 offsets; expected one of each per read}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op has 1 reads, 1 rows, 1 muls and 2 offsets; expected one of each per read}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["0", "0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op region must have one f32 argument for each of the 1 reads}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32, %1: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op region must have one f32 argument for each of the 1 reads}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%1: i32):
    %0 = arith.constant 1.0 : f32
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op writes to a value that is not an output of the kernel [assign.target]}}
  quern.store %x columns "N/2" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["T", "K"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op columns 'N*2' is not a dimension [dim.form]}}
  quern.store %h columns "N*2" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b"] outputs ["y"] attributes {rows = "T"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.combine' op adds rows by token, but the kernel has no routing [row.routing]}}
  quern.combine %y columns "N" reads(%x) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["T", "N"], "f32">, (!quern.tensor<["T", "K"], "act">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.combine' op adds into an output of bf16; expected f32 [type.combine]}}
  quern.combine %z columns "N" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["T", "N"], "bf16">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op output has 'T' lines, but by row it needs 'R' [assign.row]}}
  quern.store %y columns "N" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["T", "N"], "f32">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op the output's last dimension is 'N/2', but columns is 'N' [assign.column]}}
  quern.store %h columns "N" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b"] outputs ["y"] attributes {rows = "T"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.store' op reads by expert, but the kernel has no routing [row.routing]}}
  quern.store %y columns "N" reads(%b) rows [expert] muls [1] offsets ["0"]
      : !quern.tensor<["T", "N"], "f32">, (!quern.tensor<["E", "N"], "float">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  // expected-error@+1 {{'quern.store' op region must end with quern.yield}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    llvm.unreachable
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    // expected-error@+1 {{'arith.remf' op is not allowed in the region of quern.store}}
    %1 = arith.remf %0, %0 : f32
    quern.yield %1 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  quern.combine %y columns "N" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["T", "N"], "f32">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    // expected-error@+1 {{'math.sqrt' op is not allowed in the region of quern.combine}}
    %1 = math.sqrt %0 : f32
    quern.yield %1 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    // expected-error@+1 {{'arith.constant' op has a result of type 'f64' in the region of quern.store; expected f32 or i1}}
    %1 = arith.constant 1.0 : f64
    quern.yield %0 : f32
  }
  quern.return
}

// -----

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "act"> -> !quern.rows<"N">
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    %1 = arith.constant true
    // expected-error@+1 {{'quern.yield' op operand #0 must be 32-bit float, but got 'i1'}}
    "quern.yield"(%1) : (i1) -> ()
  }
  quern.return
}
