// Optimised LLVM IR -> PTX text.
#pragma once
#include "compiler/support/Error.h"
#include <string>

namespace llvm {
class Module;
class TargetMachine;
} // namespace llvm

namespace quern::nvptx {

/// PTX of a module whose primitives are realised (codegen/nvidia). Launch facts come from the kernel's
/// function attributes, as LLVM's NVPTX guide names them: nvvm.reqntid, nvvm.maxntid, nvvm.minctasm,
/// nvvm.cluster_dim, nvvm.maxnreg. ptxas ignores setmaxnreg (C7508) unless the block's size is known.
/// What LLVM's code generator refuses is an internal error with its words. Changes the module.
Expected<std::string> emitPtx(llvm::Module &module, llvm::TargetMachine &target);

} // namespace quern::nvptx
