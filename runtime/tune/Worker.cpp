// See Worker.h: commands in, answers out. Whatever a candidate does to this process, the tuner starts another
// one.
#include "runtime/tune/Worker.h"
#include "runtime/driver/ToolIdentity.h"
#include "runtime/tune/Machine.h"
#include "runtime/tune/Problem.h"
#include "runtime/tune/Protocol.h"
#include "runtime/tune/Repro.h"
#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <optional>
#include <poll.h>
#include <thread>
#include <unistd.h>

namespace quern::tune {
namespace {

using protocol::Json;

/// A copy that fits the cache must be this much slower after the flush.
constexpr double leastColdness = 1.1;

/// Lines from a file descriptor.
class Lines {
  int fd;
  std::string rest;

public:
  explicit Lines(int fd) : fd(fd) {}
  std::optional<std::string> next() {
    for (;;) {
      if (size_t end = rest.find('\n'); end != rest.npos) {
        std::string text = rest.substr(0, end);
        rest.erase(0, end + 1);
        return text;
      }
      char buffer[1 << 16];
      ssize_t count = read(fd, buffer, sizeof buffer);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return std::nullopt;
      rest.append(buffer, size_t(count));
    }
  }
};

/// Ends this process when the tuner is gone, also while a kernel never returns.
void watch(int in) {
  std::thread([in] {
    for (;;) {
      pollfd peer{in, 0, 0};
      if (poll(&peer, 1, -1) > 0 && (peer.revents & (POLLHUP | POLLERR | POLLNVAL))) _exit(0);
    }
  }).detach();
}

struct Worker {
  const WorkerHooks &hooks;
  int out;
  std::optional<Problem> problem;
  std::unique_ptr<Machine> machine;
  std::optional<Data> data;
  uint64_t limit = 0;               // of generated data and decoded weights, in bytes; 0: none
  std::map<std::string, bool> warm; // schedules that ran in this process

  void say(const Json &json) const {
    std::string text = protocol::line(json);
    for (size_t done = 0; done < text.size();) {
      ssize_t count = write(out, text.data() + done, text.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) _exit(1); // nobody listens
      done += size_t(count);
    }
  }
  static Json refused(const Error &e) { return {{"error", protocol::toJson(e)}}; }

  Json start(const Json &command) {
    auto given = protocol::problemOf(command.at("problem"));
    if (!given) return refused(given.error());
    problem = std::move(*given);
    return {{"ok", true}};
  }

  Status makeMachine() {
    if (machine) return {};
    if (!problem) return Error::internal("no problem was given", "tune-worker");
    auto made = problem->target == "cpu" ? makeCpuMachine(*problem) : makeGpuMachine(*problem);
    if (!made) return made.takeError();
    machine = std::move(*made);
    return {};
  }

  Json device() {
    if (Status ok = makeMachine(); !ok) return refused(ok.error());
    DeviceIdentity d = machine->identity();
    return {{"name", d.name}, {"arch", d.arch}, {"units", d.units}};
  }

  Status selfCheck() {
    auto pairs = machine->coldAndWarm();
    if (!pairs) return pairs.takeError();
    if (pairs->empty()) return {};
    std::vector<double> ratios;
    for (auto [cold, warm] : *pairs) ratios.push_back(hooks.flushWorks ? cold / std::max(warm, 1e-3) : 1.0);
    std::ranges::sort(ratios);
    double ratio = ratios[ratios.size() / 2];
    if (ratio >= leastColdness) return {};
    return Error::system(
        fmt::format("after the flush of the cache a copy takes {:.2f} times what it takes warm, "
                    "expected at least {:.2f}: cold times cannot be told from warm ones here, "
                    "so nothing is ranked",
                    ratio, leastColdness),
        "tune");
  }

  Json open(const Json &command) {
    if (Status ok = makeMachine(); !ok) return refused(ok.error());
    if (command.at("selfCheck"))
      if (Status ok = selfCheck(); !ok) return refused(ok.error());
    limit = command.at("workspaceBytes");
    if (!limit) limit = machine->freeBytes() / 4;
    auto made = Data::make(*problem, command.at("seed"), limit);
    if (!made) return refused(made.error());
    data = std::move(*made);
    if (Status ok = machine->place(*data); !ok) return refused(ok.error());
    return {{"ok", true}, {"bytes", data->bytes}};
  }

  Failure failureOf(FailureKind kind, const Error &error, const std::string &schedule) const {
    std::string assembler = archOf(*problem) == "sm_90a" ? "ptxas " + driver::ptxasInUse() : "";
    return {kind, error.str(), reproOf(*problem, schedule), assembler};
  }
  static Json failed(const Failure &f) { return {{"failure", protocol::toJson(f)}}; }

  Json compile(const std::string &schedule) {
    if (Status ok = makeMachine(); !ok) return refused(ok.error());
    if (hooks.onCompile) hooks.onCompile(schedule);
    auto compiled = machine->compile(schedule);
    if (!compiled) {
      Json json = failed(failureOf(FailureKind::Compile, compiled.error(), schedule));
      json["illegal"] = compiled.error().kind == ErrorKind::User;
      return json;
    }
    return {{"schedule", compiled->schedule}, {"image", compiled->digest}};
  }

  Json check(const std::string &schedule, const std::vector<std::string> &expected) {
    if (!data) return refused(Error::internal("nothing was opened", "tune-worker"));
    say({{"phase", "compile"}});
    Json json = compile(schedule);
    if (json.contains("failure") || json.contains("error")) return json;
    if (uint64_t needed = machine->decodedBytes(schedule); limit && data->bytes + needed > limit)
      return failed(failureOf(
          FailureKind::Memory,
          Error::user(
              fmt::format("decoded weights take {} MB beside the call's data of about {} MB, tuning may "
                          "hold {} MB; set QUERN_TUNE_WORKSPACE",
                          needed >> 20, data->bytes >> 20, limit >> 20),
              "tune"),
          schedule));
    say({{"phase", "run"}});
    std::vector<std::string> bits;
    for (Case &c : data->cases) {
      // Twice: what a first run leaves behind must not decide a second one.
      for (int time = 0; time < 2; ++time) {
        if (Status ok = machine->run(schedule, c); !ok)
          return failed(failureOf(FailureKind::Device, ok.error(), schedule));
        if (hooks.afterRun) hooks.afterRun(schedule, c);
        if (std::string wrong = c.verdict(); !wrong.empty())
          return failed(failureOf(FailureKind::Wrong, Error::internal(wrong, c.name + " data"), schedule));
        std::string now = c.bits();
        if (time && now != bits.back())
          return failed(
              failureOf(FailureKind::Bits, Error::internal("two runs differ", c.name + " data"), schedule));
        if (!time) bits.push_back(now);
        if (!expected.empty() && now != expected[bits.size() - 1])
          return failed(failureOf(
              FailureKind::Bits,
              Error::internal("within the oracle's gates, but not the default's bits", c.name + " data"),
              schedule));
      }
    }
    warm[schedule] = true;
    json["bits"] = bits;
    return json;
  }

  Json round(const Json &command) {
    if (!data) return refused(Error::internal("nothing was opened", "tune-worker"));
    std::vector<std::string> schedules = command.at("schedules");
    Case &which = data->of(command.at("routing") == "uniform" ? Skew::Uniform : Skew::Zipf);
    auto policy = parsePolicy(command.at("policy").get<std::string>()).value_or(Policy::Device);
    gpu::Clocks before = machine->clocks();
    std::vector<double> us;
    for (size_t i = 0; i < schedules.size(); ++i) {
      say({{"running", i}});
      auto fail = [&](const Error &error) {
        Json json = failed(failureOf(FailureKind::Device, error, schedules[i]));
        json["guilty"] = i;
        return json;
      };
      if (!warm[schedules[i]]) { // this process is a new one
        auto compiled = machine->compile(schedules[i]);
        if (!compiled) return fail(compiled.error());
        if (Status ok = machine->run(schedules[i], which); !ok) return fail(ok.error());
        warm[schedules[i]] = true;
      }
      auto sample = machine->sample(schedules[i], which, policy);
      if (!sample) return fail(sample.error());
      if (hooks.onSample) hooks.onSample(schedules[i], *sample);
      us.push_back(*sample);
    }
    gpu::Clocks after = machine->clocks();
    return {{"us", us},
            {"smMHz", std::min(before.smMHz, after.smMHz)},
            {"slowed", before.slowed || after.slowed}};
  }

  Json answer(const Json &command) {
    std::string what = command.at("command");
    if (what == "problem") return start(command);
    if (what == "device") return device();
    if (what == "open") return open(command);
    if (what == "compile") return compile(command.at("schedule"));
    if (what == "check") return check(command.at("schedule"), command.at("bits"));
    if (what == "round") return round(command);
    return refused(Error::internal("unknown command " + what, "tune-worker"));
  }
};

} // namespace

int tuneWorker(int in, int out, const WorkerHooks &hooks) {
  // Whatever else prints on stdout must not get between the answers.
  int answers = dup(out);
  if (answers < 0) return 1;
  if (out == STDOUT_FILENO) dup2(STDERR_FILENO, STDOUT_FILENO);
  watch(in);
  Worker worker{hooks, answers, {}, {}, {}, 0, {}};
  Lines lines(in);
  while (auto text = lines.next()) {
    Json reply;
    try {
      reply = worker.answer(Json::parse(*text));
    } catch (const Json::exception &e) {
      reply = Worker::refused(Error::internal(e.what(), "tune-worker"));
    }
    worker.say(reply);
  }
  // Nothing is torn down: a device that failed may not come back from it.
  std::fflush(nullptr);
  _exit(0);
}

int tuneWorker(int in, int out) { return tuneWorker(in, out, {}); }

} // namespace quern::tune
