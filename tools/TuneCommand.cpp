// `quern tune`: finds the fastest schedule of each call, keeps it, and shows how.
#include "runtime/launch/ParallelFor.h"
#include "tools/Commands.h"
#include "tools/Interrupt.h"
#include "tools/Load.h"
#include "tools/Progress.h"
#include "tools/TuneView.h"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <mutex>
#include <unistd.h>

namespace quern::tools {
namespace {
using Clock = std::chrono::steady_clock;

struct TuneCommand {
  ShapeOptions shapes;
  tune::Options how;
  std::string target = "cpu", policy = "device", reportFile;
  bool rankOnly = false, all = false, json = false, quiet = false;
  int ordinal = 0, threads = 0;
};

/// A record counts rejected candidates without naming them; the model names them again.
void addRejected(const tune::Problem &problem, const tune::Options &how, tune::Result &result) {
  if (!result.fromRecord) return;
  auto ranked = tune::rank(problem, how);
  if (!ranked) return;
  for (tune::Candidate &c : *ranked)
    if (c.verdict == tune::Verdict::Pruned || c.verdict == tune::Verdict::Illegal ||
        c.verdict == tune::Verdict::Duplicate)
      if (std::ranges::find(result.candidates, c.schedule, &tune::Candidate::schedule) ==
          result.candidates.end())
        result.candidates.push_back(std::move(c));
}

Status writeReport(const std::string &path, const std::string &page) {
  std::string temporary = fmt::format("{}.{}.tmp", path, getpid()); // a reader never sees half a page
  FILE *file = std::fopen(temporary.c_str(), "wb");
  bool written = file && std::fwrite(page.data(), 1, page.size(), file) == page.size();
  if (file && std::fclose(file) != 0) written = false;
  if (written && std::rename(temporary.c_str(), path.c_str()) == 0) return {};
  Error e = Error::system("cannot be written", path);
  std::remove(temporary.c_str());
  return e;
}

/// Says before the work whether the page can be written after it.
Status checkWritable(const std::string &path) {
  std::string temporary = fmt::format("{}.{}.tmp", path, getpid());
  FILE *file = std::fopen(temporary.c_str(), "wb");
  if (!file) return Error::system("cannot be written", path);
  std::fclose(file);
  std::remove(temporary.c_str());
  return {};
}

std::string outcomeOf(const TunedCall &call) {
  auto firstLine = [](const std::string &text) { return text.substr(0, text.find('\n')); };
  if (!call.error.empty()) return "failed: " + firstLine(call.error);
  if (!call.result.refused.empty()) return "not measured: " + firstLine(call.result.refused);
  return fmt::format("{}{}", call.result.fromRecord ? "on record: " : "",
                     call.result.schedule.empty() ? "the default" : call.result.schedule);
}

/// The words of this process's command line.
std::string commandLine() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string out, word;
  for (bool first = true; std::getline(file, word, '\0'); first = false) {
    bool plain = !word.empty() && word.find_first_of(" '\"$&|;<>()*?#\\") == std::string::npos;
    out += first ? "quern" : " " + (plain ? word : "'" + word + "'");
  }
  return out;
}

class Tuning {
  TuneCommand options;
  TuneReport report;
  Clock::time_point start = Clock::now();
  std::vector<TunedCall> calls;
  int failed = 0;
  std::once_flag early;

  /// Prints what is done. Also when the user ends a race: what is finished is kept, and said.
  Status show() {
    report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    report.groups = groupCalls(std::move(calls));
    for (TunedGroup &group : report.groups)
      for (const TunedCall &call : group.calls)
        if (!group.roof.known() && call.error.empty())
          group.roof = roofOf(call.result.device, call.result.defaultSchedule);
    if (!options.reportFile.empty())
      if (Status ok = writeReport(options.reportFile, tuneHtml(report)); !ok) return ok;
    if (options.json)
      fmt::print("{}", tuneJson(report));
    else
      printTuneTable(report, options.all);
    return {};
  }

  TunedCall tuneOne(Shape shape, Progress &progress) {
    TunedCall call;
    shape.problem.target = options.target, shape.problem.ordinal = options.ordinal;
    std::string label = shape.label();
    auto result = tune::tune(shape.problem, options.how, [&](const tune::Progress &p) {
      if (interrupted())
        std::call_once(early, [&] {
          progress.close();
          Status ok = show();
          if (!ok) tools::report(ok.error());
          std::fflush(stdout);
          std::_Exit(interruptedExit); // a race cannot be left otherwise; its worker ends with this process
        });
      double stages = double(p.stage) + (p.total ? double(p.done) / double(p.total) : 0);
      progress.at(fmt::format("{}: {} {}", label, tune::name(p.stage), p.text),
                  stages / double(tune::Progress::Done));
    });
    if (result) {
      addRejected(shape.problem, options.how, *result);
      call.result = std::move(*result);
    } else {
      call.error = result.error().str();
    }
    call.shape = std::move(shape);
    return call;
  }

public:
  explicit Tuning(TuneCommand given) : options(std::move(given)) {
    options.how.policy = *tune::parsePolicy(options.policy); // CLI11 has checked the word
    options.how.measure = !options.rankOnly && options.target != "sm_90a";
    report.command = commandLine();
  }

  Expected<int> run() {
    if (!options.reportFile.empty())
      if (Status ok = checkWritable(options.reportFile); !ok) return ok.takeError();
    if (options.threads > 0) setNumThreads(options.threads);
    auto shapes = options.shapes.buckets();
    if (!shapes) return shapes.takeError();
    report.note = options.shapes.note();
    if (!report.note.empty()) fmt::print(stderr, "{}\n", report.note);
    InterruptGuard guard;
    {
      Progress progress(int64_t(shapes->size()), options.quiet);
      for (Shape &shape : *shapes) {
        if (interrupted()) break;
        std::string label = shape.label();
        progress.at(label);
        calls.push_back(tuneOne(std::move(shape), progress));
        const TunedCall &call = calls.back();
        failed += !call.error.empty() || (options.how.measure && !call.result.refused.empty());
        progress.finish(label, outcomeOf(call), call.result.fromRecord);
      }
    }
    if (Status ok = show(); !ok) return ok.takeError();
    return interrupted() ? interruptedExit : failed ? checkFailed : success;
  }
};
} // namespace

void addTune(CLI::App &app, int &exitCode) {
  auto options = std::make_shared<TuneCommand>();
  CLI::App *command =
      app.add_subcommand("tune", "finds the fastest schedule of a call, keeps it, and shows why");
  options->shapes.add(*command, "1..16384");
  command
      ->add_option("--target", options->target,
                   "cpu; cuda: a GPU; sim: the GPU simulator (checks, but its times say nothing); sm_90a: "
                   "ranked by the "
                   "cost model, without a GPU")
      ->check(CLI::IsMember({"cpu", "cuda", "sim", "sm_90a"}))
      ->capture_default_str();
  command->add_option("--device", options->ordinal, "with --target cuda: which GPU")
      ->check(CLI::Range(0, 1023));
  command
      ->add_option(
          "--policy", options->policy,
          "what is timed. device: the device's own time; call: from an idle device to an idle device")
      ->check(CLI::IsMember({"device", "call"}))
      ->capture_default_str();
  command->add_option("--seconds", options->how.seconds, "of measuring, for each call")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--candidates", options->how.maxCandidates, "measured at most, beside the default")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command->add_option("--seed", options->how.seed, "seed of data, routing and order")->capture_default_str();
  command
      ->add_option("--jobs", options->how.jobs,
                   "compilations at once (default: QUERN_JOBS, or what CPUs and memory allow)")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--threads", options->threads,
                   "CPU threads (default: QUERN_NUM_THREADS, or all that the process may use)")
      ->check(CLI::Range(0, 4096));
  command->add_flag("--retune", options->how.retune, "measure although there is a record; the record stays");
  command->add_flag("--rank-only", options->rankOnly, "rank by the cost model, measure nothing");
  command->add_option("--report", options->reportFile, "write one HTML page with plots and every candidate");
  command->add_flag("--all", options->all, "show every rejected candidate in the table");
  command->add_flag("--json", options->json, "print one JSON object instead of the table");
  command->add_flag("--quiet", options->quiet, "no progress");
  command->footer(
      "Examples:\n"
      "  quern tune gpt_oss --kernel gate_up --dim E=32,N=5760,K=2880,top_k=4 --tokens 64,1024 --report "
      "tune.html\n"
      "  quern tune --model gpt-oss-20b --target cuda --report tune.html\n"
      "  quern tune --model gpt-oss-20b --target sm_90a --rows 1,64,1024\n"
      "What is found is kept in the cache and used by every later process (quern cache ls --kind tuning).\n"
      "Exit code: 0 success, 1 a call could not be tuned, 2 an error, 130 stopped by Ctrl-C.");
  command->callback([options, &exitCode] {
    auto result = Tuning(*options).run();
    exitCode = result ? *result : report(result.error());
  });
}

// The worker process that measures: runtime/tune/Tuner.h starts it.
void addTuneWorker(CLI::App &app, int &exitCode) {
  CLI::App *command =
      app.add_subcommand("tune-worker", "measures for another quern, on standard input and output");
  command->group(""); // hidden
  command->callback([&exitCode] { exitCode = tune::tuneWorker(STDIN_FILENO, STDOUT_FILENO); });
}

} // namespace quern::tools
