// The GPU side of the late split: calls of `q.` functions become the PTX of codegen/gpu/Primitives.h.
#pragma once
#include "compiler/support/Error.h"

namespace llvm {
class Module;
} // namespace llvm

namespace quern::nvidia {

/// Replaces every call of a primitive by inline asm and removes the declarations. To be run after the NVPTX
/// optimisation pipeline and directly before code emission: the optimiser knows primitives by their
/// attributes, and LLVM must not move asm statements any more. Unknown `q.` functions, other types than the
/// table's and uses that are not calls are internal errors.
Status realizePrimitives(llvm::Module &module);

} // namespace quern::nvidia
