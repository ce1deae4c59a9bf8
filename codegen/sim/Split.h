// The steps of the late split (LateSplit.h), in order.
#pragma once
#include "compiler/support/Error.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/Module.h"
#include <string>

namespace quern::sim {

/// Emits calls of the simulator's functions. Pointers cross as generic pointers.
class Runtime {
  llvm::Module &module;

public:
  llvm::Type *const voidType, *const i32, *const f32;
  llvm::PointerType *const pointer;

  explicit Runtime(llvm::Module &module);

  llvm::CallInst *call(llvm::IRBuilder<> &b, llvm::StringRef name, llvm::Type *result,
                       llvm::ArrayRef<llvm::Value *> operands) const;
  /// The same for a function of its operands and the thread alone.
  llvm::CallInst *pure(llvm::IRBuilder<> &b, llvm::StringRef name, llvm::Type *result,
                       llvm::ArrayRef<llvm::Value *> operands) const;
  /// The base of the CTA's dynamic shared memory.
  llvm::Value *sharedBase(llvm::IRBuilder<> &b) const;
};

/// An instruction as text, for errors.
std::string text(const llvm::Value &value);

/// NVVM intrinsics; refuses every other call but those of primitives.
Status splitIntrinsics(llvm::Function &kernel, const Runtime &runtime);
/// qsim_global, qsim_shared, qsim_atomic and qsim_store_f32 before accesses.
Status checkMemory(llvm::Function &kernel, const Runtime &runtime);
/// Calls of `q.` functions; register lists cross through memory of the thread.
Status splitPrimitives(llvm::Function &kernel, const Runtime &runtime);
/// Shared variables get their place in the window, and so do integers that become shared pointers.
Status placeShared(llvm::Module &module, const Runtime &runtime);

} // namespace quern::sim
