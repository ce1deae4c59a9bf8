// A kernel with every static fact resolved: dimensions as numbers, operand types, slots. What the generator
// works from.
#pragma once
#include "codegen/cpu/Schedule.h"
#include "compiler/syntax/NormalForm.h"
#include "mlir/IR/Region.h"
#include "runtime/jit/Jit.h"
#include <vector>

namespace quern::cpu {

using syntax::RowAccess;

/// A parameter or output.
struct Operand {
  syntax::Param::Kind kind = syntax::Param::Tensor;
  DType dtype = DType::F32; // Packed: dtype of the quantization state
  int slot = 0, rank = 0;   // first slot; Tensor: slot is the pointer, slot + 1 + d the stride of dimension d
  bool unitStride = true;
  int64_t block = 64; // Packed
  Layout layout = Layout::Cpu;
  syntax::Codec codec; // Packed
};

/// C[r, n] = sum(k) lhs[row, k] * rhs[(expert,) n, k].
struct Contraction {
  int lhs = -1, lhsContraction = -1; // operand index, or an earlier contraction
  RowAccess lhsRow = RowAccess::Row;
  int rhs = -1;
  bool byExpert = false;
  int64_t columns = 0, reduced = 0;
};

/// One value that a write's region takes as an argument.
struct Read {
  enum Kind : uint8_t { OfContraction, OfTensor, OfRowWeight } kind = OfTensor;
  int index = -1; // contraction or operand
  RowAccess row = RowAccess::None;
  bool hasColumn = true;
  int64_t mul = 1, offset = 0;
};

struct Write {
  int output = -1; // operand index
  bool combine = false;
  int64_t columns = 0;
  std::vector<Read> reads;
  mlir::Region *body = nullptr; // one f32 argument per read; may use scalar parameters of the kernel
};

struct Problem {
  std::vector<Operand> operands; // parameters, then outputs
  std::vector<Contraction> contractions;
  std::vector<Write> writes;
  int routing = -1; // operand index
  int workSlot = 0; // after all operands
  DType act = DType::F32;
  std::string scheduleText; // as the kernel carries it
  Schedule schedule;        // parsed, when the text is a CPU schedule
};

} // namespace quern::cpu
