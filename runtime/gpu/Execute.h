// Running a generated kernel on a device: the counterpart of runtime/launch/Execute.h.
#pragma once
#include "runtime/gpu/Backend.h"
#include "runtime/launch/Kernel.h"

namespace quern::gpu {

/// Runs `image` (loaded as `loaded`) for a bound call. Every pointer in `args` and `outputs` is a device
/// address, the routing is a device routing; packed operands are in the layout that the image was compiled
/// for. Outputs are contiguous and fully written. Everything is put on `stream`; nothing waits for the
/// device, except that tables of new pointers are uploaded once (see deviceConstant). Workspaces are taken
/// from and given back to the stream: activations that must be gathered, converted or copied, the first
/// factors of low-rank contractions, and one f32 [R, N] for each combine.
Status execute(Backend &backend, Stream stream, const jit::GpuImage &image, LoadedKernel *loaded,
               const syntax::Kernel &kernel, const Binding &binding, const std::vector<Arg> &args,
               const std::vector<TensorView> &outputs);

} // namespace quern::gpu
