// The left-hand side of a contraction: rows of activations, read where they lie when their form allows it,
// else copied once per row into the workspace in the dot product's own type and order ("prepared").
#pragma once
#include "codegen/cpu/Decode.h"

namespace quern::cpu {

/// Form of a prepared row.
struct PreparedForm {
  int operand = -1, contraction = -1; // source: a tensor parameter, or the result of a small-rank contraction
  RowAccess row = RowAccess::Row;
  Dot dot = Dot::F32;
  Order order = Order::Plain;
  int64_t k = 0, padded = 0; // elements; zeros from k to padded
  bool operator==(const PreparedForm &) const = default;
  int64_t bytes() const { return padded * (dot == Dot::Bf16 ? 2 : 4); }
};

/// Where prepared activations of a workspace row lie. Rows come in groups of 16: first the group's B tiles
/// (16 x tileBytes, see DotTile.h), then its 16 rows of rowBytes.
struct Workspace {
  int64_t rowBytes = 0, tileBytes = 0;
  int64_t bytesPerRow() const { return rowBytes + tileBytes; }
  /// Address of workspace row `row`, plus `offset`.
  Value rowAddress(Emitter &e, Value work, Value row, int64_t offset) const;
  /// Address of the tiles of the group that starts at workspace row `row` (a multiple of 16).
  Value groupAddress(Emitter &e, Value work, Value row, int64_t offset) const;
};

class Activations {
public:
  /// Decides between raw and prepared; prepared forms are looked up in, or added to, `forms`.
  Activations(Emitter &e, const Problem &p, const Contraction &c, Dot dot, const Weights &weights,
              std::vector<PreparedForm> &forms);

  bool prepared() const { return form >= 0; }
  int formIndex() const { return form; }
  /// Extent of the reduction in elements, a multiple of the unit: what the inner loop runs over.
  int64_t extent() const { return loopExtent; }

  /// Loads base pointers for a segment; `offset` is the byte offset of this form inside a workspace row.
  void bind(Value slots, Value row0, Value workRow, const Workspace &workspace, int64_t offset);
  /// Address of row `r` of the segment (0-based).
  Value rowPointer(Value r);
  /// Unit at position `k` (element index) of the row at `pointer`, in the dot's type.
  Value unit(Value pointer, Value k, int64_t unitWidth);

private:
  Emitter &e;
  const Problem &problem;
  const Contraction &contraction;
  Dot dot;
  int form = -1;
  int64_t loopExtent = 0;
  Workspace workspace;
  int64_t formOffset = 0;
  Value base, stride, rowToken,
      firstRow; // bytes; prepared: base is the workspace and firstRow the segment's row in it
};

/// Which lhs element types can go into a bf16 dot product: both sides bf16.
Dot dotOf(const Problem &p, const Contraction &c);

/// Copies one row of a form: converts, permutes, pads with zeros.
void prepareRow(Emitter &e, const Problem &p, const PreparedForm &form, Value slots, Value absoluteRow,
                Value target);

} // namespace quern::cpu
