// `quern explain`: what a schedule makes of a kernel on Hopper, and what it should cost: registers, shared
// memory, the instructions of the main loops, the budget of a step, predicted times.
#include "codegen/gpu/CostModel.h"
#include "codegen/nvidia/Sass.h"
#include "runtime/driver/Ptxas.h"
#include "runtime/launch/Images.h"
#include "tools/CallRequest.h"
#include "tools/Commands.h"
#include "tools/Load.h"
#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <memory>

namespace quern::tools {
namespace {

struct ExplainOptions {
  CallOptions call;
  std::string schedule, device = "h200";
  std::vector<int64_t> rows = {1, 16, 64, 128, 256, 1024};
};

/// The weights that the kernel multiplies by.
Expected<gpu::Workload> workloadOf(const syntax::Kernel &kernel, const jit::Request &request,
                                   const CallOptions &options) {
  auto call = options.resolve();
  if (!call) return call.takeError();
  for (size_t i = 0; i < kernel.params.size(); ++i) {
    const syntax::Param &p = kernel.params[i];
    if (p.kind != syntax::Param::Packed) continue;
    auto size = [&](const syntax::Dim &dim) {
      auto known = request.dims.find(dim.sym);
      auto given = call->dims.find(dim.sym);
      int64_t value = dim.isConstant()              ? 1
                      : known != request.dims.end() ? known->second
                      : given != call->dims.end()   ? given->second
                                                    : 32; // experts that nobody counted
      return dim.mul * value / dim.div;
    };
    gpu::Workload work;
    work.n = size(p.dims[p.dims.size() - 2]), work.k = size(p.dims.back());
    work.experts = p.dims.size() == 3 ? size(p.dims[0]) : 1;
    work.block = request.params[i].block;
    if (!kernel.outputs.empty()) {
      const syntax::Param &out = kernel.outputs[0];
      work.outputBytes = double(byteSize(request.outputs[0].dtype)) * size(out.dims.back()) / work.n;
    }
    return work;
  }
  return Error::user(
      fmt::format("kernel '{}' has no packed operand: there is nothing to schedule", kernel.name),
      options.file);
}

/// Registers and spills, by ptxas' own words; assembles the PTX when the image has no cubin yet.
void showPtxas(jit::GpuImage &image) {
  std::string where;
  if (image.cubin.empty()) {
    auto made = driver::assemble(image.ptx, image.arch);
    if (!made) {
      fmt::print("ptxas       {}\n", made.error().message);
      return;
    }
    image.cubin = std::move(made->cubin), image.ptxasLog = std::move(made->log);
    where = fmt::format(" ({})", made->ptxas.path);
  }
  driver::PtxasReport report = driver::parsePtxasLog(image.ptxasLog);
  for (const driver::PtxasKernel &k : report.kernels)
    fmt::print("ptxas       {} registers at launch, {} bytes spilled, {} barriers{}\n", k.registers,
               k.spillStoreBytes + k.spillLoadBytes, k.barriers, where);
  for (auto *lines : {&report.advisories, &report.warnings})
    for (const std::string &line : *lines) fmt::print("            {}\n", line);
}

gpu::StepCounts countsOf(const nvidia::MainLoop &loop) {
  using nvidia::Pipe;
  auto per = [&](Pipe pipe) { return loop.of(pipe) / loop.steps(); };
  gpu::StepCounts c{per(Pipe::Alu), per(Pipe::Fma), per(Pipe::Shuffle), 0};
  c.other =
      (loop.instructions - loop.of(Pipe::Alu) - loop.of(Pipe::Fma) - loop.of(Pipe::Shuffle)) / loop.steps();
  return c;
}

/// The main loops; empty without a cubin or a disassembler, which is said.
std::vector<nvidia::MainLoop> showLoops(const jit::GpuImage &image) {
  if (image.cubin.empty()) return {};
  auto sass = driver::disassemble(image.cubin);
  if (!sass) {
    fmt::print("main loops  not shown: {}\n", sass.error().message);
    return {};
  }
  auto loops = nvidia::mainLoops(*sass);
  std::ranges::sort(loops, {}, &nvidia::MainLoop::width);
  using nvidia::Pipe;
  constexpr Pipe shown[] = {Pipe::Alu,     Pipe::Fma,  Pipe::Shuffle, Pipe::Memory,
                            Pipe::Uniform, Pipe::Sync, Pipe::Control, Pipe::Other};
  fmt::print("main loops  instructions of a consumer thread for a step of 64 columns\n"
             "            {:>5} {:>6} {:>6}",
             "width", "HGMMA", "all");
  for (Pipe pipe : shown) fmt::print(" {:>7}", nvidia::name(pipe));
  fmt::print("  most frequent\n");
  for (const nvidia::MainLoop &loop : loops) {
    fmt::print("            {:>5} {:>6} {:>6.0f}", loop.width, loop.wgmmas, loop.instructions / loop.steps());
    for (Pipe pipe : shown) fmt::print(" {:>7.1f}", loop.of(pipe) / loop.steps());
    std::vector<std::pair<int64_t, std::string>> most;
    for (auto &[mnemonic, count] : loop.mnemonics) most.emplace_back(count, mnemonic);
    std::ranges::sort(most, std::greater());
    for (size_t i = 0; i < std::min<size_t>(most.size(), 5); ++i)
      fmt::print("{}{} {}", i ? ", " : "  ", most[i].second, most[i].first);
    fmt::print("\n");
  }
  return loops;
}

void showBudget(const gpu::Schedule &schedule, const gpu::Device &device, int64_t scalesPerStep,
                const std::vector<nvidia::MainLoop> &loops) {
  fmt::print("budget      clocks of a multiprocessor for a step of 64 columns ({} at {} GHz, L2 {} TB/s)\n"
             "            {:>5} {:<6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}  limiter\n",
             device.name, device.clockGHz, device.l2TBs, "width", "counts", "tensor", "alu", "issue", "smem",
             "l2", "seam", "step");
  auto row = [&](int64_t width, std::string_view source, const gpu::StepCounts &counts) {
    gpu::StepBudget b = gpu::stepBudget(schedule, width, device, counts, scalesPerStep);
    fmt::print("            {:>5} {:<6} {:>7.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>7.0f} {:>7.0f}  {}\n",
               width, source, b.tensor, b.alu, b.issue, b.smem, b.l2, b.seam, b.clocks(), b.limiter());
  };
  row(schedule.bn, "model", gpu::decodeCounts(schedule.decode));
  for (const nvidia::MainLoop &loop : loops) row(loop.width, "SASS", countsOf(loop));
}

/// What decode=ahead pays before a row is multiplied.
void showDecoding(const gpu::Schedule &schedule, const gpu::Device &device, const gpu::Workload &work) {
  auto p = gpu::predict(schedule, work, device, gpu::decodeCounts(schedule.decode));
  fmt::print("decoding    {:.0f} MB of weights before each call of the kernel, {:.1f} us when every expert "
             "has rows\n",
             gpu::decodedBytes(schedule, work) * 1e-6, p.decodeUs);
}

void showPredictions(const gpu::Schedule &schedule, const gpu::Device &device, gpu::Workload work,
                     const std::vector<int64_t> &rows, const std::vector<nvidia::MainLoop> &loops) {
  bool ahead = schedule.decode == gpu::Decode::Ahead;
  fmt::print("predicted   the kernel {}, {} expert{}, mean rows of uniform routing; a model, not measured "
             "(codegen/gpu/CostModel.cpp)\n"
             "            {:>6} {:>6} {:>7} {:>7} {:>9} {:>8} {:>6}  limiter\n",
             ahead ? "and the one that decodes before it" : "alone", work.experts,
             work.experts == 1 ? "" : "s", "rows", "width", "tiles", "rounds", "us", "TFLOP/s", "TB/s");
  for (int64_t r : rows) {
    work.rows = r;
    gpu::Prediction p = gpu::predict(schedule, work, device, [&](int64_t width) {
      for (const nvidia::MainLoop &loop : loops)
        if (loop.width == width) return countsOf(loop);
      return gpu::decodeCounts(schedule.decode);
    });
    fmt::print("            {:>6} {:>6} {:>7} {:>7} {:>9.1f} {:>8.1f} {:>6.2f}  {}\n", r, p.step.n, p.tiles,
               p.rounds, p.us, p.tflops, p.hbmTBs, p.limiter);
  }
}

Status explain(const ExplainOptions &options) {
  const gpu::Device *device = gpu::findDevice(options.device);
  if (!device)
    return Error::user(fmt::format("'{}' is not one of {}", options.device, gpu::deviceNames()), "--device");
  auto program = loadProgram(options.call.file);
  if (!program) return program.takeError();
  auto kernel = pickKernel(**program, options.call.kernel);
  if (!kernel) return kernel.takeError();
  auto request = requestFor(**program, **kernel, options.call);
  if (!request) return request.takeError();
  request->schedule = options.schedule, request->target = "sm_90a";
  auto work = workloadOf(**kernel, *request, options.call);
  if (!work) return work.takeError();
  auto compiled = gpuImage(*request);
  if (!compiled) return compiled.takeError();
  jit::GpuImage image = **compiled;
  if (!image.combine.empty()) work->outputBytes = 4; // f32 rows, added afterwards
  auto schedule = gpu::Schedule::parse(image.schedule, gpu::Schedule());
  if (!schedule) return schedule.takeError();
  fmt::print("kernel      {} of {}, N={} K={}, {} weight tile{} of an expert, {} steps of 64 columns\n",
             (*kernel)->name, (*program)->fileName, work->n, work->k, image.tiles,
             image.tiles == 1 ? "" : "s", (work->k + 63) / 64);
  fmt::print("schedule    {}\n", image.schedule);
  fmt::print(
      "launch      {} threads, {} CTA{} of a cluster, {} resident CTA{}, {} of {} bytes of shared memory\n",
      image.threads, image.cluster, image.cluster == 1 ? "" : "s", image.ctasPerSm,
      image.ctasPerSm == 1 ? "" : "s", image.smemBytes, schedule->smemLimit());
  showPtxas(image);
  auto loops = showLoops(image);
  showBudget(*schedule, *device, work->block < 64 ? 2 : 1, loops);
  if (schedule->decode == gpu::Decode::Ahead) showDecoding(*schedule, *device, *work);
  showPredictions(*schedule, *device, *work, options.rows, loops);
  return {};
}

} // namespace

void addExplain(CLI::App &app, int &exitCode) {
  auto options = std::make_shared<ExplainOptions>();
  options->call.layout = "gpu";
  CLI::App *command =
      app.add_subcommand("explain", "shows what a GPU schedule makes of a kernel and what it should cost");
  options->call.addFile(*command);
  options->call.addShape(*command);
  command->add_option("--schedule", options->schedule,
                      "one line, or a part of one (default: chosen by Quern)");
  command->add_option("--rows", options->rows, "rows of an expert to predict times for")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--device", options->device, "whose rates the budget uses: " + gpu::deviceNames())
      ->capture_default_str();
  command->footer(
      "Example:\n"
      "  quern explain gpt_oss --kernel gate_up --dim E=32,N=5760,K=2880 --schedule \"bn=128 cluster=2\"\n"
      "Needs no GPU. With ptxas it shows registers and spills, with cuobjdump or nvdisasm the main loops.\n"
      "Exit code: 0 success, 2 an error.");
  command->callback([options, &exitCode] {
    Status ok = explain(*options);
    exitCode = ok ? success : report(ok.error());
  });
}

} // namespace quern::tools
