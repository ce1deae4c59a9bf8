// The space of the GPU target.
#pragma once
#include "codegen/gpu/Schedule.h"
#include "runtime/tune/Space.h"

namespace quern::tune {

/// Legal points with predictions, illegal ones with their reason; not sorted, not pruned.
std::vector<Candidate> gpuSpace(const Shape &shape, const DeviceIdentity &device);
Status checkGpuTunable(std::string_view schedule);

} // namespace quern::tune
