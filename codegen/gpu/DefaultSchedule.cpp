// See DefaultSchedule.h.
#include "codegen/gpu/DefaultSchedule.h"
#include "codegen/gpu/ReadFacts.h"

namespace quern::gpu {

/// Up to this many rows an expert is bound by reading and decoding its weights: narrow tiles, two CTAs per
/// multiprocessor, decode through shared memory. Measured: 1.2 to 1.4 times the wide schedule at 2 and 8
/// rows, equal at 32.
static constexpr int64_t narrowRows = 16;

Schedule defaultSchedule(const cpu::Problem &problem, int64_t rowsPerExpert) {
  Schedule s;
  bool narrow = rowsPerExpert && rowsPerExpert <= narrowRows;
  if (narrow) // 6 stages: room for two scales and zero points per step, where there are any
    s.bn = 32, s.stages = 6, s.ctas = 2, s.decode = Decode::Pairs;
  fitRegisters(s, problem);
  return s;
}

void fitRegisters(Schedule &s, const cpu::Problem &problem) {
  auto kernel = readTileKernel(problem, s);
  s.fitRegisters(kernel && Plan(s, kernel->facts).wideProducer());
}

} // namespace quern::gpu
