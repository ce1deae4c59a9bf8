// What bounds any kernel of a device: its arithmetic and its memory.
#pragma once
#include "runtime/tune/Tuning.h"
#include <string>

namespace quern::tools {

struct Roof {
  double tflops = 0, gbs = 0; // 0: not known
  std::string arithmetic;     // what `tflops` is a rate of: "bf16 dot products, AVX-512"
  std::string source;         // "measured now on 2 threads", "stated in codegen/gpu/CostModel.h"
  bool known() const { return tflops > 0 && gbs > 0; }
  /// The most that a call of this intensity (flops per byte) can reach, in TFLOP/s.
  double at(double flopsPerByte) const;
};

/// For a CPU, measured in half a second on all its threads, with the instruction that `schedule` multiplies
/// with; for a GPU, the sustained rates that Quern's cost model states. Unknown for the simulator.
Roof roofOf(const tune::DeviceIdentity &device, const std::string &schedule);

/// Writes more than the last-level cache holds, so that what comes next reads from memory.
void flushCaches();

} // namespace quern::tools
