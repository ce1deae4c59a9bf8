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

class Activations {
public:
  /// Decides between raw and prepared; prepared forms are looked up in, or added to, `forms`.
  Activations(Emitter &e, const Problem &p, const Contraction &c, Dot dot, const Weights &weights,
              std::vector<PreparedForm> &forms);

  bool prepared() const { return form >= 0; }
  int formIndex() const { return form; }
  /// Extent of the reduction in elements, a multiple of the unit: what the inner loop runs over.
  int64_t extent() const { return loopExtent; }

  /// Loads base pointers for a segment. `workOffsets[f]` is the byte offset of form f inside a workspace row.
  void bind(Value slots, Value row0, Value workRow, int64_t workBytesPerRow, int64_t workOffset);
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
  Value base, stride, rowToken, firstRow; // bytes
};

/// Which lhs element types can go into a bf16 dot product: both sides bf16.
Dot dotOf(const Problem &p, const Contraction &c);

/// Copies one row of a form: converts, permutes, pads with zeros.
void prepareRow(Emitter &e, const Problem &p, const PreparedForm &form, Value slots, Value absoluteRow,
                Value target);

} // namespace quern::cpu
