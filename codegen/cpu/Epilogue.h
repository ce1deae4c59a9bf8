// The pointwise part of a write on the CPU: contraction columns, biases, routing weights and scalars through
// the region, vectorised over output columns, then one rounding and a store, or the fp32 combine.
#pragma once
#include "codegen/cpu/Emitter.h"
#include "codegen/cpu/Problem.h"

namespace quern::cpu {

/// A block of contraction columns that a band of a write reads: columns [mul*j0 + base, + length) of
/// contraction `index`.
struct ColumnBlock {
  int contraction = -1;
  int64_t perBand = 0, base = 0, length = 0; // first column = band * perBand + base
  bool operator==(const ColumnBlock &) const = default;
  bool aligned() const { return perBand % 32 == 0 && base % 32 == 0; }
  /// Columns computed: whole panels of 32 that cover the block wherever it starts.
  int64_t width() const { return (length + 31) / 32 * 32 + (aligned() ? 0 : 32); }
};

/// Where a block's values are for the current band: line t, element i is column first + i - skip.
struct BlockValues {
  ColumnBlock block;
  Value c;    // [segment rows][pitch] f32
  Value skip; // i64: computed columns before the block's first
};

struct SegmentValues {
  Value slots, expert, row0, tokens; // tokens: rows of the segment
};

/// Output columns of one band of `write` when a band has `columns` contraction columns.
int64_t bandColumns(const Write &write, int64_t columns);
/// Base of a read's block: the largest multiple of mul that is not above its offset.
int64_t blockBase(const Read &read);
/// The blocks that a band of `write` reads.
std::vector<ColumnBlock> blocksOf(const Write &write, int64_t columns);

/// Emits the write of output columns [j0, j0 + bandColumns) for every row of the segment.
void emitWrite(Emitter &e, const Problem &p, const Write &write, const std::vector<BlockValues> &blocks,
               const SegmentValues &segment, Value j0, int64_t band);

} // namespace quern::cpu
