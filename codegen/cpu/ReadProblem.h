// Between the scheduled stage's attributes and the Problem record.
#pragma once
#include "codegen/cpu/Problem.h"
#include "compiler/dialect/Quern.h"
#include "compiler/support/Error.h"

namespace quern::cpu {

/// Writes `problem` (dimensions, operand types, features) and `schedule` on the kernel: the step from `quern`
/// to `scheduled`.
Status assignSchedule(mlir::quern::KernelOp kernel, const jit::Request &request, std::string_view schedule);

/// Resolves a scheduled kernel. User errors: a dimension that does not divide, a missing dimension, an
/// illegal schedule.
Expected<Problem> readProblem(mlir::quern::KernelOp kernel);

} // namespace quern::cpu
