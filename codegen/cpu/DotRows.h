// The row kernel: C[t][n] = sum(k) x[t][k] * w[n][k] with k in the lanes of a vector, a block of weight rows
// times a block of tokens in registers over the whole of K, one horizontal sum at the end. No padding of
// tokens: good from one row upwards.
//
// Each C element is one accumulator vector whose units are added in ascending k and then folded by halves,
// whatever block shape handles it: the bits do not depend on how many tokens are processed together.
#pragma once
#include "codegen/cpu/Activations.h"

namespace quern::cpu {

class DotRows {
public:
  DotRows(Emitter &e, const Schedule &s, Weights &w, Activations &x)
      : e(e), schedule(s), weights(w), rows(x) {}

  /// Bytes of the decode buffer and, where K is long, of the partial sums of `schedule.segment` tokens.
  int64_t bufferBytes() const;

  /// C[t][i] (row-major, `pitch` elements per line) = row t of the segment times weight row n0 + i, for i in
  /// [0, columns) and t in [0, tokens). n0 and columns (i64) are multiples of 32; columns at or beyond N are
  /// left unset.
  void emit(Value n0, Value columns, Value pitch, Value tokens, Value c, Value buffer);

private:
  Emitter &e;
  const Schedule &schedule;
  Weights &weights;
  Activations &rows;

  int64_t blockRows() const { return schedule.rows; }
  /// K is taken in chunks whose decoded rows stay in L1 while all tokens pass over them.
  int64_t chunkBlocks() const;
  int64_t chunks() const { return ((weights.paddedK() + 63) / 64 + chunkBlocks() - 1) / chunkBlocks(); }
  int64_t pitch() const { return chunks() == 1 ? weights.paddedK() : chunkBlocks() * 64; }
  int64_t decodedBytes() const { return blockRows() * pitch() * weights.elementBytes(); }
  Value dot(Value w, Value x, Value acc);
  /// Sums the lanes of each vector; result lane i is the sum of vectors[i].
  Value foldLanes(SmallVector<Value> vectors);
  void storeSums(ArrayRef<Value> acc, int64_t rowCount, int64_t tokenCount, Value c, Value pitch, Value t0,
                 Value column);
  /// Sums of one block of tokens over elements [from, to) of K, on top of `init`.
  SmallVector<Value> multiply(int64_t tokenCount, Value t0, Value from, Value to, ValueRange init,
                              Value buffer);
  void forTokens(Value tokens, const std::function<void(int64_t, Value)> &body);
  void buffered(Value n, Value tokens, Value c, Value pitch, Value column, Value buffer);
  void fused(Value n, int64_t rowCount, int64_t tokenCount, Value c, Value pitch, Value column);
};

} // namespace quern::cpu
