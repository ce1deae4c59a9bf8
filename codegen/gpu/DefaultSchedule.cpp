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
  if (narrow)
    s.bn = 32, s.stages = 7, s.ctas = 2, s.decode = Decode::Pairs, s.regs = 104, s.producerRegs = 32;
  auto kernel = readTileKernel(problem, s);
  // A producer whose 128 threads all work needs more registers than one thread that issues copies.
  if (kernel && Plan(s, kernel->facts).wideProducer()) {
    s.regs = narrow ? 88 : 224, s.producerRegs = narrow ? 64 : 56;
    if (narrow) s.stages = 6; // room for two scales and zero points per step
  }
  return s;
}

} // namespace quern::gpu
