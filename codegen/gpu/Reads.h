// Where a value of a qtile.write comes from, as one line of text.
#pragma once
#include "compiler/support/DType.h"
#include "llvm/ADT/StringRef.h"
#include <string>

namespace quern::gpu {

struct Read {
  enum Kind : uint8_t { OfContraction, OfLowRank, OfTensor, OfWeight, OfScalar } kind = OfTensor;
  enum Line : uint8_t { None, Row, Token, Expert } row = None;
  int index = -1;           // OfTensor, OfScalar: operand; OfLowRank: workspace
  int operand = -1;         // OfLowRank: the second factor B
  DType dtype = DType::F32; // OfTensor, OfLowRank: of the operand
  bool hasColumn = false;
  int64_t mul = 1, offset = 0, rank = 0;

  /// "contraction column 2 1", "tensor 3 bf16 by expert column 1 0", "low_rank 0 of 6 bf16 rank 16 by expert
  /// column 1 0", "weight", "scalar 5"; `column` gives mul and offset.
  std::string str() const;
};

Read parseRead(llvm::StringRef text);

} // namespace quern::gpu
