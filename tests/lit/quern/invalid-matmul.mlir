// One test per message of quern.grouped_matmul.
// RUN: quern-opt %s -split-input-file -verify-diagnostics

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{unknown row access 'tokens'; expected none, row, token, expert or weight}}
  %c = quern.grouped_matmul %x by tokens, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op 'N+1' is not a dimension [dim.form]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N+1" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op '' is not a dimension [dim.form]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w"] outputs ["y"] attributes {rows = "M"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["N", "K"], "float">, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op reads by token, but the kernel has no routing [row.routing]}}
  %c = quern.grouped_matmul %x by token, %w by none columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w"] outputs ["y"] attributes {rows = "M"} {
^bb0(%x: !quern.tensor<["M", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op reads by expert, but the kernel has no routing [row.routing]}}
  %c = quern.grouped_matmul %x by row, %w by expert columns "N" reduce "K" : !quern.tensor<["M", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op lhs is the output 'y'; outputs cannot be read [access.output]}}
  %c = quern.grouped_matmul %y by token, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "N"], "f32">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op rhs is the output 'y'; outputs cannot be read [access.output]}}
  %c = quern.grouped_matmul %x by token, %y by none columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["T", "N"], "f32"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "P", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  %p = quern.grouped_matmul %x by token, %w by expert columns "P" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "P", "K"], "float"> -> !quern.rows<"P">
  // expected-error@+1 {{'quern.grouped_matmul' op lhs is a contraction and is read by token; expected row [sum.rows]}}
  %c = quern.grouped_matmul %p by token, %w by expert columns "P" reduce "P" : !quern.rows<"P">, !quern.tensor<["E", "P", "K"], "float"> -> !quern.rows<"P">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "P", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  %p = quern.grouped_matmul %x by token, %w by expert columns "P" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "P", "K"], "float"> -> !quern.rows<"P">
  // expected-error@+1 {{'quern.grouped_matmul' op the lhs's last dimension is 'P', but reduce is 'K' [sum.shape]}}
  %c = quern.grouped_matmul %p by row, %w by expert columns "P" reduce "K" : !quern.rows<"P">, !quern.tensor<["E", "P", "K"], "float"> -> !quern.rows<"P">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op lhs is read by expert; expected row or token [sum.rows]}}
  %c = quern.grouped_matmul %x by expert, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op lhs is read by none; expected row or token [sum.rows]}}
  %c = quern.grouped_matmul %x by none, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "N", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op lhs has 3 dimensions; expected 2 [access.rank]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "N", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op lhs has 'T' lines, but by row it needs 'R' [access.shape]}}
  %c = quern.grouped_matmul %x by row, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["R", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op lhs has 'R' lines, but by token it needs 'T' [access.shape]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K" : !quern.tensor<["R", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w"] outputs ["y"] attributes {rows = "M"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["N", "K"], "float">, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op lhs has 'T' lines, but by row it needs 'M' [access.shape]}}
  %c = quern.grouped_matmul %x by row, %w by none columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op the lhs's last dimension is 'K', but reduce is 'K/2' [sum.shape]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K/2" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op rhs is read by row; expected none or expert [sum.columns]}}
  %c = quern.grouped_matmul %x by token, %w by row columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op rhs has 2 dimensions; by expert it needs 3 [access.rank]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op rhs has 3 dimensions; by none it needs 2 [access.rank]}}
  %c = quern.grouped_matmul %x by token, %w by none columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["F", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op rhs has 'F' lines, but by expert it needs 'E' [access.shape]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["F", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "P"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op the rhs's last dimension is 'P', but reduce is 'K' [sum.shape]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "P"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op the rhs's dimension before the last is 'N', but columns is '2*N' [sum.shape]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "2*N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"N">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["E", "N", "K"], "float">, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op the result's columns is 'M', but columns is 'N' [sum.shape]}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, !quern.tensor<["E", "N", "K"], "float"> -> !quern.rows<"M">
  quern.return
}

// -----

quern.kernel @k params ["x", "w", "route"] outputs ["y"] attributes {rows = "R"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: f32, %route: !quern.routing<["T", "E"]>, %y: !quern.tensor<["T", "N"], "f32">):
  // expected-error@+1 {{'quern.grouped_matmul' op operand #1 must be 4-bit codes and their scales, [N, K] or [E, N, K] or a tensor in memory, 1 to 3 dimensions, but got 'f32'}}
  %c = quern.grouped_matmul %x by token, %w by expert columns "N" reduce "K" : !quern.tensor<["T", "K"], "act">, f32 -> !quern.rows<"N">
  quern.return
}
