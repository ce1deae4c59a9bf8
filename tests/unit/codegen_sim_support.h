// What the tests of codegen/sim share: modules from text, device code through clang, and a machine of one
// thread that stands in for runtime/sim where a test wants to see the calls themselves.
#pragma once
#include "codegen/sim/LateSplit.h"
#include <string>
#include <vector>

namespace quern::test {

struct SimModuleText {
  std::unique_ptr<llvm::LLVMContext> context;
  std::unique_ptr<llvm::Module> module;
};

/// Parses LLVM IR for the NVPTX target. A text that does not parse ends the test program with its reason.
SimModuleText parseIr(const std::string &text);
/// CUDA C++ -> LLVM IR, as kernels/CMakeLists.txt does it.
SimModuleText compileCuda(const std::string &text);

/// The module after the late split, as text; or the error's text.
std::string splitText(SimModuleText input);
inline std::string splitText(const std::string &ir) { return splitText(parseIr(ir)); }
/// The lines of a function's body.
std::string bodyOf(const std::string &moduleText, const std::string &function);

/// A window of shared memory, and what was called. One thread: tid.x is `thread`.
struct OneThread {
  std::vector<std::string> calls; // "qsim_shared +16 4 store": offset from the base, bytes, kind
  std::vector<float> storedFloats;
  unsigned thread = 0;
  char *base = nullptr; // 1 KiB into a 4 GiB aligned window

  void *reserved = nullptr;

  OneThread();
  ~OneThread();
  /// Functions of this machine for the JIT.
  static std::vector<sim::Symbol> symbols();
  /// Splits, compiles and runs `kernel` once. Errors fail the test.
  void run(SimModuleText input, const std::string &kernel, std::vector<void *> params);
};

} // namespace quern::test
