// See HostRun.h. Nothing here is fast; the routes that a caller with device data takes (routing, re-tiling in
// place, Module::runOnDevice) are the ones taken here, so that whoever checks this checks those.
#include "runtime/gpu/HostRun.h"
#include "runtime/gpu/DeviceCopies.h"
#include "runtime/gpu/SimBackend.h"
#include <chrono>
#include <fmt/format.h>

namespace quern::gpu {
namespace {

double msSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

/// The first call, and the repeated ones.
Status runCopies(Module &module, Backend &backend, const syntax::Kernel &kernel, const std::vector<Arg> &args,
                 const std::vector<TensorView> &outputs, const TargetOptions &options, TargetReport &report) {
  DeviceCopies copies(backend, kernel);
  Stream stream = nullptr;
  std::vector<Arg> sent;
  for (const Arg &arg : args) {
    auto moved = copies.send(arg);
    if (!moved) return moved.takeError();
    sent.push_back(std::move(*moved));
  }
  if (Status ok = copies.allocateOutputs(outputs); !ok) return ok;
  report.device = backend.name();
  for (int call = 0; call <= options.repeat; ++call) {
    if (Status ok = copies.freshOutputs(); !ok) return ok;
    if (Status ok = backend.synchronize(stream); !ok) return ok;
    auto start = std::chrono::steady_clock::now();
    if (Status ok =
            module.runOnDevice(backend, stream, kernel, sent, copies.outputs, options.schedule, &report);
        !ok)
      return ok;
    if (Status ok = backend.synchronize(stream); !ok) return ok;
    double ms = msSince(start);
    call ? report.timesMs.push_back(ms) : void(report.firstMs = ms);
  }
  return copies.fetchOutputs(outputs);
}

} // namespace

Expected<Backend *> targetBackend(const std::string &target) {
  if (target == "sim") return simBackend();
  if (target == "cuda") return cudaBackend(0);
  return Error::user(fmt::format("found '{}', expected cpu, sim or cuda", target), "target");
}

Status runOnHostData(Module &module, const std::string &target, const syntax::Kernel &kernel,
                     const std::vector<Arg> &args, const std::vector<TensorView> &outputs,
                     const TargetOptions &options, TargetReport *report) {
  auto backend = targetBackend(target);
  if (!backend) return backend.takeError();
  TargetReport unused;
  if (!report) report = &unused;
  Status ok = runCopies(module, **backend, kernel, args, outputs, options, *report);
  if (ok && target == "sim") report->statistics = simStats().str();
  return ok;
}

} // namespace quern::gpu
