// expand-math: vector exp, tanh and erf become polynomials; exp overflows and underflows as libm's does. Scalar ops stay.
// RUN: quern-opt --expand-math --split-input-file %s | FileCheck %s

// CHECK-LABEL: func.func @exp
// CHECK-SAME: (%[[X:.*]]: vector<8xf32>)
// CHECK-DAG: %[[INF:.*]] = arith.constant dense<0x7F800000> : vector<8xf32>
// CHECK-DAG: %[[ZERO:.*]] = arith.constant dense<0.000000e+00> : vector<8xf32>
// CHECK-DAG: %[[LOW:.*]] = arith.constant dense<-87.33654{{.*}}> : vector<8xf32>
// CHECK-DAG: %[[HIGH:.*]] = arith.constant dense<88.72283{{.*}}> : vector<8xf32>
// CHECK-NOT: math.exp %
// CHECK-DAG: %[[UNDER:.*]] = arith.cmpf olt, %[[X]], %[[LOW]] : vector<8xf32>
// CHECK-DAG: %[[OVER:.*]] = arith.cmpf ogt, %[[X]], %[[HIGH]] : vector<8xf32>
// CHECK: %[[INNER:.*]] = arith.select %[[UNDER]], %[[ZERO]], %{{.*}}
// CHECK: %[[OUTER:.*]] = arith.select %[[OVER]], %[[INF]], %[[INNER]]
// CHECK: return %[[OUTER]]
func.func @exp(%x: vector<8xf32>) -> vector<8xf32> {
  %0 = math.exp %x : vector<8xf32>
  return %0 : vector<8xf32>
}

// -----

// Each use sees the bounded value.
// CHECK-LABEL: func.func @sigmoid
// CHECK-NOT: math.exp %
// CHECK: arith.cmpf ogt
// CHECK-NEXT: arith.select
// CHECK-NEXT: %[[E:.*]] = arith.select
// CHECK-NEXT: %[[SUM:.*]] = arith.addf %[[E]], %{{.*}}
// CHECK-NEXT: arith.divf %[[E]], %[[SUM]]
func.func @sigmoid(%x: vector<16xf32>) -> vector<16xf32> {
  %one = arith.constant dense<1.0> : vector<16xf32>
  %e = math.exp %x : vector<16xf32>
  %sum = arith.addf %e, %one : vector<16xf32>
  %q = arith.divf %e, %sum : vector<16xf32>
  return %q : vector<16xf32>
}

// -----

// CHECK-LABEL: func.func @tanh_erf
// CHECK-NOT: math.tanh
// CHECK-NOT: math.erf
// CHECK: math.fma {{.*}} : vector<16xf32>
// CHECK-NOT: math.tanh
// CHECK-NOT: math.erf
// CHECK: return
func.func @tanh_erf(%x: vector<16xf32>) -> vector<16xf32> {
  %0 = math.tanh %x : vector<16xf32>
  %1 = math.erf %0 : vector<16xf32>
  return %1 : vector<16xf32>
}
