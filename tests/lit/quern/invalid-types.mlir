// One test per message of the types.
// RUN: quern-opt %s -split-input-file -verify-diagnostics

// expected-error@+1 {{'N-1' is not a dimension; expected forms such as N, N/2, 2*N, 3*N/2, 64 [dim.form]}}
!t = !quern.tensor<["N-1"], "act">

// -----

// expected-error@+1 {{'2*3' is not a dimension; expected forms such as N, N/2, 2*N, 3*N/2, 64 [dim.form]}}
!t = !quern.tensor<["2*3"], "act">

// -----

// expected-error@+1 {{'N/0' is not a dimension; expected forms such as N, N/2, 2*N, 3*N/2, 64 [dim.form]}}
!t = !quern.rows<"N/0">

// -----

// expected-error@+1 {{'99999999999999999999' is not a dimension; expected forms such as N, N/2, 2*N, 3*N/2, 64 [dim.form]}}
!t = !quern.rows<"99999999999999999999">

// -----

// expected-error@+1 {{'' is not a dimension; expected forms such as N, N/2, 2*N, 3*N/2, 64 [dim.form]}}
!t = !quern.rows<"">

// -----

// expected-error@+1 {{dimension '0' is not positive [dim.form]}}
!t = !quern.rows<"0">

// -----

// expected-error@+1 {{dimension '-2*N' is not positive [dim.form]}}
!t = !quern.packed<@nf4, ["-2*N", "K"]>

// -----

// expected-error@+1 {{dimension '2147483649' is too large; expected at most 2^31, and factors up to 2^20 [dim.form]}}
!t = !quern.rows<"2147483649">

// -----

// expected-error@+1 {{dimension 'N/1048577' is too large; expected at most 2^31, and factors up to 2^20 [dim.form]}}
!t = !quern.rows<"N/1048577">

// -----

// expected-error@+1 {{dimension '1048577*N' is too large; expected at most 2^31, and factors up to 2^20 [dim.form]}}
!t = !quern.rows<"1048577*N">

// -----

// expected-error@+1 {{a routing has dimensions ["T", "T"]; expected two different plain symbols, neither of them R [routing.dims]}}
!t = !quern.routing<["T", "T"]>

// -----

// expected-error@+1 {{a routing has dimensions ["T", "8"]; expected two different plain symbols, neither of them R [routing.dims]}}
!t = !quern.routing<["T", "8"]>

// -----

// expected-error@+1 {{a routing has dimensions ["R", "E"]; expected two different plain symbols, neither of them R [routing.dims]}}
!t = !quern.routing<["R", "E"]>

// -----

// expected-error@+1 {{expected a dimension as text, got 7 : i64 [dim.form]}}
!t = !quern.tensor<[7], "act">

// -----

// expected-error@+1 {{element type 'f64' is unknown; expected act, float, f32, bf16 or f16 [type.unknown]}}
!t = !quern.tensor<["N"], "f64">

// -----

// expected-error@+1 {{a tensor has 0 dimensions; expected 1 to 3 [type.rank]}}
!t = !quern.tensor<[], "act">

// -----

// expected-error@+1 {{a tensor has 4 dimensions; expected 1 to 3 [type.rank]}}
!t = !quern.tensor<["A", "B", "C", "D"], "act">

// -----

// expected-error@+1 {{a packed operand has 1 dimensions; expected 2 to 3 [type.packed]}}
!t = !quern.packed<@nf4, ["N"]>

// -----

// expected-error@+1 {{a routing has 1 dimensions; expected 2 [routing.dims]}}
!t = !quern.routing<["T"]>
