// One test per message about the reads of quern.store and quern.combine.
// RUN: quern-opt %s -split-input-file -verify-diagnostics

quern.kernel @k params ["x", "b", "g", "w", "route"] outputs ["h", "y", "z"] {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %b: !quern.tensor<["E", "N"], "float">, %g: !quern.tensor<["N"], "f32">,
     %w: !quern.tensor<["E", "N", "K"], "act">, %route: !quern.routing<["T", "E"]>, %h: !quern.tensor<["R", "N/2"], "act">,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "bf16">):
  // expected-error@+1 {{'quern.store' op read 0 is the output 'y'; outputs cannot be read [access.output]}}
  quern.store %h columns "N/2" reads(%y) rows [token] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.tensor<["T", "N"], "f32">) {
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
  // expected-error@+1 {{'quern.store' op read 0 has no column but mul 1; expected 0}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["-"]
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
  // expected-error@+1 {{'quern.store' op read 0 reads '!quern.tensor<["N"], "f32">' by weight; a routing, and only a routing, is read by weight [row.field]}}
  quern.store %h columns "N/2" reads(%g) rows [weight] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.tensor<["N"], "f32">) {
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
  // expected-error@+1 {{'quern.store' op read 0 reads '!quern.routing<["T", "E"]>' by token; a routing, and only a routing, is read by weight [row.field]}}
  quern.store %h columns "N/2" reads(%route) rows [token] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.routing<["T", "E"]>) {
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
  // expected-error@+1 {{'quern.store' op read 0 is a row weight and has no column; expected offset '-' [row.field]}}
  quern.store %h columns "N/2" reads(%route) rows [weight] muls [0] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.routing<["T", "E"]>) {
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
  // expected-error@+1 {{'quern.store' op read 0 is a contraction; expected row access 'row' and a column [access.row]}}
  quern.store %h columns "N/2" reads(%c) rows [token] muls [1] offsets ["0"]
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
  // expected-error@+1 {{'quern.store' op read 0 is a contraction; expected row access 'row' and a column [access.row]}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [0] offsets ["-"]
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
  // expected-error@+1 {{'quern.store' op read 1 picks 1 of the tensor's 2 dimensions; expected all [access.rank]}}
  quern.store %h columns "N/2" reads(%c, %b) rows [row, expert] muls [1, 0] offsets ["0", "-"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">, !quern.tensor<["E", "N"], "float">) {
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
  // expected-error@+1 {{'quern.store' op read 0 picks 2 of the tensor's 1 dimensions; expected all [access.rank]}}
  quern.store %h columns "N/2" reads(%g) rows [row] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.tensor<["N"], "f32">) {
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
  // expected-error@+1 {{'quern.store' op read 0 has 'E' lines, but by token it needs 'T' [access.shape]}}
  quern.store %h columns "N/2" reads(%b) rows [token] muls [1] offsets ["0"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.tensor<["E", "N"], "float">) {
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
  // expected-error@+1 {{'quern.store' op read 0 has mul 1048577; expected at most 2^20 [index.form]}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1048577] offsets ["0"]
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
  // expected-error@+1 {{'quern.store' op read 0: offset '2147483649' is too large; expected at most 2^31, and factors up to 2^20 [index.form]}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["2147483649"]
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
  // expected-error@+1 {{'quern.store' op read 0: column 3*j + N/3 leaves the extent 'N' for j in [0, N/2) [access.range]}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [3] offsets ["N/3"]
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
  // expected-error@+1 {{'quern.store' op read 0: offset 'N/' is not a dimension [index.form]}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["N/"]
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
  // expected-error@+1 {{'quern.store' op read 0: column 2*j + 2 leaves the extent 'N' for j in [0, N/2) [access.range]}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [2] offsets ["2"]
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
  // expected-error@+1 {{'quern.store' op read 0: column 1*j + N leaves the extent 'N' for j in [0, N/2) [access.range]}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["N"]
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
  // expected-error@+1 {{'quern.combine' op read 0: column 3*j + 1 leaves the extent 'N' for j in [0, N) [access.range]}}
  quern.combine %y columns "N" reads(%c) rows [row] muls [3] offsets ["1"]
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
  // expected-error@+1 {{'quern.store' op read 0: column 1*j + -1 leaves the extent 'N' for j in [0, N/2) [access.range]}}
  quern.store %h columns "N/2" reads(%c) rows [row] muls [1] offsets ["-1"]
      : !quern.tensor<["R", "N/2"], "act">, (!quern.rows<"N">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}
