// The two faces of a run's result.
#include "tools/RunReport.h"
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace quern::tools {
using oracle::Comparison;
using oracle::Place;

bool RunReport::pass() const {
  return std::all_of(comparisons.begin(), comparisons.end(), [](const Comparison &c) { return c.pass; });
}

double RunReport::medianMs() const {
  if (timesMs.empty()) return firstMs;
  std::vector<double> sorted = timesMs;
  std::sort(sorted.begin(), sorted.end());
  size_t middle = sorted.size() / 2;
  return sorted.size() % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

static void line(const char *key, const std::string &text) { fmt::print("{:<9} {}\n", key, text); }

void RunReport::printTable() const {
  line("kernel", fmt::format("{} ({}), target {}", kernel, file, target));
  std::string text;
  for (const auto &[name, value] : dims) text += fmt::format("{}={} ", name, value);
  if (!chosen.empty()) text += fmt::format("(chosen here: {})", fmt::join(chosen, ", "));
  line("dims", text);
  line("data", data);
  text = fmt::format("{} rows", liveRows);
  if (usedExperts >= 0) text += fmt::format(" on {} experts, routing {}", usedExperts, routing);
  line("rows", fmt::format("{}, seed {}", text, seed));
  if (target == "cpu") line("threads", fmt::format("{} ({})", threads, threadLibrary));
  if (!device.empty()) line("device", device), line("schedule", schedule);
  if (!statistics.empty()) line("simulated", statistics);
  if (target != "interp")
    line("first", fmt::format("{:.3f} ms, of these {:.3f} ms compiling", firstMs, compileMs));
  if (!timesMs.empty()) {
    auto [low, high] = std::minmax_element(timesMs.begin(), timesMs.end());
    line("time",
         fmt::format("{:.3f} ms median of {} ({:.3f} to {:.3f})", medianMs(), timesMs.size(), *low, *high));
    line("rate", fmt::format("{:.1f} GFLOP/s", operations / medianMs() * 1e-6));
  }
  for (const auto &[name, norm] : norms) line("output", fmt::format("{}: L2 norm {:.9g}", name, norm));
  if (!checked) return;
  line("oracle", fmt::format("fp64, {:.1f} ms", oracleMs));
  for (const Comparison &c : comparisons) {
    line("error", fmt::format("{}: worst tile {:.3g} relative, {:.3g} of the gate, {}", c.output,
                              c.tile.relative, c.tile.ratio, c.tile.str()));
    line("", fmt::format("{}: worst row {:.3g} of its gate, worst element {:.3g}", c.output, c.row.ratio,
                         c.element.ratio));
    if (!c.pass) line("", c.verdict());
  }
  line("check", pass() ? "PASS" : "FAIL");
}

/// JSON has no NaN or infinity: these become strings.
static nlohmann::json number(double x) {
  return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(fmt::format("{}", x));
}

static nlohmann::json toJson(const Place &p) {
  return {
      {"rows", {p.row0, p.row1}},       {"columns", {p.column0, p.column1}}, {"expert", p.expert},
      {"at", {p.row, p.column}},        {"found", number(p.found)},          {"expected", number(p.expected)},
      {"relative", number(p.relative)}, {"ratio", number(p.ratio)}};
}

void RunReport::printJson() const {
  nlohmann::json out = {{"file", file},     {"kernel", kernel},  {"target", target}, {"dims", dims},
                        {"chosen", chosen}, {"dtype", act},      {"data", data},     {"seed", seed},
                        {"rows", liveRows}, {"checked", checked}};
  if (usedExperts >= 0) out["routing"] = routing, out["used_experts"] = usedExperts;
  if (target == "cpu") out["threads"] = threads, out["thread_library"] = threadLibrary;
  if (!device.empty()) out["device"] = device, out["schedule"] = schedule;
  if (!statistics.empty()) out["simulated"] = statistics;
  if (target != "interp") out["first_ms"] = firstMs, out["compile_ms"] = compileMs;
  if (!timesMs.empty()) {
    out["times_ms"] = timesMs, out["median_ms"] = medianMs();
    out["gflops"] = operations / medianMs() * 1e-6;
  }
  for (const auto &[name, norm] : norms) out["norms"][name] = number(norm);
  if (checked) {
    out["pass"] = pass(), out["oracle_ms"] = oracleMs;
    for (const Comparison &c : comparisons)
      out["outputs"].push_back({{"name", c.output},
                                {"pass", c.pass},
                                {"verdict", c.verdict()},
                                {"tile", toJson(c.tile)},
                                {"row", toJson(c.row)},
                                {"element", toJson(c.element)},
                                {"failed_tiles", c.failedTiles},
                                {"tiles", c.tiles},
                                {"unwritten", c.unwritten},
                                {"mismatched_nan", c.mismatchedNaN}});
  }
  fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

} // namespace quern::tools
