// Tuning in a real child process on the CPU, with kernels that misbehave as planted
// (tests/support/tune_worker).
#include "compiler/syntax/Syntax.h"
#include "driver_support.h"
#include "runtime/tune/ProcessMeasurer.h"
#include "runtime/tune/Tune.h"
#include <csignal>
#include <gtest/gtest.h>
#include <regex>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace quern::tune {
namespace {

Problem smallProblem(const char *target = "cpu") {
  Problem p;
  p.program = *syntax::parseProgram(*syntax::shippedFile("gpt_oss"), "gpt_oss.qn");
  p.kernel = "gate_up", p.target = target;
  p.dims = {{"T", 16}, {"E", 4}, {"N", 128}, {"K", 64}, {"top_k", 2}};
  return p;
}

class JitTune : public testing::Test {
protected:
  test::Folder folder;
  std::unique_ptr<cache::Store> store = cache::Store::open(folder.path.string(), 1 << 30);
  Options options;
  Limits limits;

  void SetUp() override {
    options.executable = QUERN_TUNE_WORKER;
    options.maxCandidates = 4, options.maxRounds = 8, options.finalRounds = 16, options.seconds = 60;
    options.pruneAbove = 100;
    limits.sample = 3;
  }
  Expected<Result> tuned(const std::string &plant, const Problem &problem = smallProblem()) {
    test::Environment planted("QUERN_PLANT", plant);
    ProcessMeasurer measurer(problem, options, options.executable, limits);
    return tuneWith(problem, options, measurer, *store);
  }
  /// What a schedule in the space has and the default has not.
  std::string someCandidate(size_t n = 0, const Problem &problem = smallProblem()) {
    auto space = rank(problem, options);
    for (const Candidate &c : *space)
      if (c.verdict == Verdict::Kept && n-- == 0) return c.schedule;
    return "no such candidate";
  }
  static const Measurement *find(const Result &r, const std::string &schedule) {
    for (const Measurement &m : r.measurements)
      if (m.schedule == schedule) return &m;
    return nullptr;
  }
};

TEST_F(JitTune, MeasuresOnTheCpu) {
  auto result = tuned("");
  ASSERT_TRUE(result) << result.error().str();
  ASSERT_EQ(result->refused, "");
  EXPECT_GT(result->samples, 0);
  EXPECT_TRUE(result->defaultSchedule.starts_with("cpu isa=")) << result->defaultSchedule;
  ASSERT_GE(result->measurements.size(), 3u);
  for (const Measurement &m : result->measurements) {
    EXPECT_FALSE(m.failure) << m.schedule << ": " << m.failure->message;
    ASSERT_EQ(m.timings.size(), 2u);
    EXPECT_GT(m.timings[0].medianUs, 0);
    EXPECT_EQ(m.image.size(), 16u);
  }
}

TEST_F(JitTune, AWrongFastestCandidateNeverWins) {
  std::string wrong = someCandidate();
  auto result = tuned("wrong:" + wrong);
  ASSERT_TRUE(result) << result.error().str();
  const Measurement *m = find(*result, wrong);
  ASSERT_TRUE(m && m->failure);
  EXPECT_EQ(m->failure->kind, FailureKind::Wrong) << m->failure->message;
  EXPECT_NE(m->failure->repro.find("QUERN_CPU_SCHEDULE='" + wrong + "' quern run"), std::string::npos)
      << m->failure->repro;
  EXPECT_NE(result->schedule, wrong);
  EXPECT_TRUE(m->timings.empty()) << "it was timed";
}

TEST_F(JitTune, AFastCandidateWins) {
  // The counterpart: what wins there would have won by its time alone.
  std::string fast = someCandidate();
  auto result = tuned("fast:" + fast);
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_EQ(result->schedule, fast) << result->reason;
  auto again = tuned("");
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->fromRecord);
  EXPECT_EQ(again->schedule, fast);
}

TEST_F(JitTune, OtherBitsThanTheDefaultsAreRefused) {
  // The last bit of an fp32 output: far within the oracle's gates.
  Problem down = smallProblem();
  down.kernel = "down";
  std::string other = someCandidate(1, down);
  auto result = tuned("bits:" + other, down);
  ASSERT_TRUE(result) << result.error().str();
  const Measurement *m = find(*result, other);
  ASSERT_TRUE(m && m->failure);
  EXPECT_EQ(m->failure->kind, FailureKind::Bits) << m->failure->message;
}

TEST_F(JitTune, ACrashIsOutAndTheInnocentAreMeasured) {
  std::string guilty = someCandidate(1), innocent = someCandidate(0);
  auto result = tuned("crash:" + guilty);
  ASSERT_TRUE(result) << result.error().str();
  const Measurement *m = find(*result, guilty);
  ASSERT_TRUE(m && m->failure);
  EXPECT_EQ(m->failure->kind, FailureKind::Crash);
  EXPECT_NE(m->failure->message.find("signal 11"), std::string::npos) << m->failure->message;
  const Measurement *other = find(*result, innocent);
  ASSERT_TRUE(other);
  EXPECT_FALSE(other->failure) << other->failure->message;
  EXPECT_GE(other->timings[0].samplesUs.size(), 5u);
}

TEST_F(JitTune, ALoopIsOutAndTheInnocentAreMeasured) {
  std::string guilty = someCandidate(2), innocent = someCandidate(0);
  limits.sample = 1;
  auto result = tuned("loop:" + guilty);
  ASSERT_TRUE(result) << result.error().str();
  const Measurement *m = find(*result, guilty);
  ASSERT_TRUE(m && m->failure);
  EXPECT_EQ(m->failure->kind, FailureKind::Hang) << m->failure->message;
  EXPECT_FALSE(find(*result, innocent)->failure) << find(*result, innocent)->failure->message;
}

TEST_F(JitTune, ACompilerThatDiesIsAFailureOfThatCandidate) {
  std::string guilty = someCandidate(0), innocent = someCandidate(1);
  auto result = tuned("compile:" + guilty);
  ASSERT_TRUE(result) << result.error().str();
  const Measurement *m = find(*result, guilty);
  ASSERT_TRUE(m && m->failure);
  EXPECT_EQ(m->failure->kind, FailureKind::Compile) << m->failure->message;
  EXPECT_FALSE(find(*result, innocent)->failure) << find(*result, innocent)->failure->message;
}

TEST_F(JitTune, AFailingDefaultIsAnError) {
  auto result = tuned("wrong:"); // every schedule
  ASSERT_FALSE(result) << result->refused;
  EXPECT_EQ(result.error().kind, ErrorKind::Internal);
  EXPECT_NE(result.error().message.find("the default schedule fails (wrong)"), std::string::npos)
      << result.error().str();
  EXPECT_NE(result.error().detail.find("repeat with: quern run gpt_oss.qn"), std::string::npos)
      << result.error().detail;
}

TEST_F(JitTune, WithoutAWorkingFlushNothingIsRanked) {
  auto result = tuned("flush:");
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_NE(result->refused.find("cold times cannot be told from warm ones"), std::string::npos)
      << result->refused;
  EXPECT_EQ(result->samples, 0);
  EXPECT_EQ(result->schedule, "");
  EXPECT_FALSE(result->candidates.empty()); // ranked by the model all the same
  EXPECT_EQ(result->recordPath, "");
}

TEST_F(JitTune, DataBeyondTheWorkspaceAreRefused) {
  options.workspaceBytes = 1000;
  auto result = tuned("");
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_NE(result->refused.find("QUERN_TUNE_WORKSPACE"), std::string::npos) << result->refused;
}

/// decode=ahead takes memory besides the data: too much of it is a failure of that candidate alone.
TEST_F(JitTune, DecodedWeightsBeyondTheWorkspaceAreOut) {
  Problem problem = smallProblem("sim");
  problem.dims = {{"T", 16}, {"E", 4}, {"N", 256}, {"K", 256}, {"top_k", 2}}; // 512 KB of 16-bit weights
  std::vector<std::string> bits;
  for (uint64_t workspace : {500'000, 8'000'000}) {
    options.workspaceBytes = workspace;
    ProcessMeasurer measurer(problem, options, options.executable, limits);
    Status open = measurer.open();
    ASSERT_TRUE(open) << open.error().str();
    Checked exact = measurer.check("bn=32 stages=3", {});
    ASSERT_FALSE(exact.failure) << exact.failure->message;
    Checked ahead = measurer.check("bn=32 stages=3 decode=ahead", exact.bits);
    if (workspace > 1'000'000) {
      EXPECT_FALSE(ahead.failure) << ahead.failure->message;
      EXPECT_EQ(ahead.bits, exact.bits);
      continue;
    }
    ASSERT_TRUE(ahead.failure);
    EXPECT_EQ(ahead.failure->kind, FailureKind::Memory);
    EXPECT_NE(ahead.failure->message.find("set QUERN_TUNE_WORKSPACE"), std::string::npos)
        << ahead.failure->message;
    EXPECT_FALSE(measurer.check("bn=32 stages=4", exact.bits).failure) << "the worker goes on";
  }
}

TEST_F(JitTune, AMissingWorkerIsSaid) {
  options.executable = folder.path / "nothing";
  auto result = tune(smallProblem(), options);
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_NE(result->refused.find("`quern`, which measures in a process of its own, was not found"),
            std::string::npos);
  EXPECT_FALSE(result->candidates.empty());
  // A program that is no worker.
  options.executable = "/bin/true";
  ProcessMeasurer measurer(smallProblem(), options, options.executable, limits);
  auto other = tuneWith(smallProblem(), options, measurer, *store);
  ASSERT_TRUE(other);
  EXPECT_NE(other->refused.find("the worker ended"), std::string::npos) << other->refused;
}

TEST_F(JitTune, AChildAnswersUntilItIsKilled) {
  test::Environment planted("QUERN_PLANT", "stuck:");
  Child child(options.executable);
  ASSERT_TRUE(child.start());
  protocol::Json problem = {{"command", "problem"}, {"problem", protocol::toJson(smallProblem())}};
  EXPECT_EQ(child.ask(problem, 30).state, Reply::Answered);
  EXPECT_EQ(child.ask({{"command", "nonsense"}}, 30).json.at("error").at("message"),
            "unknown command nonsense");
  EXPECT_EQ(child.ask({{"command", "compile"}, {"schedule", ""}}, 0.3).state, Reply::TimedOut);
  EXPECT_FALSE(child.alive());
  EXPECT_EQ(child.ask(problem, 1).state, Reply::NotStarted);
}

TEST_F(JitTune, AWorkerThatIsStuckEndsWithTheTuner) {
  test::Environment planted("QUERN_PLANT", "stuck:");
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    dup2(ends[1], 0), dup2(ends[1], 1);
    execl(options.executable.c_str(), "quern", "tune-worker", nullptr);
    _exit(127);
  }
  close(ends[1]);
  std::string text = protocol::line({{"command", "problem"}, {"problem", protocol::toJson(smallProblem())}}) +
                     protocol::line({{"command", "compile"}, {"schedule", ""}});
  ASSERT_EQ(write(ends[0], text.data(), text.size()), ssize_t(text.size()));
  char answer[64];
  ASSERT_GT(read(ends[0], answer, sizeof answer), 0); // to the problem; the other one never comes
  usleep(100'000);
  ASSERT_EQ(waitpid(pid, nullptr, WNOHANG), 0) << "it is still at work";
  close(ends[0]);
  pid_t gone = 0;
  for (int i = 0; i < 200 && !gone; ++i) gone = waitpid(pid, nullptr, WNOHANG), usleep(50'000);
  EXPECT_EQ(gone, pid);
  if (!gone) kill(pid, SIGKILL), waitpid(pid, nullptr, 0);
}

TEST_F(JitTune, DenseKernelsToo) {
  Problem p;
  p.program = *syntax::parseProgram(*syntax::shippedFile("linear"), "linear.qn");
  p.kernel = p.program->kernels[0].name;
  options.maxCandidates = 2;
  auto result = tuned("", p);
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_EQ(result->refused, "");
  for (const Measurement &m : result->measurements) EXPECT_FALSE(m.failure) << m.failure->message;
}

/// An untuned call on a GPU takes one of three lines, by rows per expert. They were measured, and must be
/// what the model would take but for its own error (20 %).
TEST_F(JitTune, WhatAnUntunedCallTakesIsAmongTheModelsBest) {
  for (const char *kernel : {"gate_up", "down"})
    for (int64_t tokens : {16, 64, 256, 512, 1024, 4096}) {
      Problem p = smallProblem("sm_90a");
      p.kernel = kernel;
      p.dims = {{"T", tokens}, {"E", 32}, {"N", *kernel == 'd' ? 2880 : 5760}, {"K", 2880}, {"top_k", 4}};
      auto request = requestOf(p);
      ASSERT_TRUE(request) << request.error().str();
      auto text = jit::emitThroughLibrary({*request, "scheduled", "", ""});
      ASSERT_TRUE(text) << text.error().str();
      // "... schedule = \"sm_90a bm=128 bn=256 stages=5 ...\"": the fields that the model looks at, without
      // the depth of the pipeline, which it takes for deep enough.
      std::smatch line;
      std::regex form(
          "(sm_90a bm=\\d+ bn=\\d+) stages=\\d+( cluster=\\d+ gather=\\w+ decode=\\w+).*( ctas=\\d+)");
      ASSERT_TRUE(std::regex_search(*text, line, form)) << *text;
      double best = 1e9, ours = 1e9;
      auto space = rank(p, options);
      ASSERT_TRUE(space) << space.error().str();
      for (const Candidate &c : *space) {
        if (c.verdict == Verdict::Illegal || c.predictedUs <= 0) continue;
        best = std::min(best, c.predictedUs);
        if (c.schedule.starts_with(line[1].str() + " ") &&
            c.schedule.ends_with(line[2].str() + line[3].str()))
          ours = std::min(ours, c.predictedUs);
      }
      EXPECT_LE(ours, 1.2 * best) << kernel << ", " << tokens << " tokens: " << line[0];
    }
}

TEST_F(JitTune, TheWholePathOnTheSimulator) {
  options.maxCandidates = 2, options.maxRounds = 1, options.finalRounds = 1, options.minRounds = 1;
  auto result = tuned("", smallProblem("sim"));
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_EQ(result->refused, "");
  EXPECT_TRUE(result->defaultSchedule.starts_with("sm_90a bm=")) << result->defaultSchedule;
  ASSERT_GE(result->measurements.size(), 2u);
  for (const Measurement &m : result->measurements)
    EXPECT_FALSE(m.failure) << m.schedule << m.failure->message;
  EXPECT_EQ(result->schedule, "") << "simulated times rank nothing";
  EXPECT_EQ(result->recordPath, "");
}

} // namespace
} // namespace quern::tune
