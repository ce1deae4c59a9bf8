// See Cut.h.
#include "codegen/gpu/Cut.h"

namespace quern::gpu {

Cut cutRows(Emitter &e, const Schedule &s, Value rows) {
  Value parts = e.max(e.div(e.add(rows, s.bn - 1), s.bn), e.c(1));
  int64_t step = std::min<int64_t>(16, s.bn);
  Value part = e.div(e.sub(e.add(rows, parts), e.c(1)), parts);
  return {parts, e.mul(e.div(e.add(part, step - 1), step), step)};
}

Value widthFor(Emitter &e, const Schedule &s, Value rows) {
  if (s.bn > 32) return e.shl(e.shr(e.add(rows, 31), 5), 5);
  Value width = e.c(s.bn);
  for (int64_t w = s.bn / 2; w >= 8; w /= 2) width = e.select(e.ge(e.c(w), rows), e.c(w), width);
  return width;
}

} // namespace quern::gpu
