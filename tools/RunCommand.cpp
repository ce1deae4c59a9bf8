// `quern run`: one kernel on generated data, timed, and checked against the fp64 oracle.
#include "compiler/syntax/Syntax.h"
#include "runtime/launch/ParallelFor.h"
#include "tools/Commands.h"
#include "tools/Load.h"
#include "tools/Options.h"
#include "tools/RunReport.h"
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <memory>

namespace quern::tools {
namespace {
using Clock = std::chrono::steady_clock;
double msSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

struct RunOptions {
  CallOptions call;
  std::string target = "cpu", schedule;
  bool onDevice() const { return target == "sim" || target == "cuda"; }
  bool compiles() const { return target != "interp"; }
  bool check = false, json = false;
  int repeat = 5, threads = 0;
};

/// "act bf16; w nf4 block 64, bf16 state, cpu layout"
std::string describeData(const syntax::Kernel &kernel, const oracle::Arguments &arguments,
                         const RunOptions &options) {
  const CallOptions &call = options.call;
  std::string text = "act " + call.act;
  if (options.onDevice() && call.act == "f32") text += " (bf16 values: a GPU rounds them)";
  for (size_t i = 0; i < arguments.args.size(); ++i)
    if (auto *p = std::get_if<PackedView>(&arguments.args[i]))
      text += fmt::format("; {} {} block {}, {} state, {} layout", kernel.params[i].name, p->codec->name,
                          p->shape.block, name(p->dtype), name(options.onDevice() ? Layout::Gpu : p->layout));
  return call.exact ? text + "; exact integers" : text;
}

/// A GPU rounds fp32 activations to bf16 before it multiplies them: that is not an error of the kernel, so
/// the data are bf16 values.
void roundActivations(const syntax::Kernel &kernel, oracle::Arguments &arguments) {
  for (size_t i = 0; i < arguments.args.size(); ++i) {
    auto *t = std::get_if<TensorView>(&arguments.args[i]); // generated tensors are contiguous
    if (!t || t->dtype != DType::F32 || kernel.params[i].elem.kind != syntax::ElemType::Act) continue;
    int64_t count = 1;
    for (int64_t s : t->shape) count *= s;
    for (int64_t j = 0; j < count; ++j)
      storeAs(DType::F32, t->data, j, roundTo(DType::BF16, loadAs(DType::F32, t->data, j)));
  }
}

double countOperations(const syntax::Program &program, const syntax::Kernel &kernel,
                       const std::map<std::string, int64_t> &dims, int64_t rows) {
  double total = 0;
  if (auto normal = syntax::normalize(program, kernel))
    for (const syntax::Contraction &c : normal->contractions) {
      auto columns = oracle::extent(c.columns, dims), reduced = oracle::extent(c.reduced, dims);
      if (columns && reduced) total += 2.0 * double(rows) * double(*columns) * double(*reduced);
    }
  return total;
}

void countRows(const syntax::Kernel &kernel, const oracle::Arguments &arguments, RunReport &report) {
  report.usedExperts = -1;
  if (!arguments.routing) {
    if (auto rows = oracle::extent(kernel.rows, arguments.dims)) report.liveRows = *rows;
    return;
  }
  const Routing &r = *arguments.routing;
  report.liveRows = r.liveRows();
  report.usedExperts = 0;
  for (int64_t e = 0; e < r.experts; ++e) report.usedExperts += r.offsets[e + 1] > r.offsets[e];
}

/// Calls the compiled kernel once, then `repeat` times more.
Status runOnDevice(Module &module, const syntax::Kernel &kernel, const std::vector<Arg> &args,
                   const RunOptions &options, std::vector<oracle::OutputBuffer> &buffers, RunReport &report) {
  std::vector<TensorView> outputs;
  for (oracle::OutputBuffer &b : buffers) outputs.push_back(b.view);
  double compiledBefore = stats().compileMs;
  TargetReport result;
  // The simulator's time says nothing, so it runs once.
  int repeat = options.target == "sim" ? 0 : options.repeat;
  if (Status ok = module.runOn(options.target, kernel, args, outputs, {options.schedule, repeat}, &result);
      !ok)
    return ok;
  report.firstMs = result.firstMs, report.timesMs = result.timesMs;
  report.compileMs = stats().compileMs - compiledBefore;
  report.device = result.device, report.schedule = result.schedule;
  if (options.target == "sim") report.statistics = result.statistics;
  return {};
}

Status runOnCpu(Module &module, const syntax::Kernel &kernel, const std::vector<Arg> &args,
                const RunOptions &options, std::vector<oracle::OutputBuffer> &buffers, RunReport &report) {
  std::vector<TensorView> outputs;
  for (oracle::OutputBuffer &b : buffers) outputs.push_back(b.view);
  double compiledBefore = stats().compileMs;
  Clock::time_point start = Clock::now();
  if (Status ok = module.run(kernel, args, outputs); !ok) return ok;
  report.firstMs = msSince(start);
  report.compileMs = stats().compileMs - compiledBefore;
  for (int i = 0; i < options.repeat; ++i) {
    for (oracle::OutputBuffer &b : buffers) b.fill(); // the check sees the last call
    start = Clock::now();
    if (Status ok = module.run(kernel, args, outputs); !ok) return ok;
    report.timesMs.push_back(msSince(start));
  }
  return {};
}

Expected<int> run(const RunOptions &options) {
  auto generateOptions = options.call.resolve();
  if (!generateOptions) return generateOptions.takeError();
  if (options.onDevice()) generateOptions->layout = Layout::Bnb; // re-tiled on the device
  auto source = loadText(options.call.file);
  if (!source) return source.takeError();
  std::shared_ptr<Module> module; // the compiled kernels; the oracle needs the checked tree alone
  std::shared_ptr<const syntax::Program> tree;
  if (options.compiles()) {
    auto loaded = Module::load(source->text, source->name);
    if (!loaded) return loaded.takeError();
    module = *loaded;
  } else {
    auto parsed = syntax::parseProgram(source->text, source->name);
    if (!parsed) return parsed.takeError();
    tree = *parsed;
  }
  const syntax::Program &program = module ? module->program() : *tree;
  auto picked = pickKernel(program, options.call.kernel);
  if (!picked) return picked.takeError();
  const syntax::Kernel &kernel = **picked;
  auto arguments = oracle::generate(program, kernel, *generateOptions);
  if (!arguments) return arguments.takeError();
  if (options.onDevice()) roundActivations(kernel, *arguments);
  auto binding = bindArguments(program, kernel, arguments->args);
  if (!binding) return binding.takeError();
  if (options.threads > 0) setNumThreads(options.threads);

  RunReport report;
  report.file = source->name, report.kernel = kernel.name, report.target = options.target;
  report.act = options.call.act, report.data = describeData(kernel, *arguments, options);
  report.dims = arguments->dims, report.chosen = arguments->chosen;
  report.routing = options.call.routing, report.seed = options.call.seed;
  report.threads = numThreads(), report.threadLibrary = threadLibrary();
  countRows(kernel, *arguments, report);
  report.operations = countOperations(program, kernel, arguments->dims, report.liveRows);

  std::vector<oracle::OutputBuffer> buffers;
  if (options.compiles()) {
    for (const OutputSpec &spec : binding->outputs) buffers.emplace_back(spec);
    auto *call = options.onDevice() ? runOnDevice : runOnCpu;
    if (Status ok = call(*module, kernel, arguments->args, options, buffers, report); !ok)
      return ok.takeError();
  }
  if (options.check || options.target == "interp") {
    Clock::time_point start = Clock::now();
    auto expected = oracle::interpret(program, kernel, arguments->args);
    if (!expected) return expected.takeError();
    report.oracleMs = msSince(start);
    report.checked = options.compiles();
    for (size_t i = 0; i < buffers.size(); ++i) {
      bool fast = report.schedule.find("decode=fast") != std::string::npos;
      oracle::Comparison c =
          oracle::compare((*expected)[i], buffers[i].view, fast ? oracle::Gates::fast() : oracle::Gates());
      c.guardsBroken = !buffers[i].guardsIntact();
      c.pass &= !c.guardsBroken;
      report.comparisons.push_back(std::move(c));
    }
    if (options.target == "interp")
      for (const oracle::Output &o : *expected) {
        double squares = 0;
        for (double v : o.values) squares += v * v;
        report.norms.emplace_back(o.name, std::sqrt(squares));
      }
  }
  options.json ? report.printJson() : report.printTable();
  return report.pass() ? success : checkFailed;
}
} // namespace

void addRun(CLI::App &app, int &exitCode) {
  auto options = std::make_shared<RunOptions>();
  CLI::App *command = app.add_subcommand("run", "runs a kernel on generated data");
  options->call.addFile(*command);
  options->call.addShape(*command);
  options->call.addData(*command);
  command
      ->add_option(
          "--target", options->target,
          "cpu: the compiled kernel; interp: the fp64 oracle alone; cuda: the kernel on GPU 0; sim: the "
          "GPU's kernel on the simulator (QUERN_SIM_SEED, QUERN_SIM_OPTIONS)")
      ->check(CLI::IsMember({"cpu", "interp", "sim", "cuda"}))
      ->capture_default_str();
  command->add_option(
      "--schedule", options->schedule,
      "fields of the schedule's line to set, e.g. 'bn=64 stages=4' (default: the shape's own)");
  command->add_flag(
      "--check", options->check,
      "compare with the fp64 oracle per row, 16x16 tile and element; exit code 1 when it fails");
  command->add_flag("--json", options->json, "print one JSON object instead of the table");
  command->add_option("--repeat", options->repeat, "timed calls after the first")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  command
      ->add_option("--threads", options->threads,
                   "CPU threads (default: QUERN_NUM_THREADS, or all that the process may use)")
      ->check(CLI::Range(0, 4096));
  command->footer(
      "Examples:\n"
      "  quern run gpt_oss --kernel gate_up --dim T=64,E=32,N=5760,K=2880,top_k=4 --check\n"
      "  quern run gpt_oss --kernel down --routing zipf --seed 7 --check --json\n"
      "  quern run gpt_oss --kernel down --target sim --dim T=16,E=2,N=128,K=128,top_k=2 --check\n"
      "  quern run my.qn --dtype f32 --block 128 --features=-amx,-avx512f --check\n"
      "Exit code: 0 success, 1 the check failed, 2 an error.");
  command->callback([options, &exitCode] {
    auto result = run(*options);
    exitCode = result ? *result : report(result.error());
    // What the simulator finds is a failed check, not a wrong call.
    if (!result && result.error().place == "simulator") exitCode = checkFailed;
  });
}

} // namespace quern::tools
