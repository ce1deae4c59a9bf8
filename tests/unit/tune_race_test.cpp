// The race by itself: simulated times, planted failures, noise. Every test prints the seed of what it draws.
#include "runtime/oracle/Random.h"
#include "runtime/tune/Race.h"
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <set>

namespace quern::tune {
namespace {

/// Times drawn around a true one for each schedule and routing.
class Simulated : public Measurer {
  oracle::Random random;
  uint64_t drawn = 0;

public:
  std::map<std::string, std::pair<double, double>> us; // uniform, zipf
  double noise = 0.05;                                 // standard deviation, relative
  std::string dies;                                    // a schedule that never survives a round
  int rounds = 0;

  explicit Simulated(uint64_t seed) : random(seed, "simulated times") {}

  Expected<DeviceIdentity> device() override { return DeviceIdentity{"simulated", "cpu", 1}; }
  Status open() override { return {}; }
  void compile(const std::vector<std::string> &, const ProgressFn &) override {}
  Checked check(const std::string &schedule, const std::vector<std::string> &) override {
    return {schedule, "", {}, {}, false};
  }
  Round round(const std::vector<std::string> &schedules, Skew skew) override {
    Round r;
    ++rounds;
    for (size_t i = 0; i < schedules.size(); ++i) {
      if (schedules[i] == dies) {
        r.us.clear(), r.guilty = i, r.failure = Failure{FailureKind::Crash, "planted", "", ""};
        return r;
      }
      auto [uniform, zipf] = us.at(schedules[i]);
      double clean = skew == Skew::Uniform ? uniform : zipf;
      // Mostly normal, sometimes an outlier upward, as on a shared machine.
      double sample = clean * (1 + noise * random.normal(drawn++));
      if (noise > 0 && random.uniform(drawn++) < 0.05) sample *= 1.5;
      r.us.push_back(sample);
    }
    if (clocks) clocks(r);
    return r;
  }
  std::function<void(Round &)> clocks;
};

std::vector<Runner> runnersOf(const Simulated &s, const std::string &standing) {
  std::vector<Runner> runners{{standing, 0, ""}};
  for (auto &[schedule, us] : s.us)
    if (schedule != standing) runners.push_back({schedule, runners.size(), ""});
  return runners;
}

TEST(TuneRace, PureNoiseKeepsTheDefault) {
  int kept = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Simulated s(seed);
    s.noise = 0.1;
    for (int i = 0; i < 24; ++i) s.us[fmt::format("s{:02}", i)] = {100, 100};
    auto result = race(s, runnersOf(s, "s07"), {}, {});
    kept += result.winner == 0;
  }
  // A winner needs an interval of its own and 2 %: by the intervals alone less than one in a thousand.
  EXPECT_GE(kept, 199) << "seeds 1 to 200";
}

TEST(TuneRace, RegretIsBoundedAndWinnersDoNotFlap) {
  std::set<std::string> winners;
  double worst = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Simulated s(seed);
    s.us = {{"default", {100, 110}}, {"slow", {150, 150}}};
    for (int i = 0; i < 8; ++i) s.us[fmt::format("near{}", i)] = {95.0 + i, 105.0 + i};
    s.us["best"] = {80, 88};
    auto runners = runnersOf(s, "default");
    auto result = race(s, runners, {}, {});
    winners.insert(runners[result.winner].schedule);
    worst = std::max(worst, s.us[runners[result.winner].schedule].second / 88);
  }
  EXPECT_EQ(winners, std::set<std::string>{"best"}) << "seeds 1 to 100";
  EXPECT_EQ(worst, 1.0);
}

TEST(TuneRace, EqualWinnersCostNothing) {
  // Three that are as good as each other: any of them may win, none that is worse may.
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Simulated s(seed);
    s.us = {{"default", {100, 100}}, {"a", {80, 80}}, {"b", {80.5, 80.5}}, {"c", {81, 81}}, {"d", {95, 95}}};
    auto runners = runnersOf(s, "default");
    auto result = race(s, runners, {}, {});
    ASSERT_NE(result.winner, 0u) << "seed " << seed;
    EXPECT_LE(s.us[runners[result.winner].schedule].first, 81) << "seed " << seed;
  }
}

TEST(TuneRace, TheWorseRoutingCounts) {
  Simulated s(3);
  s.us = {{"default", {100, 120}}, {"uniform only", {60, 140}}, {"both", {95, 100}}};
  auto runners = runnersOf(s, "default");
  auto result = race(s, runners, {}, {});
  EXPECT_EQ(runners[result.winner].schedule, "both");
}

TEST(TuneRace, SlowerUnderOneRoutingIsNoWinner) {
  Simulated s(3);
  s.us = {{"default", {60, 120}}, {"trade", {90, 100}}};
  auto result = race(s, runnersOf(s, "default"), {}, {});
  EXPECT_EQ(result.winner, 0u);
  EXPECT_NE(result.reason.find("slower with uniform routing"), std::string::npos) << result.reason;
}

TEST(TuneRace, TheDeadAreOutAndTheInnocentGoOn) {
  Simulated s(5);
  s.us = {{"default", {100, 100}}, {"good", {70, 70}}, {"killer", {1, 1}}};
  s.dies = "killer";
  auto runners = runnersOf(s, "default");
  auto result = race(s, runners, {}, {});
  EXPECT_EQ(runners[result.winner].schedule, "good");
  for (const Measurement &m : result.measurements)
    EXPECT_EQ(m.failure.has_value(), m.schedule == "killer") << m.schedule;
}

TEST(TuneRace, AFailingDefaultIsNotFair) {
  Simulated s(5);
  s.us = {{"default", {100, 100}}, {"good", {70, 70}}};
  s.dies = "default";
  auto result = race(s, runnersOf(s, "default"), {}, {});
  EXPECT_FALSE(result.fair);
  EXPECT_EQ(result.winner, 0u);
}

TEST(TuneRace, BadRoundsAreLeftOut) {
  Simulated s(7);
  s.us = {{"default", {100, 100}}, {"good", {80, 80}}};
  s.clocks = [&](Round &r) { // heat: every third round at two thirds of the clock
    r.smMHz = 1500;
    if (s.rounds % 3 == 0) {
      r.smMHz = 1000;
      for (double &us : r.us) us *= 1.5;
    }
  };
  auto result = race(s, runnersOf(s, "default"), {}, {});
  EXPECT_EQ(result.winner, 1u);
  int dropped = 0;
  for (const Measurement &m : result.finals)
    for (const Timing &t : m.timings) {
      dropped += t.dropped;
      for (double us : t.samplesUs) EXPECT_LT(us, 100 * 1.5 * 1.3);
    }
  EXPECT_GT(dropped, 0);
}

TEST(TuneRace, WhoIsClearlySlowerIsStoppedEarly) {
  Simulated s(9);
  s.us = {{"default", {100, 100}}, {"good", {80, 80}}, {"slow", {300, 300}}};
  auto result = race(s, runnersOf(s, "default"), {}, {});
  const Measurement &slow = result.measurements[2];
  ASSERT_EQ(slow.schedule, "slow");
  EXPECT_NE(slow.stopped.find("after "), std::string::npos) << slow.stopped;
  EXPECT_LT(slow.timings[0].samplesUs.size(), result.measurements[0].timings[0].samplesUs.size());
}

TEST(TuneRace, OutOfTimeKeepsTheDefaultAndIsNotRecorded) {
  Simulated s(9);
  s.us = {{"default", {100, 100}}, {"good", {50, 50}}};
  Options options;
  options.seconds = 0;
  auto result = race(s, runnersOf(s, "default"), options, {});
  EXPECT_EQ(result.winner, 0u);
  EXPECT_FALSE(result.fair);
}

TEST(TuneStatistics, IntervalsOfTheMedian) {
  // P(X < k) of binomial(40, 1/2) is at most half a percent up to k = 11 (tables): the 12th of each side.
  Timing t;
  for (int i = 1; i <= 40; ++i) t.samplesUs.push_back(i);
  summarize(t);
  EXPECT_EQ(t.medianUs, 20.5);
  EXPECT_EQ(t.lowUs, 12);
  EXPECT_EQ(t.highUs, 29);
  // Coverage, by experiment.
  oracle::Random random(11, "coverage");
  int inside = 0;
  for (int n = 0; n < 2000; ++n) {
    Timing one;
    for (int i = 0; i < 15; ++i) one.samplesUs.push_back(std::exp(random.normal(uint64_t(n * 15 + i))));
    summarize(one);
    inside += one.lowUs <= 1 && 1 <= one.highUs;
  }
  EXPECT_GE(inside, 1970) << "of 2000, seed 11";
}

} // namespace
} // namespace quern::tune
