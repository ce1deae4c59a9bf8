// A kernel as contractions followed by pointwise writes: functions and local tensors are inlined, sums are
// pulled out. It maps one to one onto the ops of the `quern` dialect.
//
// Example (gpt_oss gate_up): contraction 0: N columns, lhs = param x by Token, rhs = param w by expert,
// reduced over K; one write to h, columns N/2, value = swiglu(C0[2j] + b[expert, 2j], C0[2j+1] + b[expert,
// 2j+1]).
#pragma once
#include "compiler/syntax/Ast.h"

namespace quern::syntax {

/// How a row picks its line of an operand: by row r (activations already sorted, or a dense kernel's row), by
/// r.token (gather), by r.expert, or not at all.
enum class RowAccess : uint8_t { None, Row, Token, Expert };

/// C[r, n] = sum(k) lhs[row, k] * rhs[(expert,) n, k], accumulated in f32.
struct Contraction {
  int lhsParam = -1;       // index in Kernel::params, or -1: the lhs is contraction `lhsContraction`
  int lhsContraction = -1; // an earlier contraction with columns == this one's reduced dimension
  RowAccess lhsRow = RowAccess::Row; // Row or Token (Row when the lhs is a contraction)
  int rhsParam = -1;                 // Packed or Tensor param
  bool rhsByExpert = false;
  Dim columns, reduced; // N and K (or P)
  Loc loc;
};

enum class Op : uint8_t {
  Number,
  Scalar,
  RowWeight,
  ReadContraction,
  ReadTensor,
  Neg,
  Add,
  Sub,
  Mul,
  Div,
  Min,
  Max,
  Exp,
  Sigmoid,
  Tanh,
  Erf, // Clamp becomes Max then Min: min(max(x, lo), hi)
  Lt,
  Le,
  Gt,
  Ge,
  Eq,
  Ne,     // conditions, used by Select only
  Select, // operands: condition, then, else
};

/// A node of a write's value; nodes stand in topological order and operands are indices of earlier nodes (a
/// DAG: equal nodes are merged).
struct Node {
  Op op = Op::Number;
  double number = 0;               // Number
  int index = -1;                  // Scalar, ReadTensor: param; ReadContraction: contraction
  RowAccess row = RowAccess::None; // ReadTensor
  bool hasColumn = true;           // ReadTensor: false for b[r.expert] and the like
  int64_t mul = 1;                 // column read = mul * j + offset
  Dim offset{"", 0, 1};
  std::vector<int> operands;
};

/// output[row, j] = value, or output[r.token, j] += value, for j in [0, columns).
struct Write {
  int output = -1; // index in Kernel::outputs
  bool combine = false;
  Dim columns;
  std::vector<Node> nodes; // the last one is the value
  Loc loc;
};

struct NormalKernel {
  const Kernel *kernel = nullptr;
  std::vector<Contraction> contractions;
  std::vector<Write> writes;
};

} // namespace quern::syntax
