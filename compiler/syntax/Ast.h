// The checked syntax tree of a .qn file: what the parser builds, the semantic checks annotate, and the
// interpreter runs.
#pragma once
#include "compiler/support/DType.h"
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace quern::syntax {

/// 1-based position in the source text; column counts bytes.
struct Loc {
  uint32_t line = 1, column = 1;
};

/// A dimension: mul * sym / div with an exact division; `sym` empty means the constant `mul`.
struct Dim {
  std::string sym;
  int64_t mul = 1, div = 1;
  bool isConstant() const { return sym.empty(); }
  bool operator==(const Dim &) const = default;
  std::string str() const; // "N", "N/2", "2*N", "64"
};

/// How one scale of a codec is stored.
enum class ScaleType : uint8_t { F32, BF16, E8M0 };

/// value = (table[code] - zero) * scale; scale and zero are shared by `block` consecutive codes of the
/// flattened [N, K].
struct Codec {
  std::string name;
  std::array<float, 16> table{};
  bool highFirst = true; // element 2j is the high nibble of byte j
  ScaleType scale = ScaleType::F32;
  int64_t block = 64;   // default for generated data; a packed operand's own block size wins
  bool hasZero = false; // one u4 code-domain zero per block, stored as one byte (0..15)
  Loc loc;
};

/// Element type of a parameter: a literal dtype, `act` (one dtype variable per kernel) or `float` (any of the
/// three, each on its own).
struct ElemType {
  enum Kind : uint8_t { Literal, Act, Float } kind = Literal;
  DType literal = DType::F32;
};

struct Param {
  enum Kind : uint8_t { Tensor, Packed, Routing, Scalar } kind = Tensor;
  std::string name;
  ElemType elem;         // Tensor, Scalar
  std::string codec;     // Packed
  std::vector<Dim> dims; // Tensor 1..3, Packed 2 ([N, K]) or 3 ([E, N, K]), Routing 2 ([T, E]), Scalar 0
  Loc loc;
};

/// One subscript. Row: the row variable itself. Token, Expert: r.token, r.expert. Affine: mul * var + offset
/// (offset a Dim, constant 0 by default).
struct Index {
  enum Kind : uint8_t { Row, Token, Expert, Affine } kind = Affine;
  std::string var;
  int64_t mul = 1;
  Dim offset{"", 0, 1};
  Loc loc;
};

enum class ExprKind : uint8_t {
  Number,    // number
  Name,      // name: a scalar parameter of the kernel, or a parameter / local of the enclosing fn
  Access,    // name[indices]: a tensor or packed parameter, or a local tensor of the kernel
  RowWeight, // r.weight
  Neg,       // children[0]
  Add,
  Sub,
  Mul,
  Div,
  Lt,
  Le,
  Gt,
  Ge,
  Eq,
  Ne,   // only as the first argument of select
  Call, // name(children): builtin or fn; see `callee`
  Sum,  // sum(name) children[0] * children[1]
};

/// Builtins of the scalar functions; UserFn: `fnIndex` says which.
enum class Builtin : uint8_t { UserFn, Min, Max, Clamp, Exp, Sigmoid, Tanh, Erf, Select };

struct Expr;
using ExprPtr = std::shared_ptr<const Expr>; // trees only: no node is shared by two parents in the AST

struct Expr {
  ExprKind kind = ExprKind::Number;
  Loc loc;
  double number = 0;
  std::string name;           // Name, Access, Call (as written), Sum (the reduced variable)
  std::vector<Index> indices; // Access
  Builtin callee = Builtin::UserFn;
  int fnIndex =
      -1; // Call of a UserFn: index in Program::fns, always smaller than the caller's (no recursion)
  std::vector<ExprPtr> children;
};

/// fn name(params) { name = expr ... return expr }
struct Fn {
  std::string name;
  std::vector<std::string> params;
  std::vector<std::pair<std::string, ExprPtr>> lets;
  ExprPtr result;
  Loc loc;
};

/// target[indices] = value, or += value. The target is an output or defines a local tensor.
struct Stmt {
  std::string target;
  std::vector<Index> indices;
  bool accumulate = false;
  ExprPtr value;
  Loc loc;
};

/// Range of a loop variable of one statement, found by the checks.
struct LoopVar {
  std::string name;
  Dim range;
};

/// A tensor that a statement defines and that is not an output: rows x columns of f32, never rounded.
struct Local {
  std::string name;
  Dim columns;
};

struct Kernel {
  std::string name;
  std::vector<Param> params, outputs;
  std::vector<Stmt> stmts;
  Loc loc;

  // Filled by the checks.
  int routing = -1;                    // index in params, or -1: dense kernel
  std::string rowVar;                  // "r" in y[r, n]; for dense kernels the first variable of the targets
  Dim rows;                            // "R" with routing; the row dimension (e.g. "T") without
  std::vector<std::string> dimSymbols; // every symbol, in order of first appearance (R excluded)
  std::vector<Local> locals;
  std::vector<std::vector<LoopVar>> loops; // per statement: column variable and reduced variables
};

struct Program {
  std::vector<Codec> codecs; // declared here or brought in by `use`
  std::vector<Fn> fns;
  std::vector<Kernel> kernels;
  std::string fileName;
  const Codec *findCodec(const std::string &name) const;
  const Kernel *findKernel(const std::string &name) const;
};

} // namespace quern::syntax
