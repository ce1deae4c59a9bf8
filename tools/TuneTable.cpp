// What tuning found, on a terminal and as JSON.
#include "tools/TuneView.h"
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace quern::tools {

static std::string interval(const ScheduleRow &row) {
  return row.us > 0 ? fmt::format("{}..{}", shortNumber(row.lowUs), shortNumber(row.highUs)) : "";
}

static void printCall(const TunedGroup &group, const TunedCall &call, bool all) {
  const tune::Result &r = call.result;
  fmt::print("\n{}, {} tokens\n", call.shape.label(), call.shape.tokens);
  if (!call.error.empty()) return fmt::print("  {}\n", call.error);
  const ScheduleRow *standard = call.standard();
  double base = standard ? standard->shownUs(call.measured) : 0;
  fmt::print("  {}\n", r.reason);
  if (!r.refused.empty()) fmt::print("  not measured: {}\n", r.refused);
  if (const ScheduleRow *winner = call.winner(); winner && winner->us > 0) {
    fmt::print("  {} us, {} TFLOP/s, {} GB/s", shortNumber(winner->us), shortNumber(call.tflops(winner->us)),
               shortNumber(call.gbs(winner->us)));
    if (group.roof.known())
      fmt::print(", {:.0f} % of the roof", 100 * call.tflops(winner->us) / group.roof.at(call.intensity()));
    fmt::print("\n");
  }
  fmt::print("  {:<12} {:>9} {:>17} {:>8} {:>10}  schedule\n", "", call.measured ? "us" : "",
             call.measured ? "99 %" : "", "default/", "predicted");
  constexpr int fewRejected = 8;
  int rejected = 0;
  for (const ScheduleRow &row : call.rows) {
    if (row.rejected() && ++rejected > fewRejected && !all) continue;
    double shown = row.shownUs(call.measured);
    fmt::print("  {:<12} {:>9} {:>17} {:>8} {:>10}  {}\n", row.state, row.us > 0 ? shortNumber(row.us) : "",
               interval(row), shown > 0 && base > 0 ? fmt::format("{:.3f}", base / shown) : "",
               row.predictedUs > 0 ? shortNumber(row.predictedUs) : "", row.name);
    if (!row.reason.empty() && row.state != "slower" && !row.isWinner)
      fmt::print("  {:<12} {}\n", "", row.reason);
  }
  if (rejected > fewRejected && !all)
    fmt::print("  {:<12} and {} more: --all, --json and --report show them\n", "rejected",
               rejected - fewRejected);
}

void printTuneTable(const TuneReport &report, bool all) {
  if (!report.note.empty()) fmt::print("{}\n", report.note);
  for (const TunedGroup &group : report.groups) {
    fmt::print("{}\n", group.title);
    if (!group.calls.empty() && group.calls[0].error.empty()) {
      const tune::Result &r = group.calls[0].result;
      fmt::print("device      {} ({}, {} {})\n", r.device.name, r.device.arch, r.device.units,
                 r.device.arch == "cpu" ? "threads" : "multiprocessors");
      fmt::print("protocol    {}, policy {}\n", tune::protocolVersion, tune::name(r.policy));
    }
    if (group.roof.known())
      fmt::print("roof        {} TFLOP/s ({}), {} GB/s, {}\n", shortNumber(group.roof.tflops),
                 group.roof.arithmetic, shortNumber(group.roof.gbs), group.roof.source);
    if (!group.common.empty()) fmt::print("schedules   all have {}\n", group.common);
    for (const TunedCall &call : group.calls) printCall(group, call, all);
  }
  fmt::print("\n");
}

static nlohmann::json toJson(const ScheduleRow &row) {
  nlohmann::json out = {{"schedule", row.schedule}, {"state", row.state}, {"reason", row.reason}};
  if (row.us > 0) out["us"] = row.us, out["interval_us"] = {row.lowUs, row.highUs};
  if (row.predictedUs > 0) out["predicted_us"] = row.predictedUs;
  out["default"] = row.isDefault, out["winner"] = row.isWinner;
  return out;
}

std::string tuneJson(const TuneReport &report) {
  nlohmann::json out = {
      {"command", report.command}, {"seconds", report.seconds}, {"calls", nlohmann::json::array()}};
  if (!report.note.empty()) out["note"] = report.note;
  for (const TunedGroup &group : report.groups)
    for (const TunedCall &call : group.calls) {
      const tune::Result &r = call.result;
      nlohmann::json one = {{"file", call.shape.file},
                            {"kernel", call.shape.kernel->name},
                            {"dims", call.shape.problem.dims},
                            {"tokens", call.shape.tokens},
                            {"rows_per_expert", call.shape.rowsPerExpert}};
      if (call.error.empty()) {
        one["device"] = {{"name", r.device.name}, {"arch", r.device.arch}, {"units", r.device.units}};
        one["protocol"] = tune::protocolVersion, one["policy"] = tune::name(r.policy);
        one["schedule"] = r.schedule, one["reason"] = r.reason, one["default_schedule"] = r.defaultSchedule;
        one["refused"] = r.refused, one["from_record"] = r.fromRecord, one["record"] = r.recordPath;
        one["flops"] = r.work.flops, one["bytes"] = r.work.bytes;
        one["compile_seconds"] = r.compileSeconds, one["measure_seconds"] = r.measureSeconds;
        if (group.roof.known())
          one["roof"] = {
              {"tflops", group.roof.tflops}, {"gbs", group.roof.gbs}, {"source", group.roof.source}};
        one["candidates"] = nlohmann::json::array();
        for (const ScheduleRow &row : call.rows) one["candidates"].push_back(toJson(row));
      } else {
        one["error"] = call.error;
      }
      out["calls"].push_back(std::move(one));
    }
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

} // namespace quern::tools
