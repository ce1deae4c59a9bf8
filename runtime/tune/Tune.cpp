// From a problem to a result: rank, compile, check, race, keep.
#include "runtime/tune/Tune.h"
#include "runtime/cache/Limit.h"
#include "runtime/config/Knobs.h"
#include "runtime/tune/Problem.h"
#include "runtime/tune/ProcessMeasurer.h"
#include "runtime/tune/Race.h"
#include "runtime/tune/Record.h"
#include "runtime/tune/Space.h"
#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace quern::tune {
namespace {

using Clock = std::chrono::steady_clock;
double secondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Tuning {
  const Problem &problem;
  const Options &options;
  Measurer &measurer;
  const ProgressFn &progress;
  jit::Request request;
  Result result;

  void tell(Progress::Stage stage, size_t done, size_t total, std::string text) const {
    if (progress) progress({stage, done, total, std::move(text)});
  }

  Status describe() {
    auto made = requestOf(problem);
    if (!made) return made.takeError();
    request = std::move(*made);
    auto work = workloadOf(problem, request);
    if (!work) return work.takeError();
    result.work = std::move(*work), result.policy = options.policy;
    return {};
  }

  /// The space, behind the default.
  Status rankAll() {
    auto shape = shapeOf(problem, request);
    if (!shape) return shape.takeError();
    shape->units = result.device.units;
    Candidate standing;
    standing.verdict = Verdict::Default, standing.reason = "what a call uses that nobody tuned";
    result.candidates = {standing};
    for (Candidate &c : enumerate(request, *shape, result.device, options))
      result.candidates.push_back(std::move(c));
    for (const Candidate &c : result.candidates)
      result.pruned += c.verdict == Verdict::Pruned, result.illegal += c.verdict == Verdict::Illegal;
    tell(Progress::Ranking, result.candidates.size(), result.candidates.size(),
         fmt::format("{} schedules: {} to measure, {} expected to be slower, {} illegal",
                     result.candidates.size(),
                     result.candidates.size() - size_t(result.pruned + result.illegal) - 1, result.pruned,
                     result.illegal));
    return {};
  }

  std::vector<size_t> toMeasure() const {
    std::vector<size_t> kept;
    for (size_t i = 0; i < result.candidates.size(); ++i)
      if (auto v = result.candidates[i].verdict; v == Verdict::Default || v == Verdict::Kept)
        kept.push_back(i);
    return kept;
  }

  void compileAll() {
    auto start = Clock::now();
    std::vector<std::string> schedules;
    for (size_t i : toMeasure()) schedules.push_back(result.candidates[i].schedule);
    tell(Progress::Compiling, 0, schedules.size(), "");
    measurer.compile(schedules, progress);
    result.compileSeconds = secondsSince(start);
  }

  std::vector<Measurement> failed;

  void keepFailure(size_t candidate, const Checked &checked) {
    Candidate &c = result.candidates[candidate];
    if (checked.refused) {
      c.verdict = Verdict::Illegal, c.reason = checked.failure->message, ++result.illegal;
      return;
    }
    Measurement m;
    m.schedule = c.schedule, m.candidate = candidate, m.failure = checked.failure;
    failed.push_back(std::move(m));
  }

  /// Those that compile and are right; the default first. An error when that one is not.
  Expected<std::vector<Runner>> checkAll() {
    std::vector<Runner> runners;
    std::vector<std::string> bits;
    std::vector<size_t> kept = toMeasure();
    auto start = Clock::now();
    for (size_t n = 0; n < kept.size(); ++n) {
      Candidate &c = result.candidates[kept[n]];
      if (n && secondsSince(start) > options.seconds) {
        c.verdict = Verdict::Pruned, c.reason += "; out of time before it was checked", ++result.pruned;
        continue;
      }
      tell(Progress::Checking, n, kept.size(), c.schedule.empty() ? "the default" : c.schedule);
      Checked checked = measurer.check(c.schedule, bits);
      if (n == 0 && checked.failure) {
        Error error = Error::internal(fmt::format("the default schedule fails ({}): {}",
                                                  name(checked.failure->kind), checked.failure->message),
                                      fmt::format("kernel '{}'", problem.kernel));
        if (!checked.failure->repro.empty()) error.detail = "repeat with: " + checked.failure->repro;
        return error;
      }
      if (checked.failure) {
        keepFailure(kept[n], checked);
        continue;
      }
      if (n == 0) bits = checked.bits, result.defaultSchedule = c.schedule = checked.schedule;
      auto same = std::ranges::find(runners, checked.schedule, &Runner::schedule);
      if (same != runners.end()) {
        c.verdict = Verdict::Duplicate;
        c.reason = same->candidate == 0 ? "the default" : fmt::format("the same as \"{}\"", same->schedule);
        continue;
      }
      runners.push_back({checked.schedule, kept[n], checked.image});
    }
    tell(Progress::Checking, kept.size(), kept.size(), fmt::format("{} to race", runners.size()));
    return runners;
  }

  void raceAll(const std::vector<Runner> &runners, bool &fair) {
    auto start = Clock::now();
    RaceResult raced = race(measurer, runners, options, progress);
    result.measureSeconds = secondsSince(start);
    result.measurements = std::move(raced.measurements), result.finals = std::move(raced.finals);
    for (Measurement &m : failed) result.measurements.push_back(std::move(m));
    result.reason = raced.reason, result.samples = raced.samples, fair = raced.fair;
    if (raced.winner) result.schedule = runners[raced.winner].schedule;
  }
};

DeviceIdentity modelDevice(const Problem &problem) {
  return problem.target == "cpu" ? cpuIdentity() : DeviceIdentity{"H100 (model)", archOf(problem), 132};
}

uint64_t workspaceOf(const Options &options) {
  if (options.workspaceBytes) return options.workspaceBytes;
  auto text = config::value(config::Knob::TuneWorkspace);
  return text ? cache::parseBytes(*text).value_or(0) : 0;
}

} // namespace

Expected<Result> tuneWith(const Problem &problem, const Options &options, Measurer &measurer,
                          cache::Store &store, const ProgressFn &progress) {
  Tuning t{problem, options, measurer, progress, {}, {}, {}};
  if (Status ok = t.describe(); !ok) return ok.takeError();
  auto refuse = [&](std::string reason) -> Expected<Result> {
    t.result.refused = std::move(reason), t.result.reason = "default kept: nothing was measured";
    if (t.result.device.arch.empty()) t.result.device = modelDevice(problem);
    if (t.result.candidates.empty())
      if (Status ok = t.rankAll(); !ok) return ok.takeError();
    t.tell(Progress::Done, 1, 1, t.result.refused);
    return std::move(t.result);
  };
  if (!options.measure || problem.target == "sm_90a") return refuse("ranked by the cost model alone");
  auto device = measurer.device();
  if (!device) return refuse(device.error().str());
  t.result.device = *device;
  t.result.key = tuningKey(t.request, *device, options.policy);
  if (!options.retune)
    if (auto record = findRecord(store, t.result.key, t.request)) {
      record->samples = 0;
      t.tell(Progress::Done, 1, 1, "on record: " + record->reason);
      return std::move(*record);
    }
  if (Status ok = t.rankAll(); !ok) return ok.takeError();
  t.compileAll();
  if (Status ok = measurer.open(); !ok) return refuse(ok.error().str());
  auto runners = t.checkAll();
  if (!runners) return runners.takeError();
  bool fair = false;
  t.raceAll(*runners, fair);
  if (device->arch == "sim") {
    t.result.schedule.clear();
    t.result.reason = "default kept: the simulator's times rank nothing (" + t.result.reason + ")";
  } else if (fair) {
    if (options.retune) store.discard(t.result.key);
    Result standing = keepRecord(store, t.result, t.request);
    if (standing.fromRecord && standing.schedule != t.result.schedule) {
      t.result.reason =
          fmt::format("another process was first: {} (here: {})", standing.reason, t.result.reason);
      t.result.schedule = standing.schedule;
    }
    t.result.recordPath = standing.recordPath;
  }
  t.tell(Progress::Done, 1, 1, t.result.reason);
  return std::move(t.result);
}

Expected<Result> tune(const Problem &problem, const Options &options, const ProgressFn &progress) {
  Options full = options;
  full.workspaceBytes = workspaceOf(options);
  auto executable = workerExecutable(options.executable);
  if (!executable && full.measure && problem.target != "sm_90a") {
    // Ranked all the same; the reason says what is missing.
    full.measure = false;
    ProcessMeasurer none(problem, full, "");
    auto result = tuneWith(problem, full, none, cache::Store::user(), progress);
    if (result) result->refused = executable.error().str();
    return result;
  }
  if (executable) full.executable = *executable;
  ProcessMeasurer measurer(problem, full, full.executable);
  return tuneWith(problem, full, measurer, cache::Store::user(), progress);
}

Expected<std::vector<Candidate>> rank(const Problem &problem, const Options &options) {
  Options alone = options;
  alone.measure = false;
  auto result = tune(problem, alone);
  if (!result) return result.takeError();
  return std::move(result->candidates);
}

} // namespace quern::tune
