// See BenchTimer.h.
#include "tools/BenchTimer.h"
#include "compiler/syntax/Syntax.h"
#include "runtime/launch/Execute.h"
#include "runtime/launch/Images.h"
#include "runtime/oracle/Compare.h"
#include "runtime/oracle/Generate.h"
#include "runtime/tune/Space.h"
#include "tools/Interrupt.h"
#include "tools/Roof.h"
#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace quern::tools {
namespace {
using Clock = std::chrono::steady_clock;
double usSince(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

/// A call with its data.
struct Call {
  oracle::Arguments arguments;
  Binding binding;
  std::vector<oracle::OutputBuffer> buffers;
  std::vector<TensorView> outputs;
};

Expected<Call> makeCall(const Shape &shape, const BenchOptions &options, Layout layout) {
  oracle::GenerateOptions how;
  how.dims = shape.problem.dims, how.act = shape.problem.act, how.quant = shape.problem.quant;
  how.block = shape.problem.block, how.layout = layout, how.seed = options.seed;
  how.routing = *oracle::parseRoutingKind(options.routing); // CLI11 has checked the word
  Call call;
  auto arguments = oracle::generate(*shape.problem.program, *shape.kernel, how);
  if (!arguments) return arguments.takeError();
  call.arguments = std::move(*arguments);
  auto binding = bindArguments(*shape.problem.program, *shape.kernel, call.arguments.args);
  if (!binding) return binding.takeError();
  call.binding = std::move(*binding);
  for (const OutputSpec &spec : call.binding.outputs) call.buffers.emplace_back(spec);
  for (oracle::OutputBuffer &b : call.buffers) call.outputs.push_back(b.view);
  return call;
}

/// Rows without times: the default, what tuning found, what was asked for.
std::vector<BenchRow> rowsOf(const BenchOptions &options, const jit::Request &request,
                             const tune::DeviceIdentity &device) {
  std::vector<BenchRow> rows(1);
  rows[0].name = "default";
  if (auto tuned = tune::tunedSchedule(request, device); tuned && !tuned->empty()) {
    rows.emplace_back();
    rows.back().name = "tuned", rows.back().schedule = *tuned;
  }
  for (const std::string &line : options.schedules) {
    rows.emplace_back();
    rows.back().name = rows.back().schedule = line;
  }
  return rows;
}

Status benchCpu(const BenchOptions &options, const jit::Request &base,
                const std::function<void(double)> &tick, BenchResult &result) {
  auto call = makeCall(result.shape, options, Layout::Cpu);
  if (!call) return call.takeError();
  result.liveRows = call->arguments.routing ? call->arguments.routing->liveRows() : result.work.rows;
  struct Subject {
    const jit::CpuImage *image;
    size_t row;
  };
  std::vector<Subject> subjects;
  auto run = [&](const jit::CpuImage &image) {
    return execute(image, *result.shape.kernel, call->binding, call->arguments.args, call->outputs);
  };
  for (BenchRow &row : result.rows) {
    jit::Request request = base;
    if (!row.schedule.empty()) request.schedule = row.schedule;
    auto start = Clock::now();
    auto image = cpuImage(request);
    if (!image) {
      row.error = image.error().str();
      continue;
    }
    if (Status ok = run(**image); !ok) return ok; // also what pages and threads need
    row.firstMs = usSince(start) * 1e-3, row.schedule = (*image)->schedule;
    subjects.push_back({*image, size_t(&row - result.rows.data())});
  }
  // The flushes count too: they take most of the time of a short call.
  double limitUs = options.seconds * 1e6 * double(subjects.size());
  auto begin = Clock::now();
  for (int round = 0; round < options.maxRounds && !subjects.empty() && !interrupted(); ++round) {
    if (round >= options.minRounds && usSince(begin) > limitUs) break;
    for (size_t i = 0; i < subjects.size(); ++i) {
      // Nobody is always the first one.
      const Subject &subject = subjects[(i + size_t(round)) % subjects.size()];
      flushCaches();
      auto start = Clock::now();
      if (Status ok = run(*subject.image); !ok) return ok;
      result.rows[subject.row].timing.samplesUs.push_back(usSince(start));
    }
    tick(std::max(double(round + 1) / options.maxRounds, std::min(0.99, usSince(begin) / limitUs)));
  }
  return {};
}

Status benchGpu(const BenchOptions &options, const jit::Request &base,
                const std::function<void(double)> &tick, BenchResult &result) {
  auto call = makeCall(result.shape, options, Layout::Bnb); // re-tiled on the device
  if (!call) return call.takeError();
  result.liveRows = call->arguments.routing ? call->arguments.routing->liveRows() : result.work.rows;
  auto module = Module::load(syntax::print(*result.shape.problem.program), result.shape.file);
  if (!module) return module.takeError();
  const syntax::Kernel *kernel = (*module)->program().findKernel(result.shape.kernel->name);
  // Its line, because a call without one would use what tuning found.
  auto standard = gpuImage(base);
  if (!standard) return standard.takeError();
  result.rows[0].schedule = (*standard)->schedule;
  for (size_t i = 0; i < result.rows.size() && !interrupted(); ++i) {
    BenchRow &row = result.rows[i];
    const std::string line = row.schedule;
    // A first run says how many fit the time.
    for (int repeat : {3, 0}) {
      if (!repeat) {
        double ms = *std::ranges::min_element(row.timing.samplesUs) * 1e-3;
        repeat = int(std::clamp(options.seconds * 1e3 / std::max(ms, 1e-3), double(options.minRounds),
                                double(options.maxRounds)));
      }
      TargetReport report;
      if (Status ok =
              (*module)->runOn("cuda", *kernel, call->arguments.args, call->outputs, {line, repeat}, &report);
          !ok) {
        row.error = ok.error().str();
        break;
      }
      if (!row.firstMs) row.firstMs = report.firstMs;
      row.schedule = report.schedule;
      row.timing.samplesUs.clear();
      for (double ms : report.timesMs) row.timing.samplesUs.push_back(ms * 1e3);
    }
    tick(double(i + 1) / double(result.rows.size()));
  }
  return {};
}
} // namespace

Expected<BenchResult> bench(const Shape &shape, const BenchOptions &options,
                            const std::function<void(double)> &tick) {
  BenchResult result;
  result.shape = shape;
  result.shape.problem.target = options.target, result.shape.problem.ordinal = options.ordinal;
  auto request = tune::requestOf(result.shape.problem);
  if (!request) return request.takeError();
  auto work = tune::workloadOf(result.shape.problem, *request);
  if (!work) return work.takeError();
  result.work = std::move(*work);
  bool cpu = options.target == "cpu";
  if (cpu) {
    result.device = tune::cpuIdentity();
  } else {
    auto backend = gpu::cudaBackend(options.ordinal);
    if (!backend) return backend.takeError();
    result.device = tune::identityOf(**backend);
  }
  result.rows = rowsOf(options, *request, result.device);
  if (Status ok = (cpu ? benchCpu : benchGpu)(options, *request, tick, result); !ok) return ok.takeError();
  for (BenchRow &row : result.rows)
    if (!row.timing.samplesUs.empty()) tune::summarize(row.timing);
  return result;
}

} // namespace quern::tools
