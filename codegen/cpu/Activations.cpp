// See Activations.h.
#include "codegen/cpu/Activations.h"
#include <algorithm>

using namespace mlir;

namespace quern::cpu {

Dot dotOf(const Problem &p, const Contraction &c) {
  if (p.schedule.dot != Dot::Bf16 || c.lhs < 0 || p.operands[c.lhs].dtype != DType::BF16) return Dot::F32;
  const Operand &rhs = p.operands[c.rhs];
  return rhs.kind == syntax::Param::Packed || rhs.dtype == DType::BF16 ? Dot::Bf16 : Dot::F32;
}

Activations::Activations(Emitter &emitter, const Problem &p, const Contraction &c, Dot dotKind,
                         const Weights &weights, std::vector<PreparedForm> &forms)
    : e(emitter), problem(p), contraction(c), dot(dotKind), loopExtent(weights.paddedK()) {
  if (c.lhs >= 0) {
    const Operand &x = p.operands[c.lhs];
    bool whole = c.reduced == weights.paddedK(); // no zeros needed beyond K
    bool sameOrder = weights.order() == Order::Plain;
    bool sameType = dot == Dot::F32 || x.dtype == DType::BF16;
    if (x.unitStride && whole && sameOrder && sameType) return; // raw
  }
  PreparedForm wanted{c.lhs, c.lhsContraction, c.lhsRow, dot, weights.order(), c.reduced, weights.paddedK()};
  auto found = std::find(forms.begin(), forms.end(), wanted);
  form = int(found - forms.begin());
  if (found == forms.end()) forms.push_back(wanted);
}

Value Workspace::rowAddress(Emitter &e, Value work, Value row, int64_t offset) const {
  if (!tileBytes) return e.at(e.at(work, e.mul(row, rowBytes)), offset);
  Value inGroup = e.mul(e.rem(row, 16), rowBytes);
  return e.at(e.at(work, e.add(e.mul(e.div(row, 16), 16 * bytesPerRow()), inGroup)), 16 * tileBytes + offset);
}

Value Workspace::groupAddress(Emitter &e, Value work, Value row, int64_t offset) const {
  return e.at(e.at(work, e.mul(row, bytesPerRow())), 16 * offset);
}

void Activations::bind(Value slots, Value row0, Value workRow, const Workspace &layout, int64_t offset) {
  if (prepared()) {
    workspace = layout, formOffset = offset;
    base = e.slot(slots, problem.workSlot, e.ptr());
    firstRow = workRow;
    return;
  }
  firstRow = row0;
  const Operand &x = problem.operands[contraction.lhs];
  base = e.slot(slots, x.slot, e.ptr());
  stride = e.mul(e.slot(slots, x.slot + 1, e.i64()), byteSize(x.dtype));
  if (contraction.lhsRow == RowAccess::Token)
    rowToken = e.slot(slots, problem.operands[problem.routing].slot, e.ptr());
}

static Value sourceRow(Emitter &e, Value rowToken, Value absoluteRow) {
  return rowToken ? e.load(e.i64(), e.at(rowToken, e.mul(absoluteRow, 8)), 8) : absoluteRow;
}

Value Activations::rowPointer(Value r) {
  if (prepared()) return workspace.rowAddress(e, base, e.add(firstRow, r), formOffset);
  return e.at(base, e.mul(sourceRow(e, rowToken, e.add(firstRow, r)), stride));
}

Value Activations::unit(Value pointer, Value k, int64_t width) {
  if (dot == Dot::Bf16) return e.load(e.vec(width, e.bf16()), e.at(pointer, e.mul(k, 2)));
  DType stored = prepared() ? DType::F32 : problem.operands[contraction.lhs].dtype;
  return e.widen(
      e.load(e.vec(width, e.type(stored)), e.at(pointer, e.mul(k, byteSize(stored))), byteSize(stored)));
}

void prepareRow(Emitter &e, const Problem &p, const PreparedForm &form, Value slots, Value absoluteRow,
                Value target) {
  const Operand &x = p.operands[form.operand];
  Value rowToken =
      form.row == RowAccess::Token ? e.slot(slots, p.operands[p.routing].slot, e.ptr()) : Value();
  int64_t bytes = byteSize(x.dtype), outBytes = form.dot == Dot::Bf16 ? 2 : 4;
  Value source =
      e.at(e.slot(slots, x.slot, e.ptr()),
           e.mul(e.mul(sourceRow(e, rowToken, absoluteRow), e.slot(slots, x.slot + 1, e.i64())), bytes));
  int64_t whole = x.unitStride ? form.k / 32 * 32 : 0;
  if (whole < form.padded) // clear what the scalar loop may leave
    e.forEach(e.c(whole / 32 * 32), e.c(form.padded), 16, [&](Value k) {
      e.store(e.constantI(e.vec(16, form.dot == Dot::Bf16 ? e.i16() : e.i32()), 0),
              e.at(target, e.mul(k, outBytes)));
    });
  if (whole)
    e.forEach(e.c(0), e.c(whole), 32, [&](Value k) {
      Value v = e.load(e.vec(32, e.type(x.dtype)), e.at(source, e.mul(k, bytes)), int(bytes));
      Value to = e.at(target, e.mul(k, outBytes));
      if (form.dot == Dot::Bf16) return e.store(v, to);
      v = e.widen(v);
      if (form.order == Order::Plain) return e.store(v, to);
      for (int odd = 0; odd < 2; ++odd) {
        SmallVector<int64_t> mask;
        for (int i = 0; i < 16; ++i) mask.push_back(2 * i + odd);
        e.store(e.shuffle(v, v, mask), e.at(to, 64 * odd));
      }
    });
  if (whole < form.k) {
    Value kStride = x.unitStride ? e.c(bytes) : e.mul(e.slot(slots, x.slot + 2, e.i64()), bytes);
    e.forEach(e.c(whole), e.c(form.k), 1, [&](Value k) {
      Value v = e.load(e.type(x.dtype), e.at(source, e.mul(k, kStride)), int(bytes));
      if (form.dot == Dot::F32) v = e.widen(v);
      e.store(v, e.at(target, e.mul(positionIn(e, form.order, k), outBytes)), int(outBytes));
    });
  }
}

} // namespace quern::cpu
