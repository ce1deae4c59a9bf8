// Column ranges that fit, or that only the sizes of a call can decide: the verifier accepts them. invalid-read.mlir has the others.
// RUN: quern-opt %s -verify-diagnostics | FileCheck %s

// CHECK: muls [2, 2, 1, 1, -1, 0, 3, 1]
// CHECK-SAME: offsets ["0", "1", "0", "N/2", "N/2", "5", "0", "7"]
quern.kernel @fits params ["x", "w"] outputs ["y"] attributes {rows = "T"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["N", "K"], "act">, %y: !quern.tensor<["T", "N/2"], "f32">):
  %c = quern.grouped_matmul %x by row, %w by none columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["N", "K"], "act"> -> !quern.rows<"N">
  quern.store %y columns "N/2" reads(%c, %c, %c, %c, %c, %c, %c, %c) rows [row, row, row, row, row, row, row, row]
      muls [2, 2, 1, 1, -1, 0, 3, 1] offsets ["0", "1", "0", "N/2", "N/2", "5", "0", "7"]
      : !quern.tensor<["T", "N/2"], "f32">, (!quern.rows<"N">, !quern.rows<"N">, !quern.rows<"N">, !quern.rows<"N">,
        !quern.rows<"N">, !quern.rows<"N">, !quern.rows<"N">, !quern.rows<"N">) {
  ^bb0(%0: f32, %1: f32, %2: f32, %3: f32, %4: f32, %5: f32, %6: f32, %7: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// Constant extents are decided: 2*j + 1 ends at 63 of 64. Equal dimensions may be written in different ways.
// CHECK-LABEL: quern.kernel @constant
quern.kernel @constant params ["x", "w"] outputs ["y"] attributes {rows = "T"} {
^bb0(%x: !quern.tensor<["T", "2*K/2"], "act">, %w: !quern.tensor<["64", "K"], "act">, %y: !quern.tensor<["T", "32"], "f32">):
  %c = quern.grouped_matmul %x by row, %w by none columns "64" reduce "K"
      : !quern.tensor<["T", "2*K/2"], "act">, !quern.tensor<["64", "K"], "act"> -> !quern.rows<"64">
  quern.store %y columns "32" reads(%c) rows [row] muls [2] offsets ["1"] : !quern.tensor<["T", "32"], "f32">, (!quern.rows<"64">) {
  ^bb0(%0: f32):
    quern.yield %0 : f32
  }
  quern.return
}

// Thirds and sevenths add up exactly.
// CHECK-LABEL: quern.kernel @fractions
quern.kernel @fractions params ["x", "w"] outputs ["y", "z"] attributes {rows = "T"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["N", "K"], "act">, %y: !quern.tensor<["T", "N/3"], "f32">,
     %z: !quern.tensor<["T", "N/49"], "f32">):
  %c = quern.grouped_matmul %x by row, %w by none columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["N", "K"], "act"> -> !quern.rows<"N">
  quern.store %y columns "N/3" reads(%c, %c) rows [row, row] muls [1, 3] offsets ["2*N/3", "2"]
      : !quern.tensor<["T", "N/3"], "f32">, (!quern.rows<"N">, !quern.rows<"N">) {
  ^bb0(%0: f32, %1: f32):
    quern.yield %0 : f32
  }
  quern.store %z columns "N/49" reads(%c, %c) rows [row, row] muls [42, 7] offsets ["N/7", "6*N/7"]
      : !quern.tensor<["T", "N/49"], "f32">, (!quern.rows<"N">, !quern.rows<"N">) {
  ^bb0(%0: f32, %1: f32):
    quern.yield %0 : f32
  }
  quern.return
}
