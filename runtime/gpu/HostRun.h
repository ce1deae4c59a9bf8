// A call on a device with data that lie on the host: copies, the device's own routing and re-tiling, guards.
#pragma once
#include "runtime/gpu/Backend.h"
#include "runtime/launch/Kernel.h"

namespace quern::gpu {

/// The backend of a target's name: "sim", or "cuda" (device 0).
Expected<Backend *> targetBackend(const std::string &target);

/// See Module::runOn; the arguments have been matched with the kernel.
Status runOnHostData(Module &module, const std::string &target, const syntax::Kernel &kernel,
                     const std::vector<Arg> &args, const std::vector<TensorView> &outputs,
                     const TargetOptions &options, TargetReport *report);

} // namespace quern::gpu
