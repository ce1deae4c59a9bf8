// Records: round trip, what is believed and what is not, and processes that end with one answer.
#include "compiler/syntax/Syntax.h"
#include "driver_support.h"
#include "runtime/cache/Listing.h"
#include "runtime/cache/Notice.h"
#include "runtime/oracle/Random.h"
#include "runtime/tune/Record.h"
#include "runtime/tune/Tune.h"
#include <cerrno>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <set>
#include <sys/wait.h>

namespace quern::tune {
namespace {

Problem problemOf(std::map<std::string, int64_t> dims = {
                      {"T", 16}, {"E", 8}, {"N", 256}, {"K", 128}, {"top_k", 2}}) {
  // Requests point at the program: one for all tests.
  static const auto program = *syntax::parseProgram(*syntax::shippedFile("gpt_oss"), "gpt_oss.qn");
  Problem p;
  p.program = program, p.kernel = "gate_up", p.dims = std::move(dims);
  return p;
}

/// The first of a few schedules is much faster than the others; times are noisy.
class Simulated final : public Measurer {
  oracle::Random random;
  uint64_t drawn = 0;
  int checked = 0;
  std::string fastest;

public:
  double gain = 0.7;
  int asked = 0;
  int favourite = 0; // the n-th schedule checked is the fast one; 0: those with band=256
  DeviceIdentity identity{"simulated CPU", "cpu", 2};
  explicit Simulated(uint64_t seed) : random(seed, "noise") {}
  Expected<DeviceIdentity> device() override { return identity; }
  std::function<void()> onOpen;
  Status open() override {
    if (onOpen) onOpen();
    return {};
  }
  void compile(const std::vector<std::string> &, const ProgressFn &) override {}
  Checked check(const std::string &schedule, const std::vector<std::string> &) override {
    Checked c;
    if (checked++ == favourite) fastest = schedule;
    c.schedule = schedule.empty() ? "cpu the default" : schedule, c.bits = {"0", "0", "0"};
    return c;
  }
  Round round(const std::vector<std::string> &schedules, Skew) override {
    Round r;
    for (const std::string &s : schedules) {
      ++asked;
      bool fast = favourite ? s == fastest : s.find("band=256") != s.npos;
      r.us.push_back((fast ? 100 * gain : 100) * (1 + 0.1 * random.normal(drawn++)));
    }
    return r;
  }
};

class TuneRecord : public testing::Test {
protected:
  test::Folder folder;
  std::unique_ptr<cache::Store> store = cache::Store::open(folder.path.string(), 1 << 30);
  static inline std::vector<std::string> notices;
  void SetUp() override {
    notices.clear(), cache::forgetNotices();
    cache::setNoticeSink([](const std::string &text) { notices.push_back(text); });
  }
  void TearDown() override { cache::setNoticeSink(nullptr); }

  Expected<Result> tuned(uint64_t seed, int *asked = nullptr, Options options = {}) {
    Simulated measurer(seed);
    auto result = tuneWith(problemOf(), options, measurer, *store);
    if (asked) *asked = measurer.asked;
    return result;
  }
};

TEST_F(TuneRecord, RoundTrip) {
  auto result = tuned(1);
  ASSERT_TRUE(result) << result.error().str();
  EXPECT_NE(result->schedule.find("band=256"), std::string::npos) << result->reason;
  // Something in every member.
  Measurement failed;
  failed.schedule = "x", failed.candidate = 3, failed.stopped = "out of time";
  failed.failure = Failure{FailureKind::Hang, "no answer", "quern run", "ptxas 13.0.88"};
  result->measurements.push_back(failed);
  std::string text = printRecord(*result);
  auto back = parseRecord(text);
  ASSERT_TRUE(back) << back.error().str();
  EXPECT_EQ(printRecord(*back), text);
  Result expected = *result;
  std::erase_if(expected.candidates, [](const Candidate &c) {
    return c.verdict == Verdict::Pruned || c.verdict == Verdict::Illegal;
  });
  expected.key = {}, expected.recordPath.clear();
  EXPECT_TRUE(*back == expected);
}

TEST_F(TuneRecord, TheSecondRunMeasuresNothing) {
  int first = 0, second = 0;
  auto a = tuned(1, &first), b = tuned(2, &second);
  ASSERT_TRUE(a && b);
  EXPECT_GT(first, 0);
  EXPECT_EQ(second, 0);
  EXPECT_TRUE(b->fromRecord);
  EXPECT_EQ(b->samples, 0);
  EXPECT_EQ(a->schedule, b->schedule);
  EXPECT_TRUE(std::filesystem::exists(b->recordPath)) << b->recordPath;
}

TEST_F(TuneRecord, EveryPartOfTheKeyCounts) {
  auto request = *requestOf(problemOf());
  DeviceIdentity device{"one", "cpu", 2};
  std::set<std::string> texts{tuningKey(request, device, Policy::Device).text()};
  auto differs = [&](const cache::Key &key) { EXPECT_TRUE(texts.insert(key.text()).second) << key.text(); };
  differs(tuningKey(request, device, Policy::Call));
  differs(tuningKey(request, {"two", "cpu", 2}, Policy::Device));
  differs(tuningKey(request, {"one", "sim", 2}, Policy::Device));
  differs(tuningKey(request, {"one", "cpu", 3}, Policy::Device));
  differs(tuningKey(*requestOf(problemOf({{"T", 64}, {"E", 8}, {"N", 256}, {"K", 128}, {"top_k", 2}})),
                    device, Policy::Device));
  differs(tuningKey(*requestOf(problemOf({{"T", 16}, {"E", 8}, {"N", 256}, {"K", 192}, {"top_k", 2}})),
                    device, Policy::Device));
  Problem other = problemOf();
  other.kernel = "down";
  differs(tuningKey(*requestOf(other), device, Policy::Device));
  other = problemOf(), other.target = "sm_90a";
  differs(tuningKey(*requestOf(other), device, Policy::Device));
  // Tokens count only by their bucket: 4 rows per expert either way.
  EXPECT_EQ(tuningKey(*requestOf(problemOf({{"T", 15}, {"E", 8}, {"N", 256}, {"K", 128}, {"top_k", 2}})),
                      device, Policy::Device)
                .text(),
            tuningKey(request, device, Policy::Device).text());
}

TEST_F(TuneRecord, ForeignSchedulesAreNotUsed) {
  auto request = *requestOf(problemOf());
  auto base = tuned(1);
  ASSERT_TRUE(base);
  for (const char *schedule : {"sm_90a bm=128", "cpu rows=5", "cpu turbo=1", "cpu dot=f32 lanes=2", "17"}) {
    Result foreign = *base;
    foreign.key.add("copy", schedule), foreign.schedule = schedule;
    ASSERT_TRUE(store->publish(foreign.key, {{{"result", printRecord(foreign)}}}));
    notices.clear(), cache::forgetNotices();
    EXPECT_FALSE(findRecord(*store, foreign.key, request)) << schedule;
    EXPECT_FALSE(findRecord(*store, foreign.key, request)) << schedule;
    ASSERT_EQ(notices.size(), 1u) << schedule;
    EXPECT_NE(notices[0].find("is not used, the default schedule is"), std::string::npos) << notices[0];
  }
  // Legal, and still no answer of this tuner: it would change bits.
  auto gpuRequest = [&] {
    Problem p = problemOf();
    p.target = "sm_90a";
    return *requestOf(p);
  }();
  EXPECT_TRUE(checkTunable(gpuRequest, "sm_90a bm=128 bn=64 decode=pairs"));
  EXPECT_TRUE(checkTunable(gpuRequest, "sm_90a bm=128 bn=64 decode=ahead"));
  EXPECT_FALSE(checkTunable(gpuRequest, "sm_90a bm=128 bn=64 decode=fast"));
  EXPECT_FALSE(checkTunable(gpuRequest, "sm_90a bm=128 bn=64 split=2"));
}

TEST_F(TuneRecord, AnotherProtocolIsNoRecord) {
  auto result = tuned(1);
  ASSERT_TRUE(result);
  std::string text = printRecord(*result);
  text.replace(text.find("\"protocol\":1"), 12, "\"protocol\":9");
  EXPECT_FALSE(parseRecord(text));
  EXPECT_FALSE(parseRecord("{}"));
  EXPECT_FALSE(parseRecord("["));
  EXPECT_FALSE(parseRecord("{\"protocol\":1}"));
}

TEST_F(TuneRecord, ADamagedFileIsTunedAnew) {
  auto result = tuned(1);
  ASSERT_TRUE(result && std::filesystem::exists(result->recordPath));
  std::string bytes;
  {
    std::ifstream in(result->recordPath);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  size_t at = bytes.find("band=256");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 7] = '8';
  std::ofstream(result->recordPath) << bytes;
  auto fresh = cache::Store::open(folder.path.string(), 1 << 30);
  EXPECT_FALSE(findRecord(*fresh, result->key, *requestOf(problemOf())));
}

TEST_F(TuneRecord, RetuningReplaces) {
  int asked = 0;
  auto first = tuned(1);
  Options options;
  options.retune = true;
  auto second = tuned(2, &asked, options);
  ASSERT_TRUE(first && second);
  EXPECT_GT(asked, 0);
  auto record = findRecord(*store, second->key, *requestOf(problemOf()));
  ASSERT_TRUE(record);
  EXPECT_EQ(record->finals.at(0).timings.at(0).samplesUs, second->finals.at(0).timings.at(0).samplesUs);
}

TEST_F(TuneRecord, ProcessesWithTheirOwnNoiseEndWithOneSchedule) {
  // Each would find another winner, and none has published when the last one begins to measure.
  constexpr int processes = 8;
  std::vector<pid_t> children;
  for (int rank = 0; rank < processes; ++rank) {
    pid_t pid = fork();
    // Under AddressSanitizer what earlier tests mapped may be more than Linux lets a process copy.
    if (pid < 0 && errno == ENOMEM && rank == 0)
      GTEST_SKIP() << "this process has mapped too much to fork; the same test runs without sanitizers";
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      auto own = cache::Store::open(folder.path.string(), 1 << 30);
      Simulated measurer(uint64_t(100 + rank));
      measurer.favourite = 1 + rank;
      measurer.onOpen = [&] {
        std::ofstream(folder.path / fmt::format("here{}", rank)) << "";
        for (int there = 0, tries = 0; there < processes && tries < 2000; ++tries, usleep(5000)) {
          there = 0;
          for (int r = 0; r < processes; ++r)
            there += std::filesystem::exists(folder.path / fmt::format("here{}", r));
        }
      };
      auto result = tuneWith(problemOf(), {}, measurer, *own);
      std::ofstream(folder.path / fmt::format("rank{}.txt", rank))
          << (result ? "schedule: " + result->schedule : result.error().str());
      std::ofstream(folder.path / fmt::format("own{}.txt", rank))
          << (result ? result->finals.at(1).schedule : "");
      _exit(0);
    }
    children.push_back(pid);
  }
  for (pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  std::set<std::string> answers, own;
  for (int rank = 0; rank < processes; ++rank)
    for (auto [name, all] : {std::pair{"rank", &answers}, {"own", &own}}) {
      std::ifstream in(folder.path / fmt::format("{}{}.txt", name, rank));
      all->insert(std::string(std::istreambuf_iterator<char>(in), {}));
    }
  EXPECT_EQ(own.size(), size_t(processes)) << "each was to find another one";
  EXPECT_EQ(answers.size(), 1u) << testing::PrintToString(answers);
  EXPECT_TRUE(answers.begin()->starts_with("schedule: "));
}

TEST_F(TuneRecord, NoiseAloneKeepsTheDefaultOnRecord) {
  Simulated measurer(4);
  measurer.gain = 1;
  auto result = tuneWith(problemOf(), {}, measurer, *store);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->schedule, "");
  EXPECT_TRUE(findRecord(*store, result->key, *requestOf(problemOf()))); // so that nobody measures it again
}

} // namespace
} // namespace quern::tune
