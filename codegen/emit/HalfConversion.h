// f16 <-> f32 in integer operations, for CPUs without F16C: LLVM calls __truncsfhf2 and __extendhfsf2 there,
// which live in compiler runtimes that the process may not have.
#pragma once
#include "compiler/support/Error.h"
#include "llvm/IR/Module.h"

namespace quern::x86 {

/// Defines both in `module`, hidden; the linker drops what nobody calls. The bits are those of
/// compiler/support/DType.h.
Status addHalfConversions(llvm::Module &module);

} // namespace quern::x86
