// Ops that need a program's facts, outside of one: a user error of the pass, with the place.
// RUN: not quern-opt --allow-unregistered-dialect --expand-drain %s 2>&1 | FileCheck %s

%done = "test.done"() : () -> i32
// CHECK: outside.mlir:[[#@LINE+1]]:1: error: stands outside of a qtile.program
qtile.drain %done
