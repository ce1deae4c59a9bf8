// LLVM's target for Hopper and its optimisation pipeline: what PTX and the simulator share. Both sides of the
// late split (codegen/nvidia, codegen/sim) start from the module that `optimize` leaves.
#pragma once
#include "compiler/support/Error.h"
#include "llvm/IR/Module.h"
#include "llvm/Target/TargetMachine.h"
#include <memory>

namespace quern::nvptx {

/// PTX ISA 8.3 is the oldest with everything that Primitives.h names, so that drivers from CUDA 12.3 on can
/// take the text.
inline constexpr const char *triple = "nvptx64-nvidia-cuda", *arch = "sm_90a", *isa = "+ptx83";

/// The target machine. It never forms an FMA out of a product and a sum that did not allow it: what is to be
/// fused is written as llvm.fma, so that a GPU and the simulator round alike.
Expected<std::unique_ptr<llvm::TargetMachine>> createTarget();

/// Sets triple and layout. To be called before a module is filled (translated, built by hand): the layout
/// gives accesses their default alignment, and an i64 without it is loaded in two halves.
void setTarget(llvm::Module &module, const llvm::TargetMachine &target);

/// Gives the primitives their attributes (setPrimitiveAttributes), then runs the O3 pipeline. An unknown `q.`
/// function, or a module that LLVM's verifier refuses, is an internal error.
Status optimize(llvm::Module &module, llvm::TargetMachine &target);

} // namespace quern::nvptx
