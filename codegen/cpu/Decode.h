// The dequantize prologue on the CPU: codes and scales of one expert become bf16 or fp32 vectors.
//
// The 16 possible products of a block, (table[c] - zero) * scale, are formed and rounded once (to the
// quantization state's dtype, then to the activations'), and the codes index them: bit-identical to
// bitsandbytes, at a few operations per 64 weights. One register step ("unit") is 32 bf16 values of
// consecutive k, or `lanes` fp32 values in split order: inside each 32 consecutive k, the even ones first,
// then the odd ones (the order in which a 64-byte line of the cpu layout unpacks without shuffles).
#pragma once
#include "codegen/cpu/Emitter.h"
#include "codegen/cpu/Problem.h"

namespace quern::cpu {

/// Memory order of k inside a row of decoded weights or prepared activations.
enum class Order : uint8_t { Plain, Split };
/// Where element `kk` of a row lies in `order`.
Value positionIn(Emitter &e, Order order, Value kk);

/// The right-hand side of one contraction for one expert.
class Weights {
public:
  /// `dot`: Bf16 gives 32-wide bf16 units in plain order; F32 gives fp32 units in `order()`.
  Weights(Emitter &e, const Problem &p, const Contraction &c, Dot dot, mlir::ModuleOp module);

  /// Loads the expert's pointers; call where `expert` (i64) is known.
  void bind(Value slots, Value expert);

  bool packed() const { return operand.kind == syntax::Param::Packed; }
  Order order() const { return packed() && dot == Dot::F32 ? Order::Split : Order::Plain; }
  int64_t paddedK() const { return (k + (packed() ? 63 : 31)) / (packed() ? 64 : 32) * (packed() ? 64 : 32); }
  int64_t elementBytes() const { return dot == Dot::Bf16 ? 2 : 4; }
  int64_t unit() const { return dot == Dot::Bf16 ? 32 : lanes; }
  /// Rows below mainRows() in whole 64-k blocks decode with vectors; `vectorized()` is false when no block
  /// does.
  bool vectorized() const;
  int64_t mainRows() const { return n / 32 * 32; }
  int64_t mainBlocks() const { return k / 64; }
  int64_t rowsTotal() const { return n; }
  int64_t depth() const { return k; }

  /// Decodes rows row + r, row + r + 1 (r even; all in one panel of 32 below mainRows()) of K block `kb` in
  /// registers and hands out each unit: emit(row in the pair, position inside the block in storage order,
  /// vector).
  void decodePair(Value row, int64_t r, Value kb, const std::function<void(int, int64_t, Value)> &emit);

  /// Decodes rows [row, row + count) x K blocks [block0, block1) of 64 (zeros beyond K and beyond N) to
  /// buffer[count][pitch], whose position 0 is the first of block0. count divides 32, row is a multiple of
  /// it.
  void decodeRows(Value row, int64_t count, Value block0, Value block1, int64_t pitch, Value buffer);

  /// Asks L2 for what rows [row, row + count) of K block `kb` need one panel of 32 rows further on: a panel
  /// of work is far more than the memory's latency, and the requests spread evenly.
  void prefetchNextPanel(Value row, int64_t count, Value kb);

private:
  Emitter &e;
  const Operand &operand;
  const Schedule &schedule;
  Dot dot;
  DType act;
  int64_t n, k, lanes;
  bool byExpert;
  mlir::ModuleOp module;
  Value codes, scales, zeros;     // packed: this expert's arrays
  Value base, rowStride, kStride; // dense, strides in bytes

  int64_t scaleStep() const; // 64 or 32: codes of one row that surely share a scale; 1: no vector path
  bool retiledScales() const { return operand.layout == Layout::Cpu && k % operand.block == 0; }
  Value scaleIndex(Value row, int64_t r, Value kk); // element index for (row + r, kk), rows of one panel
  Value scaleAt(Value index);                       // as f32
  Value zeroAt(Value index);                        // as f32, or null
  Value roundChain(Value v); // f32 (scalar or vector): to the quantization dtype, then to `act`, still f32
  Value productTable(Value index); // vector<16xf32>
  Value lookupTable(Value table);  // what lookup() takes: i16x32, or the table itself
  Value lookup(Value table, Value codes, int64_t shift);
  Value line(Value row, Value kb); // address of the 64-byte line of rows row, row+1
  void decodeScalar(Value row, Value from, Value to, Value rowBuffer); // one row, [from, to), any region
  Value codeAt(Value row, Value kk);                                   // i64 0..15
  // Elements [from, to) of K.
  void decodeDense(Value row, int64_t count, Value from, Value to, int64_t pitch, Value buffer);
  void clear(Value target, Value elements);
  Value tableGlobal();
};

} // namespace quern::cpu
