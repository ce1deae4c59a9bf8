// What tuning found, as rows, as JSON and as the HTML page: from results made here, so that every verdict
// occurs.
#include "compiler/syntax/Syntax.h"
#include "tools/Plot.h"
#include "tools/TuneView.h"
#include <fmt/format.h>
#include <fstream>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>
#include <regex>

namespace quern::tools {
namespace {
using testing::HasSubstr;
using testing::Not;
using tune::Verdict;

constexpr const char *defaultLine = "sm_90a bm=128 bn=256 stages=5 decode=exact",
                     *fastLine = "sm_90a bm=128 bn=64 stages=8 decode=exact",
                     *slowLine = "sm_90a bm=128 bn=32 stages=5 decode=exact";

Shape shapeOf(const std::shared_ptr<const syntax::Program> &program, const char *kernel, int64_t rows) {
  Shape shape;
  shape.file = program->fileName, shape.kernel = program->findKernel(kernel);
  shape.problem.program = program, shape.problem.kernel = kernel;
  shape.problem.dims = {{"E", 32}, {"K", 2880}, {"N", 5760}, {"T", rows * 8}, {"top_k", 4}};
  shape.tokens = rows * 8, shape.experts = 32, shape.topK = 4, shape.rowsPerExpert = rows;
  return shape;
}

tune::Measurement measured(size_t candidate, const char *schedule, double us) {
  tune::Measurement m;
  m.candidate = candidate, m.schedule = schedule;
  for (tune::Skew skew : {tune::Skew::Uniform, tune::Skew::Zipf}) {
    tune::Timing t;
    t.skew = skew, t.samplesUs = {us, us};
    t.medianUs = skew == tune::Skew::Zipf ? us : 0.9 * us, t.lowUs = 0.98 * t.medianUs,
    t.highUs = 1.02 * t.medianUs;
    m.timings.push_back(t);
  }
  return m;
}

/// `fastUs` below the default's: it wins.
TunedCall callOf(const std::shared_ptr<const syntax::Program> &program, int64_t rows, double defaultUs,
                 double fastUs) {
  TunedCall call;
  call.shape = shapeOf(program, "gate_up", rows);
  tune::Result &r = call.result;
  r.device = {"NVIDIA H100 80GB HBM3", "sm_90a", 132};
  r.work.dims = call.shape.problem.dims, r.work.experts = 32, r.work.rows = rows * 32,
  r.work.rowsPerExpert = rows;
  r.work.flops = 2.0 * double(rows) * 32 * 5760 * 2880,
  r.work.bytes = 32 * 5760.0 * 2880 * 0.53125 + double(rows) * 32 * 2880 * 4;
  r.defaultSchedule = defaultLine;
  r.candidates = {
      {defaultLine, Verdict::Default, "the default of this shape", defaultUs * 1.1, "hbm"},
      {fastLine, Verdict::Kept, "predicted to be fast", fastUs * 1.1, "hbm"},
      {slowLine, Verdict::Kept, "predicted to be fast", fastUs * 1.2, "hbm"},
      {"sm_90a bm=192 bn=64", Verdict::Kept, "predicted to be fast", fastUs, "hbm"},
      {"sm_90a bm=64 bn=8", Verdict::Pruned, "3.10 times the best prediction: <too few tiles> & more",
       9 * fastUs, "issue"},
      {"sm_90a bn=256 stages=8", Verdict::Illegal, "shared memory: 300000 of 232448 bytes", 0, ""},
      {"sm_90a bn=256", Verdict::Duplicate, "compiles to the default", 0, ""}};
  r.measurements = {measured(0, defaultLine, defaultUs), measured(1, fastLine, fastUs),
                    measured(2, slowLine, 1.3 * defaultUs)};
  r.measurements[2].stopped = "slower than the best by 30 %";
  tune::Measurement failed;
  failed.candidate = 3, failed.schedule = "sm_90a bm=192 bn=64 stages=5 decode=exact";
  failed.failure =
      tune::Failure{tune::FailureKind::Wrong, "y[3, 7] is 1.5, expected 2.5", "quern run ...", "ptxas 13.0"};
  r.measurements.push_back(failed);
  if (fastUs < defaultUs) {
    r.schedule = fastLine, r.reason = "faster than the default by more than the intervals";
    r.finals = {measured(0, defaultLine, defaultUs * 1.01), measured(1, fastLine, fastUs * 1.01)};
  } else {
    r.reason = "nothing was faster than the default";
  }
  return call;
}

class TuneReportTest : public testing::Test {
protected:
  std::shared_ptr<const syntax::Program> program;
  TuneReport report;
  void SetUp() override {
    auto parsed = syntax::parseProgram(
        "use nf4\n"
        "kernel gate_up(x: act[T, K], route: routing[T, E], w: nf4[E, N, K]) -> y: act[R, N] {\n"
        "  y[r, n] = sum(k) x[r.token, k] * w[r.expert, n, k]\n}\n",
        "model.qn");
    ASSERT_TRUE(parsed) << parsed.error().str();
    program = *parsed;
    std::vector<TunedCall> calls;
    for (auto [rows, base, fast] : {std::tuple{1, 101.0, 88.0},
                                    {4, 104.0, 90.0},
                                    {16, 110.0, 93.0},
                                    {64, 150.0, 155.0},
                                    {256, 480.0, 520.0},
                                    {1024, 1700.0, 1900.0}})
      calls.push_back(callOf(program, rows, base, fast));
    report.groups = groupCalls(std::move(calls));
    for (TunedGroup &g : report.groups) g.roof = roofOf(g.calls[0].result.device, defaultLine);
    report.command = "quern tune model.qn --dim \"E=32\"";
  }
};

TEST_F(TuneReportTest, RowsSayWhatBecameOfEachCandidate) {
  ASSERT_EQ(report.groups.size(), 1u);
  const TunedGroup &group = report.groups[0];
  EXPECT_EQ(group.title, "gate_up E=32 K=2880 N=5760 top_k=4");
  EXPECT_EQ(group.common, "sm_90a bm=128 decode=exact");
  const TunedCall &first = group.calls[0];
  std::vector<std::string> states, names;
  for (const ScheduleRow &row : first.rows) states.push_back(row.state), names.push_back(row.name);
  EXPECT_THAT(states, testing::ElementsAre("winner", "default", "stopped", "failed", "pruned", "illegal",
                                           "duplicate"));
  EXPECT_THAT(names,
              testing::ElementsAre("bn=64 stages=8", "bn=256 stages=5", "bn=32 stages=5",
                                   "bm=192 bn=64 stages=5", "bm=64 bn=8", "bn=256 stages=8", "bn=256"));
  EXPECT_EQ(first.rows[3].reason, "wrong: y[3, 7] is 1.5, expected 2.5 (ptxas 13.0)");
  EXPECT_EQ(first.rows[2].reason, "slower than the best by 30 %");
  // The worse routing counts, and of the two schedules that raced at the end the last race.
  EXPECT_DOUBLE_EQ(first.winner()->us, 88 * 1.01);
  EXPECT_DOUBLE_EQ(first.standard()->us, 101 * 1.01);
  EXPECT_DOUBLE_EQ(first.rows[2].us, 1.3 * 101);
  // Where nothing is faster the default is what is used.
  const TunedCall &last = group.calls.back();
  EXPECT_TRUE(last.winner()->isDefault);
  EXPECT_EQ(last.rows[0].state, "default");
  EXPECT_EQ(last.rows[1].state, "slower");
  EXPECT_EQ(last.rows[1].reason, "1.12 times the time of the one used");
}

TEST_F(TuneReportTest, JsonHoldsEveryCandidate) {
  auto json = nlohmann::json::parse(tuneJson(report));
  ASSERT_EQ(json["calls"].size(), 6u);
  auto &call = json["calls"][0];
  EXPECT_EQ(call["schedule"], fastLine);
  EXPECT_EQ(call["rows_per_expert"], 1);
  EXPECT_EQ(call["candidates"].size(), 7u);
  EXPECT_EQ(call["candidates"][0]["winner"], true);
  EXPECT_DOUBLE_EQ(call["candidates"][0]["us"], 88 * 1.01);
  EXPECT_FALSE(call["candidates"][6].contains("us"));
  EXPECT_EQ(json["calls"][5]["schedule"], "");
}

TEST_F(TuneReportTest, ThePageIsWholeAndContainsNothingFromElsewhere) {
  std::string page = tuneHtml(report);
  std::ofstream(testing::TempDir() + "/quern-tune-report.html") << page; // to look at
  for (const char *outside : {"http:", "https:", "//", "<script", "src=", "@import", "url(", "{{", "<link"})
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  // Two sizes of two plots, each with a title and a description; a table below each plot and for each call.
  auto count = [&](const char *what) {
    std::regex re(what);
    return std::distance(std::sregex_iterator(page.begin(), page.end(), re), std::sregex_iterator());
  };
  EXPECT_EQ(count("<svg class=\"w"), 4);
  EXPECT_EQ(count("<title id="), 4);
  EXPECT_EQ(count("<desc id="), 4);
  EXPECT_EQ(count("<table>"), 2 + 6 * 2); // of a call: measured, rejected
  EXPECT_EQ(count("<details>"), 6 * 2);
  EXPECT_THAT(page, HasSubstr("3.10 times the best prediction: &lt;too few tiles&gt; &amp; more"));
  EXPECT_THAT(page, HasSubstr("wrong: y[3, 7] is 1.5, expected 2.5 (ptxas 13.0)"));
  EXPECT_THAT(page, HasSubstr("quern tune model.qn --dim &quot;E=32&quot;"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
  // Coordinates are numbers inside the drawing.
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  EXPECT_THAT(page, Not(HasSubstr("inf\"")));
}

TEST_F(TuneReportTest, WithoutMeasurementsPredictionsAreDrawnAndSaidToBe) {
  for (TunedGroup &g : report.groups)
    for (TunedCall &c : g.calls)
      c.result.measurements.clear(), c.result.finals.clear(), c.rows.clear(), c.measured = false;
  std::vector<TunedCall> calls = std::move(report.groups[0].calls);
  report.groups = groupCalls(std::move(calls));
  EXPECT_FALSE(report.groups[0].measured());
  EXPECT_EQ(report.groups[0].calls[0].rows[2].state, "ranked");
  std::string page = tuneHtml(report);
  EXPECT_THAT(page, HasSubstr("nothing was measured"));
  EXPECT_THAT(page, HasSubstr("(predicted)"));
  EXPECT_THAT(page, HasSubstr("Not drawn: nothing is known of this device's rates."));
}

TEST_F(TuneReportTest, AFailedCallIsARowLikeTheOthers) {
  TunedCall broken;
  broken.shape = shapeOf(program, "gate_up", 2);
  broken.error = "the default does not compile: <reason>";
  std::vector<TunedCall> calls;
  calls.push_back(std::move(broken));
  report.groups = groupCalls(std::move(calls));
  EXPECT_THAT(tuneHtml(report), HasSubstr("the default does not compile: &lt;reason&gt;"));
  EXPECT_EQ(nlohmann::json::parse(tuneJson(report))["calls"][0]["error"],
            "the default does not compile: <reason>");
}

TEST(Plot, PointsLieOnLogarithmicAxes) {
  Plot plot;
  plot.id = "p", plot.xPowersOfTwo = true;
  plot.series = {
      {"a", 1, true, false, {{1, 10, 0, 0, "", ""}, {4, 20, 0, 0, "", ""}, {16, 40, 0, 0, "", ""}}}};
  std::string svg = plotSvg(plot, 760, 400);
  std::regex re("points=\"([0-9.]+),([0-9.]+) ([0-9.]+),([0-9.]+) ([0-9.]+),([0-9.]+) \"");
  std::smatch m;
  ASSERT_TRUE(std::regex_search(svg, m, re)) << svg;
  double x0 = std::stod(m[1]), y0 = std::stod(m[2]), x1 = std::stod(m[3]), y1 = std::stod(m[4]),
         x2 = std::stod(m[5]), y2 = std::stod(m[6]);
  EXPECT_NEAR(x1 - x0, x2 - x1, 0.2);
  EXPECT_NEAR(y0 - y1, y1 - y2, 0.2);
  EXPECT_GT(x1, x0);
  EXPECT_LT(y1, y0); // larger is higher
  EXPECT_GT(x0, 52);
  EXPECT_LT(x2, 748);
}

TEST(Plot, OnePointAndNoPointAreDrawn) {
  Plot plot;
  plot.id = "p";
  EXPECT_THAT(plotSvg(plot, 360, 300), Not(HasSubstr("nan")));
  plot.series = {{"a", 0, true, false, {{8, 3, 0, 0, "8", ""}}}};
  EXPECT_THAT(plotSvg(plot, 360, 300),
              testing::AllOf(Not(HasSubstr("nan")), HasSubstr("<circle"), HasSubstr(">8</text>")));
}

TEST(Roof, TheLowerOfTheTwo) {
  Roof roof{100, 1000, "", ""}; // TFLOP/s, GB/s: the ridge is at 100 flops per byte
  EXPECT_DOUBLE_EQ(roof.at(10), 10);
  EXPECT_DOUBLE_EQ(roof.at(100), 100);
  EXPECT_DOUBLE_EQ(roof.at(1000), 100);
  EXPECT_FALSE(roofOf({"simulator", "sim", 4}, "").known());
}
} // namespace
} // namespace quern::tools
