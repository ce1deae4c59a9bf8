// Planted faults (Faults.h): each is caught by the detector that its row names, with role and place, and the
// same kernel without the fault passes under the same seeds.
#include "tests/sim/Faults.h"
#include "tests/sim/Isolated.h"
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <thread>

namespace quern::simtest {
namespace {

constexpr uint64_t seeds = 2; // of the simulator: another order of threads and copies each

sim::Options optionsOf(uint64_t seed) {
  sim::Options options;
  options.seed = jittest::seed() * 1000 + seed;
  options.maxIssues = 64; // the named detector may not be the first
  options.secondsLimit = 20;
  return options;
}

Rig &rigOf(const Subject &subject) {
  static std::map<const Subject *, std::unique_ptr<Rig>> rigs;
  auto &rig = rigs[&subject];
  if (!rig) rig = std::make_unique<Rig>(subject, jittest::seed());
  return *rig;
}

/// One run of a kernel under every seed, as text: "seed N" lines, then what was found.
std::string runAll(Rig &rig, const Planted *planted, sim::Scheduler scheduler) {
  auto lowered = rig.lower(planted);
  if (!lowered) return "error: " + lowered.error().str();
  auto code = rig.load(std::move(*lowered));
  if (!code) return "error: " + code.error().str();
  std::string all;
  for (uint64_t seed = 0; seed < seeds; ++seed) {
    sim::Options options = optionsOf(seed);
    options.scheduler = scheduler;
    auto outcome = rig.run(code->entry, options);
    if (!outcome) return "error: " + outcome.error().str();
    all += fmt::format("seed {}\n{}", options.seed, outcome->str());
  }
  return all;
}

/// Reports in a run's text: each starts with "[detector]" at the beginning of a line.
std::vector<std::string> reportsOf(const std::string &text) {
  std::vector<std::string> reports;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (line.starts_with("["))
      reports.push_back(line);
    else if (line.starts_with("    ") && !reports.empty()) // a deadlock's groups
      reports.back() += "\n" + line;
    at = end + 1;
  }
  return reports;
}

bool catches(const Catch &wanted, const std::string &report) {
  if (!report.starts_with(fmt::format("[{}]", wanted.detector))) return false;
  for (const char *word : wanted.says)
    if (report.find(word) == std::string::npos) return false;
  return true;
}

std::vector<std::string> runsOf(const std::string &text) {
  std::vector<std::string> runs;
  for (size_t at = text.find("seed "); at != std::string::npos;) {
    size_t next = text.find("\nseed ", at);
    runs.push_back(text.substr(at, next == std::string::npos ? next : next + 1 - at));
    at = next == std::string::npos ? next : next + 1;
  }
  return runs;
}

std::string wantedText(const Fault &fault) {
  std::string text;
  for (const Catch &c : fault.caughtBy)
    text += fmt::format("{}[{}] {}", text.empty() ? "" : ", or ", c.detector, fmt::join(c.says, " ... "));
  return text;
}

void judge(const Fault &fault, const Ended &ended) {
  SCOPED_TRACE(fmt::format("fault '{}' ({}) in '{}'", fault.name, fault.what, fault.subject->name));
  if (ended.signal || ended.late) {
    ADD_FAILURE() << (ended.late ? "did not end" : "crashed") << " instead of a report by "
                  << wantedText(fault);
    return;
  }
  auto runs = runsOf(ended.text);
  ASSERT_EQ(runs.size(), seeds) << ended.text;
  for (const std::string &run : runs) {
    bool caught = false;
    for (const std::string &report : reportsOf(run))
      for (const Catch &wanted : fault.caughtBy) caught |= catches(wanted, report);
    EXPECT_TRUE(caught) << "expected " << wantedText(fault) << "; found:\n" << run;
    if (std::getenv("QUERN_SHOW_REPORTS")) std::printf("--- %s\n%s", fault.name, run.c_str());
  }
}

void checkTable(const std::vector<Fault> &table) {
  const char *only = std::getenv("QUERN_FAULT");
  std::vector<const Fault *> chosen;
  for (const Fault &fault : table)
    if (!only || std::string(only) == fault.name) chosen.push_back(&fault);
  for (const Fault *fault : chosen) // before the first child starts: they share the data
    ASSERT_TRUE(rigOf(*fault->subject).status)
        << fault->subject->name << ": " << rigOf(*fault->subject).status.error().str();
  auto work = [&](size_t i) {
    int changes = 0;
    const Fault &fault = *chosen[i];
    Planted planted{fault.after, [&](mlir::ModuleOp module) {
                      Editor editor(module);
                      fault.plant(editor);
                      changes += editor.changed();
                    }};
    std::string text = runAll(rigOf(*fault.subject), &planted, fault.scheduler);
    return changes ? text : "error: the fault found nothing to change\n" + text;
  };
  runIsolated(chosen.size(), std::max(1u, std::thread::hardware_concurrency()), 120, work,
              [&](size_t i, const Ended &ended) { judge(*chosen[i], ended); });
}

} // namespace

TEST(PlantedFaults, KernelsWithoutThemPass) {
  for (const Subject *subject :
       {&sorted, &paired, &fused, &fast, &pairs, &halved, &combined, &square, &edge, &split, &ahead}) {
    Rig &rig = rigOf(*subject);
    ASSERT_TRUE(rig.status) << subject->name << ": " << rig.status.error().str();
    for (auto scheduler : {sim::Scheduler::Random, sim::Scheduler::Fifo}) { // those of the table
      std::string text = runAll(rig, nullptr, scheduler);
      EXPECT_EQ(reportsOf(text).size(), 0u) << subject->name << "\n" << text;
      EXPECT_EQ(runsOf(text).size(), seeds) << subject->name << "\n" << text;
    }
  }
}

TEST(PlantedFaults, OfOrder) { checkTable(syncFaults()); }

TEST(PlantedFaults, OfClusters) { checkTable(clusterFaults()); }

TEST(PlantedFaults, OfPlaceAndValue) { checkTable(computeFaults()); }

TEST(PlantedFaults, AreMany) {
  std::map<std::string, int> names;
  for (auto *table : {&syncFaults(), &clusterFaults(), &computeFaults()})
    for (const Fault &fault : *table) ++names[fault.name];
  EXPECT_GE(names.size(), 30u);
  for (auto &[name, count] : names) EXPECT_EQ(count, 1) << name;
}

} // namespace quern::simtest
