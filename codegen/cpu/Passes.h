// The CPU target's own passes; each stands in a file of its name.
#pragma once
#include "mlir/Pass/Pass.h"
#include <memory>

namespace quern::cpu {

/// generate-cpu: scheduled `quern.kernel` ops become functions (GenerateKernel.h).
std::unique_ptr<mlir::Pass> createGenerateCpuPass();
/// expand-math: math.exp, math.tanh, math.erf become polynomials.
std::unique_ptr<mlir::Pass> createExpandMathPass();

} // namespace quern::cpu
