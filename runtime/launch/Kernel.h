// Calling a kernel: arguments are matched with the signature, dimensions solved, outputs described, an image
// found or compiled, and run. This is what the Python bindings and the command line use.
#pragma once
#include "compiler/support/Error.h"
#include "compiler/syntax/Ast.h"
#include "runtime/packing/Packed.h"
#include "runtime/routing/Routing.h"
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace quern {

/// A strided tensor view; strides in elements, any sign or zero allowed for inputs.
struct TensorView {
  void *data = nullptr;
  DType dtype = DType::F32;
  std::vector<int64_t> shape, strides;
};

/// A routing by pointers (contents as in Routing).
struct RoutingView {
  int64_t tokens = 0, experts = 0, topK = 0;
  const int64_t *offsets = nullptr, *rowToken = nullptr;
  const float *rowWeight = nullptr;
};

using Arg = std::variant<TensorView, PackedView, RoutingView, double>;

/// Shape and dtype an output must have.
struct OutputSpec {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
};

/// Arguments matched with a signature.
struct Binding {
  std::map<std::string, int64_t> dims; // every symbol, and R with routing
  DType act = DType::F32;              // the dtype variable; F32 when the kernel has none
  std::vector<OutputSpec> outputs;
};

/// Matches `args` (in parameter order) with `kernel`: ranks, dtypes, codecs, every dimension solved and
/// consistent. Errors are user errors with place "argument 'x'" and say what was found and what was expected.
Expected<Binding> bindArguments(const syntax::Program &program, const syntax::Kernel &kernel,
                                const std::vector<Arg> &args);

/// Counters since the process started.
struct Stats {
  int64_t compilations = 0; // kernels compiled
  int64_t memoryHits = 0;   // calls that found their image in memory
  double compileMs = 0;     // total time spent compiling
};
Stats stats();

/// A loaded .qn text. Thread safe; images are kept for the life of the process.
class Module {
public:
  static Expected<std::shared_ptr<Module>> load(std::string_view text, std::string_view fileName);
  const syntax::Program &program() const;
  /// Runs `kernel` on the CPU target. Outputs must match bindArguments(...).outputs and be contiguous; they
  /// are fully written. Nothing is written when an error is returned.
  Status run(const syntax::Kernel &kernel, const std::vector<Arg> &args,
             const std::vector<TensorView> &outputs);

private:
  struct Impl;
  std::shared_ptr<Impl> impl;
};

} // namespace quern
