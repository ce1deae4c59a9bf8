// `quern bench`: times of a kernel over token counts and schedules, beside what the machine could do.
#include "runtime/launch/ParallelFor.h"
#include "tools/BenchTimer.h"
#include "tools/Commands.h"
#include "tools/Interrupt.h"
#include "tools/Load.h"
#include "tools/Progress.h"
#include "tools/Roof.h"
#include "tools/TuneView.h"
#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace quern::tools {
namespace {
struct BenchCommand {
  ShapeOptions shapes;
  BenchOptions bench;
  bool json = false, quiet = false;
  int threads = 0;
};

struct Rates {
  double tflops = 0, gbs = 0, share = 0, ratio = 0;
};

Rates ratesOf(const BenchResult &result, const BenchRow &row, const Roof &roof) {
  Rates r;
  double us = row.timing.medianUs, base = result.rows[0].timing.medianUs;
  if (us <= 0) return r;
  // Work is stated for all rows; a routing may leave some out.
  double part = result.work.rows > 0 ? double(result.liveRows) / double(result.work.rows) : 1;
  r.tflops = result.work.flops * part / us * 1e-6, r.gbs = result.work.bytes / us * 1e-3;
  if (roof.known() && result.work.bytes > 0 && part > 0)
    r.share = r.tflops / roof.at(result.work.flops * part / result.work.bytes);
  if (base > 0) r.ratio = base / us;
  return r;
}

void printTable(const std::vector<BenchResult> &results, const Roof &roof) {
  std::string title;
  for (const BenchResult &r : results) {
    std::string now = r.shape.kernel->name + " " + r.shape.dimText();
    if (title.empty()) {
      fmt::print("device    {} ({}, {} {})\n", r.device.name, r.device.arch, r.device.units,
                 r.device.arch == "cpu" ? "threads" : "multiprocessors");
      if (roof.known())
        fmt::print("roof      {} TFLOP/s ({}), {} GB/s, {}\n", shortNumber(roof.tflops), roof.arithmetic,
                   shortNumber(roof.gbs), roof.source);
    }
    if (title != now) {
      fmt::print("\n{}\n{:>7} {:>7} {:>9} {:>19} {:>8} {:>8} {:>6} {:>8}  schedule\n", now, "tokens",
                 "rows/e", "us", "99 %", "TFLOP/s", "GB/s", "roof", "default/");
      title = now;
    }
    for (const BenchRow &row : r.rows) {
      if (!row.error.empty()) {
        fmt::print("{:>7} {:>7} {}: {}\n", r.shape.tokens, r.shape.rowsPerExpert, row.name, row.error);
        continue;
      }
      Rates rates = ratesOf(r, row, roof);
      fmt::print("{:>7} {:>7} {:>9} {:>19} {:>8} {:>8} {:>6} {:>8}  {}\n", r.shape.tokens,
                 r.shape.rowsPerExpert, shortNumber(row.timing.medianUs),
                 fmt::format("{}..{}", shortNumber(row.timing.lowUs), shortNumber(row.timing.highUs)),
                 shortNumber(rates.tflops), shortNumber(rates.gbs),
                 rates.share > 0 ? fmt::format("{:.0f} %", 100 * rates.share) : "-",
                 rates.ratio > 0 ? fmt::format("{:.3f}", rates.ratio) : "-", row.name);
    }
  }
}

void printJson(const std::vector<BenchResult> &results, const Roof &roof, const BenchCommand &options) {
  nlohmann::json out = {{"target", options.bench.target},
                        {"routing", options.bench.routing},
                        {"seed", options.bench.seed},
                        {"interrupted", interrupted()},
                        {"calls", nlohmann::json::array()}};
  if (options.bench.target == "cpu") out["threads"] = numThreads(), out["thread_library"] = threadLibrary();
  if (roof.known())
    out["roof"] = {
        {"tflops", roof.tflops}, {"gbs", roof.gbs}, {"arithmetic", roof.arithmetic}, {"source", roof.source}};
  for (const BenchResult &r : results) {
    nlohmann::json call = {{"file", r.shape.file},
                           {"kernel", r.shape.kernel->name},
                           {"dims", r.shape.problem.dims},
                           {"tokens", r.shape.tokens},
                           {"rows_per_expert", r.shape.rowsPerExpert},
                           {"device", r.device.name},
                           {"rows", r.liveRows},
                           {"flops", r.work.flops},
                           {"bytes", r.work.bytes},
                           {"schedules", nlohmann::json::array()}};
    for (const BenchRow &row : r.rows) {
      nlohmann::json one = {{"name", row.name}, {"schedule", row.schedule}};
      if (row.error.empty()) {
        Rates rates = ratesOf(r, row, roof);
        one["us"] = row.timing.medianUs, one["interval_us"] = {row.timing.lowUs, row.timing.highUs};
        one["samples_us"] = row.timing.samplesUs, one["first_ms"] = row.firstMs;
        one["tflops"] = rates.tflops, one["gbs"] = rates.gbs, one["default_ratio"] = rates.ratio;
        if (roof.known()) one["roof_share"] = rates.share;
      } else {
        one["error"] = row.error;
      }
      call["schedules"].push_back(std::move(one));
    }
    out["calls"].push_back(std::move(call));
  }
  fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

Expected<int> run(const BenchCommand &options) {
  auto shapes = options.shapes.counts();
  if (!shapes) return shapes.takeError();
  if (std::string note = options.shapes.note(); !note.empty()) fmt::print(stderr, "{}\n", note);
  if (options.threads > 0) setNumThreads(options.threads);
  InterruptGuard guard;
  std::vector<BenchResult> results;
  {
    Progress progress(int64_t(shapes->size()), options.quiet);
    for (const Shape &shape : *shapes) {
      if (interrupted()) break;
      std::string label = fmt::format("{}, {} tokens", shape.kernel->name, shape.tokens);
      progress.at(label);
      auto result = bench(shape, options.bench, [&](double part) { progress.at(label, part); });
      if (!result) return result.takeError();
      if (result->rows[0].timing.samplesUs.empty()) { // stopped before its first round
        if (!result->rows[0].error.empty()) return Error::user(result->rows[0].error);
        break;
      }
      progress.finish(label, fmt::format("{} us", shortNumber(result->rows[0].timing.medianUs)));
      results.push_back(std::move(*result));
    }
  }
  Roof roof;
  if (!results.empty()) roof = roofOf(results[0].device, results[0].rows[0].schedule);
  options.json ? printJson(results, roof, options) : printTable(results, roof);
  if (interrupted()) return interruptedExit;
  for (const BenchResult &r : results)
    for (const BenchRow &row : r.rows)
      if (!row.error.empty()) return checkFailed;
  return success;
}
} // namespace

void addBench(CLI::App &app, int &exitCode) {
  auto options = std::make_shared<BenchCommand>();
  CLI::App *command = app.add_subcommand("bench", "times a kernel over token counts and schedules");
  options->shapes.add(*command, "1..1024");
  command->add_option("--target", options->bench.target, "cpu, or cuda: GPU 0")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command
      ->add_option(
          "--schedule", options->bench.schedules,
          "a line to time beside the default, whole or partial, e.g. 'rows=4 tokens=6'; may be repeated")
      ->take_all();
  command->add_option("--routing", options->bench.routing, "uniform, zipf, or one: all rows on one expert")
      ->check(CLI::IsMember({"uniform", "zipf", "one"}))
      ->capture_default_str();
  command->add_option("--seed", options->bench.seed, "seed of the generated data")->capture_default_str();
  command
      ->add_option("--seconds", options->bench.seconds,
                   "of timing, for each call and schedule; flushes count")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-rounds", options->bench.maxRounds, "samples of a schedule at most")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command
      ->add_option("--threads", options->threads,
                   "CPU threads (default: QUERN_NUM_THREADS, or all that the process may use)")
      ->check(CLI::Range(0, 4096));
  command->add_flag("--json", options->json, "print one JSON object instead of the table");
  command->add_flag("--quiet", options->quiet, "no progress");
  command->footer(
      "Examples:\n"
      "  quern bench gpt_oss --kernel gate_up --dim E=32,N=5760,K=2880,top_k=4 --tokens 1,64,1024\n"
      "  quern bench --model qwen3-30b-a3b --kernel down --rows 1..64 --schedule 'rows=4 tokens=6' --json\n"
      "  quern bench --model gpt-oss-20b --target cuda --tokens 16..16384\n"
      "Times are medians; the interval holds the median with 99 %. On the CPU every call starts from memory: "
      "caches are\n"
      "flushed. `roof` is the share of what arithmetic and memory of this machine allow; `default/` is above "
      "1 where a\n"
      "schedule is faster than the default.\n"
      "Exit code: 0 success, 1 a schedule was refused, 2 an error, 130 stopped by Ctrl-C.");
  command->callback([options, &exitCode] {
    auto result = run(*options);
    exitCode = result ? *result : report(result.error());
  });
}

} // namespace quern::tools
