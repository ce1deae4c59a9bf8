// Running a generated kernel on a device: the counterpart of runtime/launch/Execute.h. What the shapes of a
// call fix is planned once; a launch then looks at addresses only.
#pragma once
#include "runtime/gpu/DeviceCode.h"
#include "runtime/launch/Kernel.h"

namespace quern::gpu {

/// A kernel on a device for calls of one signature (runtime/launch/CallSignature.h). Immutable.
struct Plan {
  Backend *backend = nullptr;
  const jit::GpuImage *image = nullptr;
  LoadedKernel *loaded = nullptr;
  const syntax::Kernel *kernel = nullptr;
  int64_t rows = 0, experts = 1;         // allocated rows R (dense: rows); E (dense: 1)
  const int32_t *denseOffsets = nullptr; // on the device; null with routing
  std::vector<const void *> tables;      // for each parameter of the image, its table of addresses, or null
  PackedTables decodeTables;             // of the operand that is decoded before the kernel
  int64_t decodedBytes = 0;              // of the workspace that takes its weights; 0: nothing is decoded
  LaunchConfig config;
};

/// Plans the calls that differ from this one in nothing but addresses of tensors, contents of the routing,
/// and scalars. Uploads the tables of packed operands' addresses that are new, and waits for these (Memory.h,
/// deviceConstant): not for a graph capture.
Expected<Plan> makePlan(Backend &backend, Stream stream, const jit::GpuImage &image, LoadedKernel *loaded,
                        const syntax::Kernel &kernel, const Binding &binding, const std::vector<Arg> &args);

/// Whether the device has room for the decoded weights that calls of this plan want (jit::DecodeStep); they
/// are asked for and given back. No answer, which counts as yes, while a graph is captured.
Status hasRoom(const Plan &plan, Stream stream);

/// Runs a call. Every pointer in `args` and `outputs` is a device address, the routing is a device routing;
/// packed operands are in the layout that the image was compiled for. Outputs are contiguous and fully
/// written. Everything is put on `stream`; nothing waits for the device. Workspaces are taken from and given
/// back to the stream: activations that must be gathered, converted or copied, the first factors of low-rank
/// contractions, decoded weights (jit::DecodeStep), and one f32 [R, N] for each combine. After an error
/// `launched`, if given, says whether anything was put on the stream before it: not when a workspace could
/// not be had.
Status execute(const Plan &plan, Stream stream, const std::vector<Arg> &args,
               const std::vector<TensorView> &outputs, bool *launched = nullptr);

} // namespace quern::gpu
