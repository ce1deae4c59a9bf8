// See TuneView.h.
#include "tools/TuneView.h"
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

namespace quern::tools {
using tune::Verdict;

std::string shortNumber(double value) {
  if (value <= 0 || !std::isfinite(value)) return "-";
  return fmt::format("{:.{}f}", value, std::clamp(3 - int(std::floor(std::log10(value))), 0, 4));
}

const ScheduleRow *TunedCall::winner() const {
  auto found = std::ranges::find_if(rows, &ScheduleRow::isWinner);
  return found == rows.end() ? nullptr : &*found;
}
const ScheduleRow *TunedCall::standard() const {
  auto found = std::ranges::find_if(rows, &ScheduleRow::isDefault);
  return found == rows.end() ? nullptr : &*found;
}
bool TunedGroup::measured() const { return std::ranges::any_of(calls, &TunedCall::measured); }

namespace {
std::vector<std::string> words(const std::string &line) {
  std::istringstream in(line);
  std::vector<std::string> out;
  for (std::string word; in >> word;) out.push_back(word);
  return out;
}

/// The figures of the routing that took longer.
void takeWorst(ScheduleRow &row, const tune::Measurement &measurement) {
  for (const tune::Timing &t : measurement.timings)
    if (t.medianUs > row.us) row.us = t.medianUs, row.lowUs = t.lowUs, row.highUs = t.highUs;
}

ScheduleRow rowOf(const tune::Candidate &candidate) {
  ScheduleRow row;
  row.schedule = candidate.schedule, row.reason = candidate.reason, row.predictedUs = candidate.predictedUs;
  row.isDefault = candidate.verdict == Verdict::Default;
  row.state =
      candidate.verdict == Verdict::Kept ? "not measured" : std::string(tune::name(candidate.verdict));
  return row;
}

int orderOf(const ScheduleRow &row) {
  static const std::map<std::string, int> orders = {
      {"winner", 0}, {"default", 1},      {"slower", 2}, {"stopped", 3}, {"ranked", 4},
      {"failed", 5}, {"not measured", 6}, {"pruned", 7}, {"illegal", 8}, {"duplicate", 9}};
  auto found = orders.find(row.state);
  return found == orders.end() ? 10 : found->second;
}

void fillRows(TunedCall &call) {
  const tune::Result &r = call.result;
  for (const tune::Candidate &c : r.candidates) call.rows.push_back(rowOf(c));
  for (const tune::Measurement &m : r.measurements) {
    if (m.candidate >= call.rows.size()) continue;
    ScheduleRow &row = call.rows[m.candidate];
    if (!m.schedule.empty()) row.schedule = m.schedule;
    takeWorst(row, m);
    if (m.failure) {
      row.state = "failed";
      row.reason = fmt::format("{}: {}", tune::name(m.failure->kind), m.failure->message);
      if (!m.failure->assembler.empty()) row.reason += fmt::format(" ({})", m.failure->assembler);
    } else if (row.us > 0) {
      call.measured = true;
      if (!row.isDefault) row.state = m.stopped.empty() ? "slower" : "stopped", row.reason = m.stopped;
    }
  }
  // The last race has the most rounds, of the default and the winner side by side.
  for (const tune::Measurement &m : r.finals)
    if (m.candidate < call.rows.size() && m.worstUs() < std::numeric_limits<double>::infinity())
      call.rows[m.candidate].us = 0, takeWorst(call.rows[m.candidate], m);
  // Two rows may print the same line, when a candidate is the default of this shape: the first one is marked.
  bool marked = false;
  for (ScheduleRow &row : call.rows) {
    row.isWinner = !marked && (r.schedule.empty() ? row.isDefault : row.schedule == r.schedule);
    marked |= row.isWinner;
  }
  double best = 0;
  for (ScheduleRow &row : call.rows) {
    if (row.isWinner) {
      row.state = row.isDefault ? "default" : "winner", row.reason = r.reason;
      best = row.us;
    }
    if (!call.measured && row.state == "not measured") row.state = "ranked";
  }
  for (ScheduleRow &row : call.rows)
    if (row.reason.empty() && row.state == "slower" && best > 0)
      row.reason = fmt::format("{:.2f} times the time of the one used", row.us / best);
  std::ranges::sort(call.rows, {}, [&](const ScheduleRow &row) {
    double us = call.measured && row.us > 0 ? row.us : row.predictedUs;
    return std::tuple(row.isWinner ? -1 : orderOf(row), us, row.schedule);
  });
}

/// Names every row by what its group does not share.
void nameRows(TunedGroup &group) {
  std::set<std::string> common;
  bool first = true;
  auto share = [&](const std::string &line) {
    if (line.empty()) return; // a default that was never compiled
    auto fields = words(line);
    std::set<std::string> here(fields.begin(), fields.end());
    if (first)
      common = here;
    else
      std::erase_if(common, [&](const std::string &word) { return !here.count(word); });
    first = false;
  };
  for (const TunedCall &call : group.calls)
    for (const ScheduleRow &row : call.rows)
      if (row.us > 0 || row.isDefault || (!call.measured && row.state == "ranked")) share(row.schedule);
  for (TunedCall &call : group.calls)
    for (ScheduleRow &row : call.rows) {
      for (const std::string &word : words(row.schedule))
        if (!common.count(word)) row.name += (row.name.empty() ? "" : " ") + word;
      if (row.name.empty()) row.name = row.schedule.empty() ? "default" : "all fields as in the others";
      if (group.common.empty() && row.isDefault)
        for (const std::string &word : words(row.schedule))
          if (common.count(word)) group.common += (group.common.empty() ? "" : " ") + word;
    }
}
} // namespace

std::vector<TunedGroup> groupCalls(std::vector<TunedCall> calls) {
  std::vector<TunedGroup> groups;
  for (TunedCall &call : calls) {
    fillRows(call);
    std::string title = call.shape.kernel->name + " " + call.shape.dimText();
    auto found = std::ranges::find(groups, title, &TunedGroup::title);
    if (found == groups.end()) groups.push_back({title, "", {}, {}}), found = groups.end() - 1;
    found->calls.push_back(std::move(call));
  }
  for (TunedGroup &group : groups) nameRows(group);
  return groups;
}

} // namespace quern::tools
