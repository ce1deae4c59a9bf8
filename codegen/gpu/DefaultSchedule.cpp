// See DefaultSchedule.h.
#include "codegen/gpu/DefaultSchedule.h"
#include "codegen/gpu/ReadFacts.h"

namespace quern::gpu {

/// Up to this many rows an expert is bound by reading and decoding its weights: narrow tiles, two CTAs per
/// multiprocessor, decode through shared memory. Measured: 1.2 times the wide schedule at 2 and 8 rows.
static constexpr int64_t narrowRows = 16;
/// Up to this many, with three warpgroups to a token tile of 64: 1.17 (gate_up) and 1.26 times (down) the
/// wide schedule at 32 rows, 0.90 and 0.96 times at 64.
static constexpr int64_t middleRows = 48;

Schedule defaultSchedule(const cpu::Problem &problem, int64_t rowsPerExpert) {
  Schedule s;
  if (rowsPerExpert && rowsPerExpert <= narrowRows)
    s.bn = 32, s.stages = 6, s.ctas = 2, s.decode = Decode::Pairs;
  else if (rowsPerExpert && rowsPerExpert <= middleRows)
    s.bm = 192, s.bn = 64, s.stages = 8, s.decode = Decode::Pairs;
  // A halved pair fills a tile of 128 rows.
  if (s.bm == 192 && !readTileKernel(problem, s)) s.bm = 128;
  fitRegisters(s, problem);
  auto fits = [&] {
    auto kernel = readTileKernel(problem, s);
    return kernel && s.checkSmem(Plan::maxExperts, kernel->facts.scalesPerStep(), kernel->facts.zero);
  };
  while (s.stages > 3 && !fits()) --s.stages;
  return s;
}

void fitRegisters(Schedule &s, const cpu::Problem &problem) {
  auto kernel = readTileKernel(problem, s);
  s.fitRegisters(kernel && Plan(s, kernel->facts).assembles());
}

} // namespace quern::gpu
