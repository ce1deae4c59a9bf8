// One kernel with a schedule and data, compiled by the compiler's own list of passes, with a change planted
// on the way, and run on the simulator against the fp64 oracle.
#pragma once
#include "codegen/sim/LateSplit.h"
#include "mlir/IR/BuiltinOps.h"
#include "runtime/jit/Jit.h"
#include "tests/sim/Device.h"
#include "tests/unit/jit_support.h"
#include <functional>

namespace quern::simtest {

/// What is run: a shipped kernel, its schedule (over the default) and shapes.
struct Subject {
  const char *name;
  const char *source, *kernel, *schedule;
  std::map<std::string, int64_t> dims;
  std::vector<int64_t> rowsPerExpert; // empty: a dense kernel
  bool reversed = false;              // the rows of an expert in descending order of tokens
  bool exact = false;                 // data on which the fast mode rounds nothing
};

/// A change of the module, made when the pass of this argument has run ("expand-multiply"; "generate-tile"
/// for the tile stage itself).
struct Planted {
  const char *after = "";
  std::function<void(mlir::ModuleOp)> change;
};

/// What one run showed.
struct Outcome {
  std::vector<std::string> issues; // the simulator's: "[race] CTA 0, consumer warp 4 lane 0: ..."
  std::string wrong;               // "", or the oracle's verdict
  bool clean() const { return issues.empty() && wrong.empty(); }
  std::string str() const;
};

class Rig {
  jittest::Call call; // inputs; the routing's and packed operands' pointers are read as a device's
  std::vector<Arg> args;
  std::vector<int64_t> reversed; // rowToken
  std::vector<int32_t> offsets, rowToken, inverse;
  std::vector<float> rowWeight;
  Binding binding;
  jit::Request request;
  jit::GpuImage image;
  std::string scheduled; // the text of that stage
  std::vector<oracle::Output> expected;

  static jittest::Case describe(const Subject &subject, uint64_t dataSeed);
  Status prepare(const Subject &subject, const Rig *compiled);
  void reverseRows();
  void routingToDevice();

public:
  /// `compiled`: a rig of the same kernel, N, K and schedule, whose code is this one's too.
  Rig(const Subject &subject, uint64_t dataSeed, const Rig *compiled = nullptr);
  Status status; // why the rest cannot be used

  /// The module at the late split: LLVM IR after the NVPTX pipeline.
  struct Lowered {
    std::unique_ptr<llvm::LLVMContext> context;
    std::unique_ptr<llvm::Module> module;
  };
  Expected<Lowered> lower(const Planted *planted = nullptr) const;
  Expected<sim::SimCode> load(Lowered lowered) const;
  /// Runs the kernel's code. An error is a failure of the test's own parts.
  Expected<Outcome> run(void (*entry)(void **params), const sim::Options &options);
};

} // namespace quern::simtest
