// Calling a kernel: arguments are matched with the signature, dimensions solved, outputs described, an image
// found or compiled, and run. This is what the Python bindings and the command line use.
#pragma once
#include "compiler/support/Error.h"
#include "compiler/syntax/Ast.h"
#include "runtime/packing/Packed.h"
#include "runtime/routing/DeviceRouting.h"
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
  /// Set instead of the pointers above for a call on a device. Its contents cannot be checked.
  DeviceRouting device = {};
  bool onDevice() const { return device.offsets != nullptr; }
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

namespace gpu {
class Backend;
struct Plan;
using Stream = void *;
} // namespace gpu

/// How a call on a device's host data runs, and what came of it.
struct TargetOptions {
  std::string schedule; // one line, whole or partial; empty: QUERN_GPU_SCHEDULE, else the default
  int repeat = 0;       // timed calls after the first
};
struct TargetReport {
  std::string device, schedule;
  double firstMs = 0;          // the first call with its compilation, without the copies
  std::vector<double> timesMs; // each later call, from an idle device to an idle device
  std::string statistics;      // the simulator's, or ptxas's log
};

/// Counters since the process started.
struct Stats {
  int64_t compilations = 0; // kernels compiled
  int64_t memoryHits = 0;   // calls that found their image in memory
  double compileMs = 0;     // total time spent compiling
  int64_t diskHits = 0;     // kernels that came compiled from the cache's folder
};
Stats stats();

/// A call on a device as far as its signature fixes it (CallSignature.h): arguments matched, outputs
/// described, image found and loaded, tables uploaded. Immutable; found again by Module::prepare.
struct PreparedCall {
  const syntax::Kernel *kernel = nullptr;
  Binding binding;
  std::shared_ptr<const gpu::Plan> plan;
  bool mayGiveWay = false; // nobody named the schedule: without memory for it the default runs
};

/// A loaded .qn text. Thread safe; images are kept for the life of the process.
class Module {
public:
  static Expected<std::shared_ptr<Module>> load(std::string_view text, std::string_view fileName);
  const syntax::Program &program() const;
  /// Runs `kernel` on the CPU target. Outputs must match bindArguments(...).outputs and be contiguous; they
  /// are fully written. Nothing is written when an error is returned.
  Status run(const syntax::Kernel &kernel, const std::vector<Arg> &args,
             const std::vector<TensorView> &outputs);
  /// The same on a device: every pointer, the routing's too, is a device address, packed operands are in the
  /// gpu layout. Asynchronous on `stream` (gpu/Execute.h); `schedule` as in TargetOptions.
  Status runOnDevice(gpu::Backend &backend, gpu::Stream stream, const syntax::Kernel &kernel,
                     const std::vector<Arg> &args, const std::vector<TensorView> &outputs,
                     const std::string &schedule = "", TargetReport *report = nullptr);
  /// The first half of runOnDevice: all that is known before outputs are allocated. A call whose like was
  /// prepared before costs no check and no compilation; any other may compile, and waits for uploads.
  Expected<std::shared_ptr<const PreparedCall>> prepare(gpu::Backend &backend, gpu::Stream stream,
                                                        const syntax::Kernel &kernel,
                                                        const std::vector<Arg> &args,
                                                        const std::string &schedule = "");
  /// The second half. Where the memory that a tuned schedule takes for decoded weights is gone by now, the
  /// default runs, in this call and its like from then on.
  Status launch(const PreparedCall &call, gpu::Stream stream, const std::vector<Arg> &args,
                const std::vector<TensorView> &outputs);
  /// Host data on target "cpu", "sim" or "cuda": for the last two everything is copied to the device, routed
  /// and re-tiled there, run, and copied back. For tests and the command line. A device routing that differs
  /// from the host's, and writes beside an output, are internal errors.
  Status runOn(const std::string &target, const syntax::Kernel &kernel, const std::vector<Arg> &args,
               const std::vector<TensorView> &outputs, const TargetOptions &options = {},
               TargetReport *report = nullptr);

private:
  struct Impl;
  std::shared_ptr<Impl> impl;
};

} // namespace quern
