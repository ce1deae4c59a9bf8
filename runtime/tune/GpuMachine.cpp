// A CUDA device or the simulator, through the same launches that a call makes.
#include "compiler/syntax/Syntax.h"
#include "runtime/cache/Digest.h"
#include "runtime/driver/ToolIdentity.h"
#include "runtime/gpu/DeviceCopies.h"
#include "runtime/launch/Images.h"
#include "runtime/tune/Machine.h"
#include "runtime/tune/Problem.h"
#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace quern::tune {
namespace {

using Clock = std::chrono::steady_clock;

class GpuMachine final : public Machine {
  gpu::Backend &backend;
  gpu::Stream stream = nullptr;
  std::unique_ptr<gpu::Timer> timer;
  jit::Request request;
  std::shared_ptr<Module> module; // of the problem's program, printed
  const syntax::Kernel &kernel;
  std::map<std::string, std::string> lines; // as asked for -> the whole line
  std::map<std::string, uint64_t> decoded;  // as asked for -> bytes of decoded weights
  int64_t experts = 1;
  gpu::DeviceCopies arguments;

  /// A case on the device.
  struct Placed {
    const Case *which = nullptr;
    std::vector<Arg> args;
    gpu::DeviceCopies outputs;
  };
  std::deque<Placed> placed;

  Placed &find(const Case &which) {
    return *std::ranges::find_if(placed, [&](const Placed &p) { return p.which == &which; });
  }
  Status launch(const std::string &schedule, Placed &on) {
    auto line = lines.find(schedule);
    return module->runOnDevice(backend, stream, kernel, on.args, on.outputs.outputs,
                               line == lines.end() ? schedule : line->second);
  }

public:
  GpuMachine(gpu::Backend &backend, std::unique_ptr<gpu::Timer> timer, jit::Request request,
             std::shared_ptr<Module> module, const syntax::Kernel &kernel)
      : backend(backend), timer(std::move(timer)), request(std::move(request)), module(std::move(module)),
        kernel(kernel), arguments(backend, kernel) {}

  uint64_t decodedBytes(const std::string &schedule) override {
    auto found = decoded.find(schedule);
    return found == decoded.end() ? 0 : found->second;
  }
  DeviceIdentity identity() override { return identityOf(backend); }
  uint64_t freeBytes() override { return timer->freeBytes(); }

  Status place(Data &data) override {
    if (kernel.routing >= 0)
      experts = std::get<RoutingView>(data.of(Skew::Uniform).args[size_t(kernel.routing)]).experts;
    // Both timed cases have the same arguments but for the routing.
    for (Case &c : data.cases) {
      Placed &on = placed.emplace_back(Placed{&c, {}, gpu::DeviceCopies(backend, kernel)});
      bool shares = &c == &data.of(Skew::Zipf);
      for (size_t i = 0; i < c.args.size(); ++i) {
        if (shares && int(i) != kernel.routing) {
          on.args.push_back(find(data.of(Skew::Uniform)).args[i]);
          continue;
        }
        auto sent = arguments.send(c.args[i]);
        if (!sent) return sent.takeError();
        on.args.push_back(std::move(*sent));
      }
      if (Status ok = on.outputs.allocateOutputs(c.views); !ok) return ok;
    }
    return backend.synchronize(stream);
  }

  Expected<Compiled> compile(const std::string &schedule) override {
    jit::Request full = request;
    full.schedule = schedule;
    auto image = gpuImage(full);
    if (!image) return image.takeError();
    const jit::GpuImage &made = **image;
    lines[schedule] = made.schedule;
    for (const jit::DecodeStep &step : made.decode)
      decoded[schedule] = uint64_t(step.bytesPerExpert() * (step.byExpert ? experts : 1));
    Compiled compiled{made.schedule, "", ""};
    const std::string &code = made.cubin.empty() ? made.ptx : made.cubin;
    if (!code.empty()) compiled.digest = cache::hex(cache::digest(code)).substr(0, 16);
    if (request.target == "sm_90a") compiled.assembler = "ptxas " + driver::ptxasInUse();
    return compiled;
  }

  Status run(const std::string &schedule, Case &which) override {
    which.fill();
    Placed &on = find(which);
    if (Status ok = on.outputs.freshOutputs(); !ok) return ok;
    if (Status ok = launch(schedule, on); !ok) return ok;
    return on.outputs.fetchOutputs(which.views);
  }

  Expected<double> sample(const std::string &schedule, Case &which, Policy policy) override {
    Placed &on = find(which);
    if (Status ok = timer->flush(stream); !ok) return ok.takeError();
    if (policy == Policy::Call) {
      if (Status ok = backend.synchronize(stream); !ok) return ok.takeError();
      auto start = Clock::now();
      if (Status ok = launch(schedule, on); !ok) return ok.takeError();
      if (Status ok = backend.synchronize(stream); !ok) return ok.takeError();
      return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    }
    if (Status ok = timer->start(stream); !ok) return ok.takeError();
    if (Status ok = launch(schedule, on); !ok) return ok.takeError();
    if (Status ok = timer->stop(stream); !ok) return ok.takeError();
    return timer->microseconds();
  }

  Expected<std::vector<std::pair<double, double>>> coldAndWarm() override {
    std::vector<std::pair<double, double>> pairs;
    uint64_t size = timer->cacheBytes() / 8;
    if (!size) return pairs;
    auto from = gpu::DeviceMemory::allocate(backend, int64_t(size), stream);
    auto to = gpu::DeviceMemory::allocate(backend, int64_t(size), stream);
    if (!from) return from.takeError();
    if (!to) return to.takeError();
    auto copy = [&](bool timed) -> Expected<double> {
      if (timed)
        if (Status ok = timer->start(stream); !ok) return ok.takeError();
      if (Status ok = timer->copy(to->data(), from->data(), size, stream); !ok) return ok.takeError();
      if (!timed) return 0.0;
      if (Status ok = timer->stop(stream); !ok) return ok.takeError();
      return timer->microseconds();
    };
    for (int i = 0; i < 7; ++i) {
      if (Status ok = timer->flush(stream); !ok) return ok.takeError();
      auto cold = copy(true);
      if (!cold) return cold.takeError();
      // Queued behind copies, so that it is not the host's time that is seen.
      for (int n = 0; n < 3; ++n)
        if (auto before = copy(false); !before) return before.takeError();
      auto warm = copy(true);
      if (!warm) return warm.takeError();
      pairs.emplace_back(*cold, *warm);
    }
    return pairs;
  }

  gpu::Clocks clocks() override { return timer->clocks(); }
};

} // namespace

Expected<std::unique_ptr<Machine>> makeGpuMachine(const Problem &problem) {
  auto request = requestOf(problem);
  if (!request) return request.takeError();
  auto backend = problem.target == "sim" ? gpu::simBackend() : gpu::cudaBackend(problem.ordinal);
  if (!backend) return backend.takeError();
  if ((*backend)->arch() != archOf(problem))
    return Error::user(fmt::format("{} is not of the architecture {}", (*backend)->name(), archOf(problem)),
                       "tune");
  auto timer = (*backend)->timer();
  if (!timer) return timer.takeError();
  auto module = Module::load(syntax::print(*problem.program), problem.program->fileName);
  if (!module) return module.takeError();
  const syntax::Kernel *kernel = (*module)->program().findKernel(problem.kernel);
  request->program = &(*module)->program();
  return std::unique_ptr<Machine>(
      std::make_unique<GpuMachine>(**backend, std::move(*timer), std::move(*request), *module, *kernel));
}

} // namespace quern::tune
