// The tile kernel (AMX): weights are the A operand (16 n x 32 k, plain rows as decoded), tokens the B operand
// (VNNI: [k/2][16 t][2]), 2 x 2 tiles of C in registers. Intel Architecture Instruction Set Extensions,
// chapter "Intel AMX": TDPBF16PS.
//
// Up to 32 tokens: C stays in tiles over the whole of K, and an eighth of the decode of a later block follows
// each tdpbf16ps, so that the vector units work under the tile unit. More tokens: K in chunks decoded to L1,
// all token pairs pass over each, C tiles wait in memory between chunks.
#pragma once
#include "codegen/cpu/Activations.h"

namespace quern::cpu {

/// Activations as B tiles: a workspace row's bytes times 16 hold one group of 16 rows: [padded/32][16 pairs
/// of k][16 rows][2] bf16.
struct TileForm {
  int operand = -1;
  RowAccess row = RowAccess::Row;
  int64_t k = 0;
  bool operator==(const TileForm &) const = default;
  int64_t bytes() const { return k * 2; }
};

/// True when a contraction can use tiles: AMX, bf16 on both sides, K and N in whole blocks, contiguous
/// activations.
bool tileable(const Problem &p, const Contraction &c);

/// Transposes 16 vectors of 16 lanes by four rounds of exchanges.
void transpose16(Emitter &e, SmallVector<Value> &rows);

/// Fills the tiles of rows [absoluteRow, + count) of a segment, 1 <= count <= 16; missing rows repeat the
/// last one (never read back).
void prepareTiles(Emitter &e, const Problem &p, const TileForm &form, Value slots, Value absoluteRow,
                  Value count, Value target);

class DotTile {
public:
  DotTile(Emitter &e, const Schedule &s, Weights &w, mlir::ModuleOp m)
      : e(e), schedule(s), weights(w), module(m) {}

  /// Decode ring or chunk, and the C tiles of a whole segment.
  int64_t bufferBytes() const { return decodedBytes() + (schedule.segment + 31) / 32 * 4096; }

  /// As DotRows::emit; `tiles`: B tiles of the segment's first group, `groupBytes` apart.
  void emit(Value n0, Value columns, Value pitch, Value tokens, Value c, Value buffer, Value tiles,
            int64_t groupBytes);

private:
  Emitter &e;
  const Schedule &schedule;
  Weights &weights;
  mlir::ModuleOp module;

  int64_t decodedBytes() const { return std::max<int64_t>(4 * 4096, schedule.chunk * 4096); }
  void configure();
  void instruction(const std::string &text, ValueRange operands);
  void load(int tile, Value address, Value stride);
  void multiply(int c, int a, int b);
  void loadC(Value address);
  void storeC(Value address);
  void zeroC();
  /// One K block of 64 for a pair of token groups, or for one (b1 null). slice(i), i = 0..7, is called after
  /// each multiplication.
  void step(Value weightRows, Value rowStride, Value b0, Value b1, const std::function<void(int)> &slice);
  void interleaved(Value n, bool pair, Value cTiles, Value ring, Value tiles, int64_t groupBytes);
  void chunked(Value n, Value groups, Value cTiles, Value buffer, Value tiles, int64_t groupBytes);
  void unpack(Value cTiles, bool merge, Value t0, Value tokens, Value c, Value pitch, Value column);
};

} // namespace quern::cpu
