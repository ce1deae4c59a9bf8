// Automatic mutants (codegen/sim/Mutate.h) of whole kernels: each is one small fault in the program that
// becomes PTX. Almost all must be noticed; survivors.txt says why the rest cannot be. By default a sample;
// QUERN_MUTANTS=all, or a number. QUERN_MUTANT=<index> runs one and shows what was found. QUERN_TEST_SEED
// chooses the sample, data and schedules.
#include "codegen/sim/Mutate.h"
#include "tests/sim/Isolated.h"
#include "tests/sim/Rig.h"
#include "tests/sim/Survivors.h"
#include <chrono>
#include <cmath>
#include <deque>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <thread>

namespace quern::simtest {
namespace {

/// A kernel and the data that its mutants meet, one after the other, until one of them shows the fault.
struct Family {
  const char *name;
  const char *schedule;
  size_t sample; // in a default run
};

/// Two tiles of an expert, an expert without rows, rows beyond the live ones; several tiles per CTA.
const std::vector<int64_t> ragged = {20, 0, 70, 33};
/// Tiles of one row, of exactly each width, and of several; every row is live.
const std::vector<int64_t> edges = {1, 64, 32, 0, 131, 128};

/// More experts than a CTA has threads: the tile table takes two rounds.
std::vector<int64_t> many() {
  std::vector<int64_t> rows(400, 0);
  rows[383] = 40, rows[384] = 9, rows[399] = 70;
  for (size_t expert : {0, 5, 8, 9, 15, 16, 17, 24, 30, 32})
    rows[expert] = 1; // far and near lanes of the scan
  return rows;
}

Subject subjectOf(const Family &family, const std::vector<int64_t> &rows, int64_t spare) {
  int64_t all = spare;
  for (int64_t r : rows) all += r;
  return {family.name,
          "gpt_oss.qn",
          "gate_up",
          family.schedule,
          {{"T", all / std::min<int64_t>(2, rows.size())},
           {"E", int64_t(rows.size())},
           {"N", 256},
           {"K", 256},
           {"top_k", std::min<int64_t>(2, rows.size())}},
          rows};
}

struct Round {
  Rig *rig;
  sim::Scheduler scheduler;
  sim::CopyMode copies;
  bool convergence = true;
};

class Experiment {
  std::deque<Rig> rigs;
  std::vector<Round> rounds;
  Rig::Lowered lowered;

  void add(const Family &family, const std::vector<int64_t> &rows, int64_t spare, sim::Scheduler scheduler,
           sim::CopyMode copies, bool reversed = false) {
    const Rig *compiled = rigs.empty() ? nullptr : &rigs.front();
    Subject subject = subjectOf(family, rows, spare);
    subject.reversed = reversed;
    rigs.emplace_back(subject, jittest::seed() + rigs.size(), compiled);
    rounds.push_back({&rigs.back(), scheduler, copies});
  }

public:
  std::vector<std::string> descriptions;
  explicit Experiment(const Family &family) {
    using sim::Scheduler, sim::CopyMode;
    add(family, ragged, 1, Scheduler::Random, CopyMode::Lazy);
    add(family, edges, 0, Scheduler::Pct, CopyMode::Random);
    add(family, {40}, 0, Scheduler::Random, CopyMode::Lazy);
    add(family, {0, 0}, 20, Scheduler::Random, CopyMode::Lazy); // no tile at all
    add(family, {20, 33}, 41, Scheduler::Random,
        CopyMode::Lazy); // more spare rows than threads clear at once
    add(family, many(), 1, Scheduler::Fifo, CopyMode::Lazy);
    rounds.push_back({&rigs.front(), Scheduler::Random, CopyMode::Eager, false});
    // Every edge of a tile, with no row behind it: a store beyond it is out of bounds.
    for (int64_t rows = 1; rows <= 64; ++rows) add(family, {rows}, 0, Scheduler::Fifo, CopyMode::Lazy, true);
  }

  Status prepare() {
    for (const Rig &rig : rigs)
      if (!rig.status) return rig.status;
    auto made = rigs.front().lower();
    if (!made) return made.takeError();
    lowered = std::move(*made);
    descriptions = sim::mutants(*lowered.module);
    return {};
  }

  /// In a child: runs the mutant (or, at the end of the list, the kernel itself). "survived", or the first
  /// report; a leading "error" is a failure of the test's own parts.
  std::string run(size_t mutant) {
    if (mutant < descriptions.size()) {
      auto applied = sim::applyMutant(*lowered.module, mutant);
      if (!applied) return "error: " + applied.error().str();
    }
    auto code = rigs.front().load(std::move(lowered));
    if (!code) return "[refused] " + code.error().str();
    for (size_t i = 0; i < rounds.size(); ++i) {
      sim::Options options;
      options.seed = jittest::seed() * 1000 + i, options.secondsLimit = 20;
      options.scheduler = rounds[i].scheduler, options.copies = rounds[i].copies;
      options.convergence = rounds[i].convergence;
      auto outcome = rounds[i].rig->run(code->entry, options);
      if (!outcome) return "error: " + outcome.error().str();
      if (!outcome->clean()) return outcome->str();
    }
    return "survived";
  }
};

std::vector<size_t> choose(size_t count, size_t sample) {
  const char *wanted = std::getenv("QUERN_MUTANTS");
  if (wanted && std::string(wanted) == "all") sample = count;
  if (wanted && std::atoi(wanted) > 0) sample = size_t(std::atoi(wanted));
  if (const char *one = std::getenv("QUERN_MUTANT")) return {size_t(std::atoi(one))};
  std::vector<size_t> chosen(count);
  for (size_t i = 0; i < count; ++i) chosen[i] = i;
  std::mt19937_64 random(jittest::seed());
  for (size_t i = count; i > 1; --i) std::swap(chosen[i - 1], chosen[random() % i]);
  chosen.resize(std::min(sample, count));
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::string detectorOf(const Ended &ended) {
  if (ended.late) return "no end";
  if (ended.signal) return "crash";
  return ended.text.substr(1, ended.text.find(']') - 1);
}

void check(const Family &family) {
  Experiment experiment(family);
  Status prepared = experiment.prepare();
  ASSERT_TRUE(prepared) << prepared.error().str();
  const auto survivors = readSurvivors(QUERN_SOURCE_DIR "/tests/sim/survivors.txt");
  ASSERT_FALSE(survivors.empty());
  size_t count = experiment.descriptions.size();
  std::vector<size_t> chosen = choose(count, family.sample);
  std::printf("%s: %zu of %zu mutants, QUERN_TEST_SEED=%llu\n", family.name, chosen.size(), count,
              static_cast<unsigned long long>(jittest::seed()));
  chosen.insert(chosen.begin(), count); // the kernel itself

  auto start = std::chrono::steady_clock::now();
  std::map<std::string, size_t> killedBy, kinds;
  size_t killed = 0, survived = 0;
  runIsolated(
      chosen.size(), std::max(1u, std::thread::hardware_concurrency()), 120,
      [&](size_t i) { return experiment.run(chosen[i]); },
      [&](size_t i, const Ended &ended) {
        if (std::getenv("QUERN_MUTANT")) std::printf("%s\n", ended.text.c_str());
        if (chosen[i] == count) {
          EXPECT_EQ(ended.text, "survived") << "the kernel itself";
          return;
        }
        std::string name = fmt::format("mutant {}: {}", chosen[i], experiment.descriptions[chosen[i]]);
        EXPECT_FALSE(ended.text.starts_with("error")) << name << "\n" << ended.text;
        if (ended.late || ended.signal || ended.text.starts_with("[")) {
          ++killed, ++killedBy[detectorOf(ended)];
          return;
        }
        ++survived;
        const Survivor *why =
            explain(survivors, fmt::format("{}: {}", family.name, experiment.descriptions[chosen[i]]));
        if (why)
          ++kinds[why->kind];
        else
          ADD_FAILURE() << "survived, and survivors.txt does not say why: " << name;
      });
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  size_t meaningful = killed + survived - kinds["equivalent"];
  std::printf("%s: %zu killed, %zu survived in %.0f s; %.2f %% of those that differ\n", family.name, killed,
              survived, seconds, meaningful ? 100.0 * double(killed) / double(meaningful) : 100);
  for (auto &[detector, number] : killedBy) std::printf("  killed by %s: %zu\n", detector.c_str(), number);
  for (auto &[kind, number] : kinds) std::printf("  survived, %s: %zu\n", kind.c_str(), number);
  // A sample may meet more of the survivors than their share: three standard deviations of it.
  double slack = chosen.size() > count ? 0 : 3 * std::sqrt(0.03 * 0.97 * double(meaningful));
  EXPECT_GE(double(killed), 0.97 * double(meaningful) - slack);
}

} // namespace

TEST(Mutants, Sorted) {
  check({"sorted", "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 split=1",
         150});
}

TEST(Mutants, Cluster) {
  check({"cluster", "bm=128 bn=64 stages=3 cluster=2 gather=sorted decode=exact regs=232/40 ctas=1 split=1",
         60});
}

TEST(Mutants, FusedGather) {
  check(
      {"fused", "bm=128 bn=64 stages=3 cluster=1 gather=fused decode=exact regs=232/40 ctas=1 split=1", 60});
}

TEST(Mutants, Ahead) {
  check(
      {"ahead", "bm=128 bn=64 stages=3 cluster=1 gather=sorted decode=ahead regs=232/40 ctas=1 split=1", 40});
}

TEST(Mutants, Split) {
  check(
      {"split", "bm=128 bn=32 stages=3 cluster=1 gather=sorted decode=exact regs=232/40 ctas=1 split=2", 50});
}

} // namespace quern::simtest
