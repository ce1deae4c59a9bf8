// Module: images by request, and the run of one call: slots, segments, batches, parallel phases.
#include "compiler/syntax/Syntax.h"
#include "runtime/cache/Notice.h"
#include "runtime/gpu/Execute.h"
#include "runtime/gpu/HostRun.h"
#include "runtime/launch/CallSignature.h"
#include "runtime/launch/Execute.h"
#include "runtime/launch/Images.h"
#include "runtime/launch/Request.h"
#include "runtime/tune/Tuning.h"
#include <atomic>
#include <fmt/format.h>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace quern {

namespace {
std::atomic<int64_t> memoryHits{0};
} // namespace

Stats stats() {
  ImageStats images = imageStats();
  return {images.compilations, memoryHits.load() + images.memoryHits, images.compileUs / 1000.0,
          images.diskHits};
}

/// Images by request. Images.h sees to it that each is made once; two threads that miss together get the
/// same.
template <class Image> class ImageTable {
  std::shared_mutex mutex;
  std::unordered_map<std::string, Image> images;

  const Image *find(const std::string &key) {
    std::shared_lock lock(mutex);
    auto found = images.find(key);
    return found == images.end() ? nullptr : &found->second; // entries stay where they are
  }

public:
  /// The entry for `key`; `make` gives it at the first miss, without a lock. The first one stays.
  template <class Make> Expected<Image> get(const std::string &key, Make make) {
    if (const Image *hit = find(key)) {
      memoryHits.fetch_add(1, std::memory_order_relaxed);
      return *hit;
    }
    Expected<Image> made = make();
    if (!made) return made;
    std::unique_lock lock(mutex);
    return images.emplace(key, *made).first->second;
  }
};

/// A GPU image and the kernel that a device made of it.
struct DeviceImage {
  const jit::GpuImage *image = nullptr;
  gpu::LoadedKernel *loaded = nullptr;
};

/// Prepared calls by signature. A process that never repeats a shape must not grow without bound: at the
/// limit the table starts anew, which costs each live shape one more preparation.
class DeviceCalls {
  static constexpr size_t limit = 4096;
  std::shared_mutex mutex;
  std::unordered_map<CallSignature, std::shared_ptr<const PreparedCall>, CallSignatureHash> calls;

public:
  std::shared_ptr<const PreparedCall> find(const CallSignature &signature) {
    std::shared_lock lock(mutex);
    auto found = calls.find(signature);
    return found == calls.end() ? nullptr : found->second;
  }
  /// The first one stays, unless it is to be replaced.
  std::shared_ptr<const PreparedCall> keep(const CallSignature &signature, PreparedCall call,
                                           bool replace = false) {
    std::unique_lock lock(mutex);
    if (calls.size() >= limit) calls.clear();
    auto &kept = calls[signature];
    if (!kept || replace) kept = std::make_shared<const PreparedCall>(std::move(call));
    return kept;
  }
};

struct Module::Impl {
  std::shared_ptr<const syntax::Program> program;
  ImageTable<const jit::CpuImage *> cpuImages;
  ImageTable<DeviceImage> deviceImages;
  DeviceCalls deviceCalls;

  Expected<const jit::CpuImage *> image(const jit::Request &request) {
    return cpuImages.get(requestKey(request), [&] {
      return withTuned(request, tune::cpuIdentity(), [](const jit::Request &r) { return cpuImage(r); });
    });
  }

  /// `tuned` false: the default, whatever was tuned.
  Expected<DeviceImage> image(gpu::Backend &backend, gpu::Stream stream, const jit::Request &request,
                              bool tuned = true) {
    std::string key =
        fmt::format("{} {}{}", fmt::ptr(&backend), tuned ? "" : "default ", requestKey(request));
    return deviceImages.get(key, [&]() -> Expected<DeviceImage> {
      if (Status ok = backend.mayLoad(request.kernel, stream); !ok) return ok.takeError();
      if (!tuned) return loaded(backend, request);
      return withTuned(request, tune::identityOf(backend),
                       [&](const jit::Request &r) { return loaded(backend, r); });
    });
  }

  /// The plan of the default schedule, in place of a tuned one that has no room for decoded weights.
  Expected<gpu::Plan> withoutDecoded(const gpu::Plan &tuned, gpu::Stream stream, const jit::Request &request,
                                     const Binding &binding, const std::vector<Arg> &args,
                                     const Error &reason) {
    cache::notice(
        "tuned schedule",
        fmt::format("kernel '{}': the tuned schedule '{}' wants {} MB for decoded weights, the default "
                    "is used: {}",
                    request.kernel, tuned.image->schedule, tuned.decodedBytes >> 20, reason.message));
    auto found = image(*tuned.backend, stream, request, false);
    if (!found) return found.takeError();
    return gpu::makePlan(*tuned.backend, stream, *found->image, found->loaded, *tuned.kernel, binding, args);
  }

private:
  /// By the schedule that was tuned for the request, where there is one; one that does not work gives way to
  /// the default.
  template <class Make>
  static auto withTuned(const jit::Request &request, const tune::DeviceIdentity &device, Make make)
      -> decltype(make(request)) {
    auto schedule = tune::tunedSchedule(request, device);
    if (!schedule) return make(request);
    jit::Request tuned = request;
    tuned.schedule = *schedule;
    auto made = make(tuned);
    if (made) return made;
    cache::notice("tuned schedule",
                  fmt::format("kernel '{}': the tuned schedule '{}' does not work here, the "
                              "default is used: {}",
                              request.kernel, *schedule, made.error().message));
    return make(request);
  }

  /// An image from the disk that the driver refuses is made anew, once: a wrong program or another driver may
  /// have left it there. What this process has compiled itself would come out the same.
  static Expected<DeviceImage> loaded(gpu::Backend &backend, const jit::Request &request) {
    auto image = gpuImage(request);
    if (!image) return image.takeError();
    std::string refusal;
    auto kernel = backend.load(**image, &refusal);
    if (!refusal.empty() && isFromDisk(*image)) {
      bool again = !isRebuiltTheSame(**image);
      const char *what =
          again ? "does not take the cached image, which is compiled anew"
                : "takes no cubin of this ptxas (one of the driver's CUDA version would do), and "
                  "compiles the PTX in each process";
      cache::notice("refused image",
                    fmt::format("kernel '{}': the driver {}: {}", request.kernel, what, refusal));
      auto fresh = again ? rebuildGpuImage(request, *image) : image;
      if (!fresh && !kernel) return fresh.takeError();
      // The same code would be refused again, and the driver has compiled this PTX already.
      if (fresh && !((*fresh)->cubin == (*image)->cubin && (*fresh)->ptx == (*image)->ptx)) {
        auto better = backend.load(**fresh);
        if (better || !kernel) image = fresh, kernel = std::move(better);
      }
    }
    if (!kernel) return kernel.takeError();
    return DeviceImage{*image, *kernel};
  }
};

Expected<std::shared_ptr<Module>> Module::load(std::string_view text, std::string_view fileName) {
  auto program = syntax::parseProgram(text, fileName);
  if (!program) return program.takeError();
  auto module = std::make_shared<Module>();
  module->impl = std::make_shared<Impl>();
  module->impl->program = *program;
  return module;
}

const syntax::Program &Module::program() const { return *impl->program; }

static Status checkOutputs(const Binding &binding, const std::vector<TensorView> &outputs) {
  if (outputs.size() != binding.outputs.size())
    return Error::internal(
        fmt::format("{} outputs given, {} expected", outputs.size(), binding.outputs.size()));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const OutputSpec &spec = binding.outputs[i];
    std::string place = fmt::format("output '{}'", spec.name);
    if (outputs[i].shape != spec.shape)
      return Error::user(fmt::format("shape [{}], expected [{}]", fmt::join(outputs[i].shape, ", "),
                                     fmt::join(spec.shape, ", ")),
                         place);
    if (outputs[i].dtype != spec.dtype)
      return Error::user(fmt::format("dtype {}, expected {}", name(outputs[i].dtype), name(spec.dtype)),
                         place);
    int64_t stride = 1;
    for (size_t d = spec.shape.size(); d-- > 0;) {
      if (spec.shape[d] > 1 && outputs[i].strides[d] != stride)
        return Error::user("must be contiguous", place);
      stride *= spec.shape[d];
    }
  }
  return {};
}

Status Module::run(const syntax::Kernel &kernel, const std::vector<Arg> &args,
                   const std::vector<TensorView> &outputs) {
  auto binding = bindArguments(*impl->program, kernel, args);
  if (!binding) return binding.takeError();
  if (Status ok = checkOutputs(*binding, outputs); !ok) return ok;
  if (kernel.routing >= 0 && std::get<RoutingView>(args[kernel.routing]).onDevice())
    return Error::user("a routing on a device; expected one on the CPU",
                       fmt::format("argument '{}'", kernel.params[kernel.routing].name));
  auto image = impl->image(makeRequest(*impl->program, kernel, *binding, args));
  if (!image) return image.takeError();
  return execute(**image, kernel, *binding, args, outputs);
}

Expected<std::shared_ptr<const PreparedCall>> Module::prepare(gpu::Backend &backend, gpu::Stream stream,
                                                              const syntax::Kernel &kernel,
                                                              const std::vector<Arg> &args,
                                                              const std::string &schedule) {
  static thread_local CallSignature signature; // keeps its memory: a launch allocates nothing for it
  describeCall(signature, &backend, kernel, args, schedule);
  if (auto found = impl->deviceCalls.find(signature)) {
    memoryHits.fetch_add(1, std::memory_order_relaxed);
    return found;
  }
  PreparedCall call;
  call.kernel = &kernel;
  auto binding = bindArguments(*impl->program, kernel, args);
  if (!binding) return binding.takeError();
  call.binding = std::move(*binding);
  jit::Request request = makeRequest(*impl->program, kernel, call.binding, args, backend.arch());
  if (!schedule.empty()) request.schedule = schedule;
  auto found = impl->image(backend, stream, request);
  if (!found) return found.takeError();
  auto plan = gpu::makePlan(backend, stream, *found->image, found->loaded, kernel, call.binding, args);
  if (!plan) return plan.takeError();
  call.mayGiveWay = request.schedule.empty();
  if (Status room = call.mayGiveWay ? gpu::hasRoom(*plan, stream) : Status(); !room) {
    // Where it was tuned there was memory for the decoded weights; here a model may hold it.
    plan = impl->withoutDecoded(*plan, stream, request, call.binding, args, room.error());
    if (!plan) return plan.takeError();
  }
  call.plan = std::make_shared<const gpu::Plan>(std::move(*plan));
  return impl->deviceCalls.keep(signature, std::move(call));
}

Status Module::runOnDevice(gpu::Backend &backend, gpu::Stream stream, const syntax::Kernel &kernel,
                           const std::vector<Arg> &args, const std::vector<TensorView> &outputs,
                           const std::string &schedule, TargetReport *report) {
  auto call = prepare(backend, stream, kernel, args, schedule);
  if (!call) return call.takeError();
  if (Status ok = checkOutputs((*call)->binding, outputs); !ok) return ok;
  const jit::GpuImage &image = *(*call)->plan->image;
  if (report) report->schedule = image.schedule, report->statistics = image.ptxasLog;
  return launch(**call, stream, args, outputs);
}

Status Module::launch(const PreparedCall &call, gpu::Stream stream, const std::vector<Arg> &args,
                      const std::vector<TensorView> &outputs) {
  const gpu::Plan &plan = *call.plan;
  bool launched = true;
  Status ok = gpu::execute(plan, stream, args, outputs, &launched);
  if (ok || launched || !call.mayGiveWay || !plan.decodedBytes) return ok;
  // A capture loads nothing, and after an error of the device nothing helps.
  if (!plan.backend->mayLoad(call.kernel->name, stream)) return ok;
  jit::Request request = makeRequest(*impl->program, *call.kernel, call.binding, args, plan.backend->arch());
  auto other = impl->withoutDecoded(plan, stream, request, call.binding, args, ok.error());
  if (!other) return other.takeError();
  CallSignature signature;
  describeCall(signature, plan.backend, *call.kernel, args, "");
  PreparedCall instead{call.kernel, call.binding, std::make_shared<const gpu::Plan>(std::move(*other))};
  return gpu::execute(*impl->deviceCalls.keep(signature, std::move(instead), true)->plan, stream, args,
                      outputs);
}

Status Module::runOn(const std::string &target, const syntax::Kernel &kernel, const std::vector<Arg> &args,
                     const std::vector<TensorView> &outputs, const TargetOptions &options,
                     TargetReport *report) {
  if (target == "cpu") return run(kernel, args, outputs);
  auto binding = bindArguments(*impl->program, kernel, args);
  if (!binding) return binding.takeError();
  if (Status ok = checkOutputs(*binding, outputs); !ok) return ok;
  return gpu::runOnHostData(*this, target, kernel, args, outputs, options, report);
}

} // namespace quern
