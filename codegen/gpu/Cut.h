// How an expert's rows become token tiles.
#pragma once
#include "codegen/gpu/Emitter.h"
#include "codegen/gpu/Schedule.h"

namespace quern::gpu {

/// Equal parts, not full tiles and a rest: a rest of 20 rows would cost as much as 32.
struct Cut {
  Value parts; // of at most bn rows; at least one
  Value part;  // rows of each but the last, rounded up to 16 (or bn, if that is less)
};
Cut cutRows(Emitter &e, const Schedule &s, Value rows);

/// The least width of the ladder (Plan::widths) that holds these rows; 0 for none where bn is above 32.
Value widthFor(Emitter &e, const Schedule &s, Value rows);

} // namespace quern::gpu
