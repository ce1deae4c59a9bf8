// The schedule of a kernel that nobody has tuned: what was measured (benchmarks/NOTES.md).
#pragma once
#include "codegen/cpu/Problem.h"
#include "codegen/gpu/Schedule.h"

namespace quern::gpu {

/// `rowsPerExpert`: as jit::Request has it. Legal for the problem.
Schedule defaultSchedule(const cpu::Problem &problem, int64_t rowsPerExpert);

/// Register budgets for the schedule's other fields, as the default has them.
void fitRegisters(Schedule &schedule, const cpu::Problem &problem);

} // namespace quern::gpu
