// The space of the CPU target, and the model that ranks it.
#pragma once
#include "codegen/cpu/Schedule.h"
#include "runtime/tune/Space.h"

namespace quern::tune {

struct CpuPrediction {
  double us = 0;
  std::string limiter; // "memory", "decode", "multiply", "tasks"
};
/// What a schedule should cost: README.md, "The CPU model". To rank by.
CpuPrediction predictCpu(const cpu::Schedule &schedule, const Shape &shape);

/// As gpuSpace. `features` as jit::Request has them.
std::vector<Candidate> cpuSpace(const Shape &shape, std::string_view features);
Status checkCpuTunable(std::string_view features, std::string_view schedule);

} // namespace quern::tune
