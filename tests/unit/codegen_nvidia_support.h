// What the tests of the NVPTX side share: a target, kernels built by hand, and ptxas.
#pragma once
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/Module.h"
#include "llvm/Target/TargetMachine.h"
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace quern::test {

/// The target machine of codegen/gpu/OptimizeNvptx.h.
std::unique_ptr<llvm::TargetMachine> hopperTarget();

/// A kernel `name(ptr addrspace(1) out, operands...)` under construction, in a module of its own.
struct KernelUnderTest {
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> module;
  llvm::Function *function = nullptr;
  std::unique_ptr<llvm::IRBuilder<>> builder;
  llvm::GlobalVariable *shared = nullptr; // extern shared memory

  explicit KernelUnderTest(llvm::TargetMachine &target, std::vector<char> letters = {});
  /// Kernel parameter i after `out`; for letter 's' a shared address made of an i32 parameter.
  llvm::Value *operand(unsigned i);
  /// Calls primitive `name` (with "q."), declared with the type its name asks for.
  llvm::CallInst *call(const std::string &name, std::vector<llvm::Value *> operands);
  /// Calls primitive `name` with operands loaded from memory, and stores its results.
  void callWithLoads(const std::string &name);
  /// Loads the value of `type` at element `index` of `out`.
  llvm::Value *load(llvm::Type *type, int64_t index);
  void store(llvm::Value *value, int64_t index);
  void finish() { builder->CreateRetVoid(); }

private:
  std::vector<char> letters;
};

struct PtxasResult {
  bool ok = false;
  std::string log; // ptxas -v, or what it refuses
};
/// Runs ptxas for sm_90a; nullopt when this machine has none.
std::optional<PtxasResult> runPtxas(const std::string &ptx);
constexpr const char *noPtxas =
    "no ptxas on this machine (quern finds it in QUERN_PTXAS, the toolkit, the PATH, pip's wheels)";

} // namespace quern::test
