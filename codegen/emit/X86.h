// LLVM IR -> optimised IR -> an object file for an x86-64 CPU, and its assembly for reading.
#pragma once
#include "compiler/support/Error.h"
#include "llvm/IR/Module.h"
#include "llvm/Target/TargetMachine.h"
#include <memory>
#include <string>

namespace quern::x86 {

/// The processor whose costs the code is tuned for, from the features alone.
llvm::StringRef tunedFor(llvm::StringRef features);

/// A target machine for exactly these features.
Expected<std::unique_ptr<llvm::TargetMachine>> createTarget(const std::string &features);

/// Sets triple, layout and function attributes, then runs the O2 pipeline without the vectorisers: the
/// vectors are ours.
void optimize(llvm::Module &module, llvm::TargetMachine &target, const std::string &features);

/// Assembly text.
Expected<std::string> assembly(llvm::Module &module, llvm::TargetMachine &target);

/// An object file (ELF, position independent) that needs nothing but the C library. Adds to the module what
/// LLVM may call: HalfConversion.h.
Expected<std::string> object(llvm::Module &module, llvm::TargetMachine &target);

} // namespace quern::x86
