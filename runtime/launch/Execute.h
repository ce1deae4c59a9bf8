// Running an image on the CPU.
#pragma once
#include "runtime/jit/Jit.h"
#include "runtime/launch/Kernel.h"

namespace quern {

/// Runs `image` for a bound call; every element of the outputs is written. The workspace stays below the
/// larger of 4 MB and 3 % of the packed operands, whatever the number of rows; results do not depend on the
/// thread count. (On AMX the bits of a row may depend on how many rows its expert has; the routing decides
/// that.)
Status execute(const jit::CpuImage &image, const syntax::Kernel &kernel, const Binding &binding,
               const std::vector<Arg> &args, const std::vector<TensorView> &outputs);

} // namespace quern
