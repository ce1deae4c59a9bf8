// See ProcessMeasurer.h. A worker that died or hung is replaced before the next question; whoever it was busy
// with takes the blame, everyone else is asked for again.
#include "runtime/tune/ProcessMeasurer.h"
#include "runtime/cache/JobSlots.h"
#include "runtime/cache/Store.h"
#include "runtime/driver/ToolIdentity.h"
#include "runtime/tune/Problem.h"
#include "runtime/tune/Repro.h"
#include <atomic>
#include <chrono>
#include <fmt/format.h>
#include <mutex>
#include <thread>

namespace quern::tune {

using protocol::Json;

ProcessMeasurer::ProcessMeasurer(Problem problem, Options options, std::string executable, Limits limits)
    : problem(std::move(problem)), options(std::move(options)), limits(limits), child(std::move(executable)) {
}

Json ProcessMeasurer::problemCommand() const {
  return {{"command", "problem"}, {"problem", protocol::toJson(problem)}};
}

Json ProcessMeasurer::openCommand(bool selfCheck) const {
  return {{"command", "open"},
          {"seed", options.seed},
          {"workspaceBytes", options.workspaceBytes},
          {"selfCheck", selfCheck}};
}

namespace {

Error notAnswered(const Reply &reply, std::string_view what) {
  if (reply.state == Reply::Answered) return protocol::errorOf(reply.json.at("error"));
  if (reply.state == Reply::TimedOut)
    return Error::system(fmt::format("the worker gave no answer to '{}'", what), "tune");
  if (reply.state == Reply::NotStarted) return Error::system("the worker was not started", "tune");
  return Error::system(fmt::format("the worker ended at '{}': {}", what, reply.how), "tune");
}

bool good(const Reply &reply) { return reply.state == Reply::Answered && !reply.json.contains("error"); }

} // namespace

Status ProcessMeasurer::ready() {
  if (child.alive()) return {};
  if (Status ok = child.start(); !ok) return ok;
  if (Reply reply = child.ask(problemCommand(), limits.start); !good(reply))
    return notAnswered(reply, "problem");
  if (!opened) return {};
  // The flush was checked once; a bad moment of the machine must not look like a candidate's fault.
  if (Reply reply = child.ask(openCommand(false), limits.open); !good(reply))
    return notAnswered(reply, "open");
  return {};
}

Expected<DeviceIdentity> ProcessMeasurer::device() {
  if (Status ok = ready(); !ok) return ok.takeError();
  Reply reply = child.ask({{"command", "device"}}, limits.start);
  if (!good(reply)) return notAnswered(reply, "device");
  return DeviceIdentity{reply.json.at("name"), reply.json.at("arch"), reply.json.at("units")};
}

Status ProcessMeasurer::open() {
  if (Status ok = ready(); !ok) return ok;
  if (Reply reply = child.ask(openCommand(true), limits.open); !good(reply))
    return notAnswered(reply, "open");
  opened = true;
  return {};
}

void ProcessMeasurer::compile(const std::vector<std::string> &schedules, const ProgressFn &progress) {
  // Without a folder what a process compiles stays in it; the simulator's code is never kept.
  if (cache::Store::user().folder().empty() || problem.target == "sim") return;
  int jobs = options.jobs > 0 ? options.jobs : cache::jobLimit();
  std::atomic<size_t> next{0}, done{0};
  std::mutex telling;
  auto start = std::chrono::steady_clock::now();
  auto outOfTime = [&] {
    return std::chrono::steady_clock::now() - start > std::chrono::duration<double>(2 * options.seconds);
  };
  auto work = [&] {
    Child compiler(child.program());
    for (size_t i; !outOfTime() && (i = next++) < schedules.size();) {
      if (!compiler.alive()) {
        if (!compiler.start()) return;
        if (!good(compiler.ask(problemCommand(), limits.start))) return;
      }
      compiler.ask({{"command", "compile"}, {"schedule", schedules[i]}}, limits.compile);
      std::lock_guard lock(telling);
      if (progress) progress({Progress::Compiling, ++done, schedules.size(), schedules[i]});
    }
  };
  std::vector<std::thread> threads;
  for (int t = 1; t < std::min<int>(jobs, int(schedules.size())); ++t) threads.emplace_back(work);
  work();
  for (std::thread &t : threads) t.join();
}

Failure ProcessMeasurer::failureOf(const Reply &reply, const std::string &schedule, double limit) const {
  Failure failure;
  failure.repro = reproOf(problem, schedule);
  if (archOf(problem) == "sm_90a") failure.assembler = "ptxas " + driver::ptxasInUse();
  bool compiling = reply.progress.is_object() && reply.progress.value("phase", "") == "compile";
  std::string during = compiling ? "compiling" : "running";
  if (reply.state == Reply::TimedOut) {
    failure.kind = compiling ? FailureKind::Compile : FailureKind::Hang;
    failure.message = fmt::format("no answer within {:g} s while {}", limit, during);
  } else {
    failure.kind = compiling ? FailureKind::Compile : FailureKind::Crash;
    failure.message = fmt::format("the process ended while {}: {}", during, reply.how);
  }
  return failure;
}

Checked ProcessMeasurer::check(const std::string &schedule, const std::vector<std::string> &expected) {
  Checked checked;
  if (Status ok = ready(); !ok) {
    checked.failure = Failure{FailureKind::Crash, ok.error().str(), "", ""};
    return checked;
  }
  Reply reply = child.ask({{"command", "check"}, {"schedule", schedule}, {"bits", expected}},
                          std::max(limits.compile, limits.run));
  if (!good(reply)) {
    checked.failure = reply.state == Reply::Answered
                          ? Failure{FailureKind::Crash, notAnswered(reply, "check").str(), "", ""}
                          : failureOf(reply, schedule, std::max(limits.compile, limits.run));
    return checked;
  }
  const Json &json = reply.json;
  if (json.contains("failure")) {
    checked.failure = protocol::failureOf(json.at("failure"));
    checked.refused = json.value("illegal", false);
    // The device may be of no use to this process any more.
    if (checked.failure->kind == FailureKind::Device) child.kill();
    return checked;
  }
  checked.schedule = json.at("schedule"), checked.image = json.at("image");
  checked.bits = json.at("bits").get<std::vector<std::string>>();
  return checked;
}

Round ProcessMeasurer::round(const std::vector<std::string> &schedules, Skew skew) {
  Round round;
  auto blame = [&](size_t who, Failure failure) {
    round.guilty = who, round.failure = std::move(failure), round.us.clear();
    return round;
  };
  // A new worker compiles what it has not run.
  double limit = child.alive() ? limits.sample : limits.compile;
  if (Status ok = ready(); !ok) return blame(0, {FailureKind::Crash, ok.error().str(), "", ""});
  Json question = {{"command", "round"},
                   {"schedules", schedules},
                   {"routing", name(skew)},
                   {"policy", name(options.policy)}};
  Reply reply = child.ask(question, limit);
  if (reply.state != Reply::Answered) {
    size_t who = reply.progress.is_object() ? reply.progress.value("running", size_t(0)) : 0;
    who = std::min(who, schedules.size() - 1);
    return blame(who, failureOf(reply, schedules[who], limit));
  }
  if (reply.json.contains("error"))
    return blame(0, {FailureKind::Crash, notAnswered(reply, "round").str(), "", ""});
  if (reply.json.contains("failure")) {
    child.kill();
    return blame(std::min<size_t>(reply.json.value("guilty", size_t(0)), schedules.size() - 1),
                 protocol::failureOf(reply.json.at("failure")));
  }
  round.us = reply.json.at("us").get<std::vector<double>>();
  round.smMHz = reply.json.at("smMHz"), round.slowed = reply.json.at("slowed");
  return round;
}

} // namespace quern::tune
