// The simulator's side of the late split: an NVPTX module becomes host code that calls runtime/sim.
//
// The module is what would go to PTX: LLVM IR after the NVPTX optimisation pipeline, from a .qn kernel (calls
// of `q.` functions, codegen/gpu/Primitives.h) or from clang (kernels/*.cu). Each primitive, NVVM intrinsic
// and access of global or shared memory becomes a call of a `qsim_` function (runtime/sim/Sim.h); arithmetic
// and control flow stay. So LLVM's own reordering is under test too. What is not known (a `q.` name, an
// intrinsic, inline asm, a function without a body) is an internal error that names it: nothing is skipped in
// silence.
//
// Pointers: an addrspace(3) pointer is a host pointer into a 4 GiB aligned window, so its low 32 bits are the
// shared address. Accesses of addrspace(1) and (3) are checked as what they are; a generic pointer is traced
// to its object, and where that says nothing, it is shared if it points into the window, else global. Locals,
// by-value parameters and constants need no check.
#pragma once
#include "compiler/support/Error.h"
#include "runtime/sim/Sim.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/IR/Module.h"
#include <memory>
#include <string_view>

namespace quern::sim {

/// Rewrites every kernel of the module (functions of calling convention ptx_kernel) and adds
/// `void <kernel>_entry(void **params)`, which runs one thread: params[i] points at parameter i, as
/// cuLaunchKernel takes it. Device functions are inlined. The result targets the host.
Status lateSplit(llvm::Module &module);

/// Native code of a split module.
class SimModule {
public:
  /// Splits and compiles. `symbols` are sim::symbols(). Takes the module and its context. Thread safe.
  static Expected<std::shared_ptr<SimModule>> load(std::unique_ptr<llvm::Module> module,
                                                   std::unique_ptr<llvm::LLVMContext> context,
                                                   llvm::ArrayRef<Symbol> symbols);
  /// `<kernel>_entry`; an unknown kernel is an internal error. Valid while this lives.
  Expected<void (*)(void **params)> entry(std::string_view kernel);
  ~SimModule();

private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};

/// One kernel of a module; its code is mapped while `code` lives.
struct SimCode {
  void (*entry)(void **params) = nullptr;
  std::shared_ptr<void> code;
};
Expected<SimCode> loadSim(std::unique_ptr<llvm::Module> module, std::unique_ptr<llvm::LLVMContext> context,
                          std::string_view kernel, llvm::ArrayRef<Symbol> symbols);

} // namespace quern::sim
