// The signatures of GPU primitives as MLIR types.
#pragma once
#include "mlir/IR/TypeRange.h"
#include <string>

namespace quern::gpu {

/// "" when `primitive` (without "q.") takes `inputs` and gives `outputs`, else what is wrong.
std::string checkPrimitive(llvm::StringRef primitive, mlir::TypeRange inputs, mlir::TypeRange outputs);

} // namespace quern::gpu
