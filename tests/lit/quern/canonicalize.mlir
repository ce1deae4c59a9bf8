// Upstream passes keep the form: constants stay inside the region of their write, writes stay, unused contractions go.
// RUN: quern-opt %s --canonicalize --cse | FileCheck %s

// CHECK-LABEL: quern.kernel @k
// CHECK-NEXT: ^bb0(%[[X:.*]]: !quern.tensor<["T", "K"], "act">, %[[W:.*]]: !quern.tensor<["N", "K"], "act">, %{{.*}}: !quern.tensor<["N", "N"], "act">, %{{.*}}: f32, %[[Y:.*]]: !quern.tensor<["T", "N"], "f32">, %[[Z:.*]]: !quern.tensor<["T", "N"], "f32">):
// CHECK-NEXT: %[[C:.*]] = quern.grouped_matmul %[[X]] by row, %[[W]] by none columns "N" reduce "K"
// CHECK-NEXT: quern.store %[[Y]] columns "N" reads(%[[C]])
// CHECK-NEXT: ^bb0(%[[V:.*]]: f32):
// CHECK-NEXT: %[[THREE:.*]] = arith.constant 3.000000e+00 : f32
// CHECK-NEXT: %[[SUM:.*]] = arith.addf %[[V]], %[[THREE]] : f32
// CHECK-NEXT: quern.yield %[[SUM]] : f32
// CHECK-NEXT: }
// CHECK-NEXT: quern.store %[[Z]] columns "N" reads(%[[C]])
// CHECK-NEXT: ^bb0(%{{.*}}: f32):
// CHECK-NEXT: %[[TWO:.*]] = arith.constant 2.000000e+00 : f32
// CHECK-NEXT: quern.yield %[[TWO]] : f32
// CHECK-NEXT: }
// CHECK-NEXT: quern.return
quern.kernel @k params ["x", "w", "w2", "s"] outputs ["y", "z"] attributes {rows = "T"} {
^bb0(%x: !quern.tensor<["T", "K"], "act">, %w: !quern.tensor<["N", "K"], "act">, %w2: !quern.tensor<["N", "N"], "act">, %s: f32,
     %y: !quern.tensor<["T", "N"], "f32">, %z: !quern.tensor<["T", "N"], "f32">):
  %c = quern.grouped_matmul %x by row, %w by none columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["N", "K"], "act"> -> !quern.rows<"N">
  %same = quern.grouped_matmul %x by row, %w by none columns "N" reduce "K"
      : !quern.tensor<["T", "K"], "act">, !quern.tensor<["N", "K"], "act"> -> !quern.rows<"N">
  %unused = quern.grouped_matmul %c by row, %w2 by none columns "N" reduce "N"
      : !quern.rows<"N">, !quern.tensor<["N", "N"], "act"> -> !quern.rows<"N">
  quern.store %y columns "N" reads(%c) rows [row] muls [1] offsets ["0"] : !quern.tensor<["T", "N"], "f32">, (!quern.rows<"N">) {
  ^bb0(%v: f32):
    %one = arith.constant 1.0 : f32
    %two = arith.constant 2.0 : f32
    %three = arith.addf %one, %two : f32
    %sum = arith.addf %v, %three : f32
    quern.yield %sum : f32
  }
  quern.store %z columns "N" reads(%same) rows [row] muls [1] offsets ["0"] : !quern.tensor<["T", "N"], "f32">, (!quern.rows<"N">) {
  ^bb0(%v: f32):
    %one = arith.constant 1.0 : f32
    %two = arith.addf %one, %one : f32
    quern.yield %two : f32
  }
  quern.return
}
