// The schedule of a kernel that nobody has tuned: what the cost facts and measurements say.
#pragma once
#include "codegen/cpu/Problem.h"
#include "codegen/gpu/Schedule.h"

namespace quern::gpu {

Schedule defaultSchedule(const cpu::Problem &problem);

} // namespace quern::gpu
