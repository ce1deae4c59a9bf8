// `quern warmup`: compiles, and with --tune tunes, everything that a model will ask for, before it asks.
#include "runtime/cache/JobSlots.h"
#include "runtime/cache/Store.h"
#include "runtime/driver/DeviceCode.h"
#include "runtime/driver/Probe.h"
#include "runtime/launch/Images.h"
#include "tools/CacheView.h"
#include "tools/Commands.h"
#include "tools/Interrupt.h"
#include "tools/Load.h"
#include "tools/Progress.h"
#include "tools/Warmup.h"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

namespace quern::tools {
namespace {
using Clock = std::chrono::steady_clock;
double secondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct WarmupOptions {
  ShapeOptions shapes;
  std::string arch;
  bool tune = false, json = false, quiet = false;
  int jobs = 0, rank = 0, world = 1, localRank = 0;
  double seconds = 120;
};

bool hasGpu() {
  auto report = driver::probe();
  return std::ranges::any_of(
      report.items, [](const driver::ProbeItem &item) { return item.what == "device" && item.used; });
}

/// "cpu", "cuda" (sm_90a, and there is a GPU) or "sm_90a".
Expected<std::string> targetOf(const WarmupOptions &options) {
  bool gpu = options.arch != "cpu" && hasGpu();
  if (options.arch == "cpu" || (options.arch.empty() && !gpu)) return std::string("cpu");
  if (options.tune && !gpu)
    return Error::user(
        "tuning measures, and no GPU was found here (quern doctor says more); expected --arch cpu, "
        "or no --tune",
        "--tune");
  return std::string(gpu ? "cuda" : "sm_90a");
}

class Warmup {
  const WarmupOptions &options;
  std::string target;
  std::vector<WarmupItem> items;
  RankOrder order;
  std::vector<WarmupOutcome> images, tunings; // by item
  std::vector<std::string> deviceFiles;       // Quern's own device code, which every call on a GPU needs
  std::string deviceProblem;
  std::string note;
  Clock::time_point start = Clock::now();
  std::once_flag early;

  /// Compiles it, or takes what another process makes meanwhile; says which of the two.
  static Expected<bool> compile(const jit::Request &request) {
    auto compiledHere = [](auto image) -> Expected<bool> {
      if (!image) return image.takeError();
      return !isFromDisk(*image);
    };
    return request.target == "cpu" ? compiledHere(cpuImage(request)) : compiledHere(gpuImage(request));
  }

  void makeImage(size_t index, bool own, Progress &progress) {
    WarmupItem &item = items[index];
    WarmupOutcome &out = images[index];
    if (cache::Store::user().find(item.key)) {
      out.state = "cached";
      return progress.finish(item.label, own ? "in the cache" : "in the cache, by another rank", true);
    }
    progress.at(item.label);
    auto begin = Clock::now();
    auto compiled = compile(item.request);
    out.seconds = secondsSince(begin);
    if (compiled) {
      out.state = *compiled ? "compiled" : "found";
      return progress.finish(item.label, *compiled ? "compiled in " + durationText(out.seconds)
                                                   : "compiled by another process meanwhile");
    }
    out.state = "failed", out.detail = compiled.error().str();
    progress.finish(item.label, "failed");
    progress.say(fmt::format("{}: {}", item.label, out.detail));
  }

  /// Without NVRTC here the GPU's machine must have it: said, and no failure.
  void makeDeviceCode(Progress &progress) {
    for (const std::string &file : deviceFiles) {
      if (interrupted()) return;
      std::string label = "device code " + file;
      progress.at(label);
      auto begin = Clock::now();
      auto compiled = driver::compiledDeviceFile(file, "sm_90a", 0);
      if (compiled) {
        progress.finish(label, "ready in " + durationText(secondsSince(begin)));
        continue;
      }
      deviceProblem = compiled.error().str();
      progress.finish(label, "left out");
      progress.say(fmt::format("{}: {}", label, deviceProblem));
      return;
    }
  }

  void tuneOne(size_t index, Progress &progress) {
    WarmupItem &item = items[index];
    WarmupOutcome &out = tunings[index];
    tune::Options how;
    how.seconds = options.seconds, how.jobs = options.jobs;
    std::string label = "tune " + item.label;
    auto begin = Clock::now();
    progress.at(label);
    auto result = tune::tune(item.shape.problem, how, [&](const tune::Progress &p) {
      if (interrupted())
        std::call_once(early, [&] {
          progress.close();
          show();
          std::fflush(stdout);
          std::_Exit(interruptedExit); // a race cannot be left otherwise; its worker ends with this process
        });
      double stages = double(p.stage) + (p.total ? double(p.done) / double(p.total) : 0);
      progress.at(fmt::format("{}: {} {}", label, tune::name(p.stage), p.text),
                  stages / double(tune::Progress::Done));
    });
    out.seconds = secondsSince(begin);
    if (result && result->refused.empty()) {
      out.state = result->fromRecord ? "on record" : "tuned";
      out.detail = result->schedule.empty() ? "default" : result->schedule;
      // The image that a launch will ask for from now on.
      jit::Request request = item.request;
      request.schedule = result->schedule;
      if (auto ok = compile(request); !ok) out.state = "failed", out.detail = ok.error().str();
    } else {
      out.state = "failed", out.detail = result ? "not measured: " + result->refused : result.error().str();
    }
    progress.finish(label,
                    out.state == "failed"
                        ? "failed"
                        : fmt::format("{} in {}: {}", out.state, durationText(out.seconds), out.detail),
                    out.state == "on record");
    if (out.state == "failed") progress.say(fmt::format("{}: {}", label, out.detail));
  }

  static int count(const std::vector<WarmupOutcome> &outcomes, std::string_view state) {
    return int(std::ranges::count(outcomes, state, &WarmupOutcome::state));
  }
  int failures() const { return count(images, "failed") + count(tunings, "failed"); }

  void printSummary() const {
    std::string text =
        fmt::format("{} images for {}: {} compiled, {} were in the cache", items.size(),
                    target == "cpu" ? "cpu" : "sm_90a", count(images, "compiled"), count(images, "cached"));
    if (int found = count(images, "found")) text += fmt::format(", {} by another process meanwhile", found);
    if (options.tune)
      text += fmt::format("; {} schedules tuned, {} were on record", count(tunings, "tuned"),
                          count(tunings, "on record"));
    if (int failed = failures()) text += fmt::format("; {} failed", failed);
    if (!deviceFiles.empty())
      text += deviceProblem.empty() ? fmt::format("; {} files of device code ready", deviceFiles.size())
                                    : "; device code left out";
    fmt::print("{}, in {}\n{}\n", text, durationText(secondsSince(start)), cache::Store::user().folder());
    if (interrupted())
      fmt::print("interrupted, {} not done: the same command goes on from here\n",
                 count(images, "not done") + count(tunings, "not done"));
  }

  void printJson() const {
    nlohmann::json out = {{"arch", target == "cpu" ? "cpu" : "sm_90a"},
                          {"folder", cache::Store::user().folder()},
                          {"compiled", count(images, "compiled")},
                          {"cached", count(images, "cached")},
                          {"found", count(images, "found")},
                          {"failed", failures()},
                          {"interrupted", interrupted()},
                          {"seconds", secondsSince(start)},
                          {"entries", nlohmann::json::array()}};
    if (!note.empty()) out["note"] = note;
    if (!deviceFiles.empty()) out["device_code"] = deviceProblem.empty() ? "ready" : deviceProblem;
    if (options.tune) out["tuned"] = count(tunings, "tuned"), out["on_record"] = count(tunings, "on record");
    if (options.world > 1) out["rank"] = options.rank, out["world_size"] = options.world;
    for (size_t i = 0; i < items.size(); ++i) {
      const WarmupItem &item = items[i];
      nlohmann::json entry = {{"file", item.shape.file},
                              {"kernel", item.shape.kernel->name},
                              {"dims", item.shape.problem.dims},
                              {"rows_per_expert", item.shape.rowsPerExpert},
                              {"key", item.hash},
                              {"state", images[i].state},
                              {"seconds", images[i].seconds}};
      if (!images[i].detail.empty()) entry["detail"] = images[i].detail;
      if (options.tune)
        entry["tuning"] = {
            {"state", tunings[i].state}, {"detail", tunings[i].detail}, {"seconds", tunings[i].seconds}};
      out["entries"].push_back(std::move(entry));
    }
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  }

  void show() const { options.json ? printJson() : printSummary(); }

public:
  explicit Warmup(const WarmupOptions &options) : options(options) {}

  Status plan() {
    if (options.rank < 0 || options.rank >= options.world)
      return Error::user(fmt::format("found rank {} of {}, expected 0 to {}", options.rank, options.world,
                                     options.world - 1),
                         "--rank");
    auto where = targetOf(options);
    if (!where) return where.takeError();
    target = *where;
    if (cache::Store::user().folder().empty())
      return Error::system(
          "no cache folder can be used (see the warning, or quern doctor), so nothing would be kept",
          "warmup");
    auto shapes = options.shapes.buckets();
    if (!shapes) return shapes.takeError();
    note = options.shapes.note();
    if (!note.empty()) fmt::print(stderr, "{}\n", note);
    auto planned = planWarmup(std::move(*shapes), target, options.localRank);
    if (!planned) return planned.takeError();
    items = std::move(*planned);
    std::vector<std::string> hashes;
    for (const WarmupItem &item : items) hashes.push_back(item.hash);
    order = rankOrder(hashes, options.rank, options.world);
    images.assign(items.size(), {"not done", "", 0});
    if (target != "cpu") deviceFiles = driver::deviceFiles();
    if (options.tune) tunings = images;
    return {};
  }

  int run() {
    InterruptGuard guard;
    {
      Progress progress(int64_t(items.size() * (options.tune ? 2 : 1) + deviceFiles.size()), options.quiet);
      int jobs = options.jobs > 0 ? options.jobs : cache::jobLimit();
      forEachOnThreads(order.order.size(), jobs, interrupted,
                       [&](size_t i) { makeImage(order.order[i], i < order.own, progress); });
      makeDeviceCode(progress);
      // One at a time: nothing may run beside a measurement. The keys of tunings are those of the images, so
      // the shares are the same, and what another rank tuned is found on record.
      if (options.tune)
        forEachOnThreads(order.order.size(), 1, interrupted,
                         [&](size_t i) { tuneOne(order.order[i], progress); });
    }
    show();
    return interrupted() ? interruptedExit : failures() ? checkFailed : success;
  }
};
} // namespace

void addWarmup(CLI::App &app, int &exitCode) {
  auto options = std::make_shared<WarmupOptions>();
  CLI::App *command =
      app.add_subcommand("warmup", "compiles and tunes what a model will ask for, into the cache");
  options->shapes.add(*command, "1..16384");
  command
      ->add_option(
          "--arch", options->arch,
          "cpu: this machine's processor; sm_90a: Hopper, no GPU needed (default: sm_90a where there is a "
          "GPU, else cpu)")
      ->check(CLI::IsMember({"cpu", "sm_90a"}));
  command->add_flag("--tune", options->tune, "also finds the fastest schedule of each call, by measuring");
  command->add_option("--seconds", options->seconds, "with --tune: of measuring, for each call")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--jobs", options->jobs,
                   "compilations at once (default: QUERN_JOBS, or what CPUs and memory allow)")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "print one JSON object instead of the summary");
  command->add_flag("--quiet", options->quiet, "no progress");
  // As torchrun sets them. CLI11 reads the environment.
  command->add_option("--rank", options->rank, "which of --world-size processes this is")->envname("RANK");
  command->add_option("--world-size", options->world, "processes that share the work through the cache")
      ->envname("WORLD_SIZE")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--local-rank", options->localRank, "the GPU of this machine to tune on")
      ->envname("LOCAL_RANK");
  command->footer(
      "Examples:\n"
      "  quern warmup --model gpt-oss-20b\n"
      "  quern warmup --model path/to/config.json --arch sm_90a\n"
      "  quern warmup gpt_oss --kernel gate_up --dim E=32,N=5760,K=2880,top_k=4 --tokens 1..4096 --tune\n"
      "  torchrun --nproc-per-node 8 --no-python quern warmup --model gpt-oss-120b --tune\n"
      "What is in the cache is skipped, so a command that was stopped goes on where it was.\n"
      "Exit code: 0 everything is ready, 1 a kernel failed, 2 an error, 130 stopped by Ctrl-C.");
  command->callback([options, &exitCode] {
    Warmup warmup(*options);
    // A launch may go on with another folder; what is to be shipped must be where it was asked for.
    Status planned = checkNamedCache();
    if (planned) planned = warmup.plan();
    exitCode = planned ? warmup.run() : report(planned.error());
  });
}

} // namespace quern::tools
