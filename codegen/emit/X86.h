// LLVM IR -> optimised IR -> machine code for an x86-64 CPU, and its assembly for reading.
#pragma once
#include "compiler/support/Error.h"
#include "llvm/IR/Module.h"
#include "llvm/Target/TargetMachine.h"
#include <memory>
#include <string>

namespace quern::x86 {

/// A target machine for exactly these features (tuned for the host).
Expected<std::unique_ptr<llvm::TargetMachine>> createTarget(const std::string &features);

/// Sets triple, layout and function attributes, then runs the O2 pipeline without the vectorisers: the
/// vectors are ours.
void optimize(llvm::Module &module, llvm::TargetMachine &target, const std::string &features);

/// Assembly text.
Expected<std::string> assembly(llvm::Module &module, llvm::TargetMachine &target);

/// Native code in memory for the life of the process.
class Loaded {
public:
  /// Takes the module and its context. `optimize` must have run.
  static Expected<std::shared_ptr<Loaded>> load(std::unique_ptr<llvm::Module> module,
                                                std::unique_ptr<llvm::LLVMContext> context,
                                                const std::string &features);
  /// Address of a function, or an internal error.
  Expected<void *> lookup(const std::string &symbol);
  ~Loaded();

private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};

} // namespace quern::x86
