// The page of `quern tune --report`: plots, a table below each, and every candidate with its reason. The
// frame and all style are in report.html.
#include "tools/Plot.h"
#include "tools/TuneView.h"
#include <algorithm>
#include <fmt/format.h>
#include <map>

namespace quern {
struct ReportTemplate {
  const char *name, *text;
};
extern const ReportTemplate reportTemplates[]; // report.html, embedded at build time
} // namespace quern

namespace quern::tools {
namespace {

std::string rowsText(const TunedCall &call) {
  return fmt::format("{} row{}", call.shape.rowsPerExpert, call.shape.rowsPerExpert == 1 ? "" : "s");
}

/// A table with a caption for readers that do not see the plot above it. A cell that starts with '<' is
/// markup.
class Table {
  std::string out;
  size_t textFrom;

public:
  /// Columns from `textFrom` on are text, the others numbers.
  Table(const std::string &label, const std::vector<std::string> &head, size_t textFrom)
      : textFrom(textFrom) {
    out = fmt::format(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{0}\"><table><thead><tr>",
        escapeHtml(label));
    for (size_t i = 0; i < head.size(); ++i)
      out += fmt::format("<th scope=\"col\"{}>{}</th>", i >= textFrom ? " class=\"t\"" : "",
                         escapeHtml(head[i]));
    out += "</tr></thead><tbody>\n";
  }
  void row(const std::vector<std::string> &cells, bool used = false) { // end tags are optional, and rows many
    out += used ? "<tr class=\"used\">" : "<tr>";
    for (size_t i = 0; i < cells.size(); ++i)
      out += fmt::format("<td{}>{}",
                         i < textFrom                            ? ""
                         : i > textFrom && i + 1 == cells.size() ? " class=\"t reason\""
                                                                 : " class=\"t\"",
                         cells[i].starts_with('<') ? cells[i] : escapeHtml(cells[i]));
    out += '\n';
  }
  std::string str() const { return out + "</tbody></table></div>\n"; }
};

std::string code(const std::string &text) { return "<code>" + escapeHtml(text) + "</code>"; }

std::string figure(const Plot &plot, const std::string &caption) {
  std::string out = "<figure>\n" + plotSvg(plot, 760, 400) + plotSvg(plot, 360, 300);
  out += "<ul class=\"legend\">";
  bool grey = false;
  for (const PlotSeries &s : plot.series) {
    if (s.style < 0 && std::exchange(grey, true)) continue;
    out += fmt::format("<li>{}{}</li>", plotMark(s), s.style < 0 ? "other schedules" : code(s.name));
  }
  return out + "</ul>\n<figcaption>" + escapeHtml(caption) + "</figcaption></figure>\n";
}

/// The schedules that get a colour: those that win, most often first, then the fastest on average.
std::vector<std::string> notable(const TunedGroup &group, bool measured) {
  struct Score {
    int wins = 0, count = 0;
    double ratio = 0;
  };
  std::map<std::string, Score> scores;
  for (const TunedCall &call : group.calls) {
    const ScheduleRow *winner = call.winner();
    for (const ScheduleRow &row : call.rows) {
      if (row.isDefault || row.shownUs(measured) <= 0) continue;
      Score &s = scores[row.name];
      ++s.count, s.wins += row.isWinner;
      if (winner && winner->shownUs(measured) > 0)
        s.ratio += row.shownUs(measured) / winner->shownUs(measured);
    }
  }
  std::vector<std::string> names;
  for (auto &[name, score] : scores) names.push_back(name);
  std::ranges::sort(names, {}, [&](const std::string &name) {
    const Score &s = scores[name];
    return std::tuple(-s.wins, -s.count, s.ratio / std::max(1, s.count), name);
  });
  names.resize(std::min<size_t>(names.size(), plotStyles - 1));
  return names;
}

Plot timePlot(const TunedGroup &group, const std::string &id, bool measured) {
  Plot plot;
  plot.id = id + "-time";
  plot.title = "Time against rows per expert: " + group.title;
  plot.desc =
      fmt::format("{} microseconds of a call, both axes logarithmic; the table below has the same figures.",
                  measured ? "Measured" : "Predicted");
  plot.xLabel = "rows per expert", plot.yLabel = measured ? "µs (worse routing)" : "µs (predicted)";
  plot.xPowersOfTwo = true;
  std::vector<std::string> colours = notable(group, measured);
  std::map<std::string, PlotSeries> others;
  std::vector<PlotSeries> named(colours.size() + 1);
  named[0].name = "default";
  for (size_t i = 0; i < colours.size(); ++i) named[i + 1].name = colours[i], named[i + 1].style = int(i) + 1;
  for (const TunedCall &call : group.calls)
    for (const ScheduleRow &row : call.rows) {
      double us = row.shownUs(measured);
      // Unmeasured schedules are drawn where nothing is measured, and of those only what the model would try.
      bool drawn = measured ? row.state != "failed" : row.isDefault || row.isWinner || row.state == "ranked";
      if (us <= 0 || !drawn) continue;
      PlotPoint p{double(call.shape.rowsPerExpert), us, 0, 0, "", ""};
      if (measured) p.low = row.lowUs, p.high = row.highUs;
      p.tip = fmt::format("{}: {} µs, {}{}", row.isDefault ? "default" : row.name, shortNumber(us),
                          rowsText(call), row.isWinner ? ", used" : "");
      auto at = std::ranges::find(colours, row.name);
      if (row.isDefault)
        named[0].points.push_back(p);
      else if (at != colours.end())
        named[size_t(at - colours.begin()) + 1].points.push_back(p);
      else
        others[row.name].points.push_back(p);
    }
  plot.series = std::move(named);
  for (auto &[name, series] : others) series.name = name, series.style = -1, plot.series.push_back(series);
  std::erase_if(plot.series, [](const PlotSeries &s) { return s.points.empty(); });
  for (PlotSeries &s : plot.series) std::ranges::sort(s.points, {}, &PlotPoint::x);
  return plot;
}

std::string timeSection(const TunedGroup &group, const std::string &id, bool measured) {
  Plot plot = timePlot(group, id, measured);
  std::string out = "<h3>Time against rows per expert</h3>\n";
  out += figure(
      plot,
      measured
          ? "Median of the slower of two routings, uniform and skewed; bars are 99 % intervals of the median."
          : "Predictions of the cost model: nothing was measured.");
  Table table("Time: " + group.title,
              {"rows per expert", "tokens", "default, µs", "used, µs", measured ? "99 %, µs" : "", "speedup",
               "schedule used", "why"},
              6);
  for (const TunedCall &call : group.calls) {
    const ScheduleRow *standard = call.standard(), *winner = call.winner();
    double before = standard ? standard->shownUs(measured) : 0,
           after = winner ? winner->shownUs(measured) : 0;
    table.row({fmt::to_string(call.shape.rowsPerExpert), fmt::to_string(call.shape.tokens),
               shortNumber(before), shortNumber(after),
               measured && after > 0
                   ? fmt::format("{}–{}", shortNumber(winner->lowUs), shortNumber(winner->highUs))
                   : "",
               before > 0 && after > 0 ? fmt::format("{:.3f}", before / after) : "-",
               !winner || winner->isDefault ? "default" : code(winner->name),
               call.error.empty() ? call.result.refused.empty() ? call.result.reason : call.result.refused
                                  : call.error});
  }
  return out + table.str();
}

std::string roofSection(const TunedGroup &group, const std::string &id, bool measured) {
  std::string out = "<h3>Roofline</h3>\n";
  const Roof &roof = group.roof;
  if (!roof.known()) return out + "<p>Not drawn: nothing is known of this device's rates.</p>\n";
  Plot plot;
  plot.id = id + "-roof";
  plot.title = "Roofline: " + group.title;
  plot.desc = fmt::format(
      "Rate against arithmetic intensity under a memory roof of {} GB/s and an arithmetic roof of {} "
      "TFLOP/s; the table below has the same figures.",
      shortNumber(roof.gbs), shortNumber(roof.tflops));
  plot.xLabel = "flops per byte that must move", plot.yLabel = "TFLOP/s";
  plot.roof = {roof.gbs * 1e-3, roof.tflops, fmt::format("{} GB/s", shortNumber(roof.gbs)),
               fmt::format("{} TFLOP/s", shortNumber(roof.tflops))};
  PlotSeries used{"used", 1, true, false, {}}, standard{"default", 0, false, true, {}};
  Table table("Roofline: " + group.title,
              {"rows per expert", "flops per byte", "TFLOP/s", "GB/s", "of the roof", "default, of the roof",
               "bound by"},
              6);
  for (const TunedCall &call : group.calls) {
    const ScheduleRow *winner = call.winner(), *base = call.standard();
    double us = winner ? winner->shownUs(measured) : 0, baseUs = base ? base->shownUs(measured) : 0;
    double x = call.intensity(), top = roof.at(x);
    if (us <= 0 || x <= 0) continue;
    auto share = [&](double time) {
      return time > 0 ? fmt::format("{:.0f} %", 100 * call.tflops(time) / top) : "-";
    };
    auto tip = [&](const char *who, double time) {
      return fmt::format("{}, {}: {} TFLOP/s, {} of the roof", who, rowsText(call),
                         shortNumber(call.tflops(time)), share(time));
    };
    used.points.push_back(
        {x, call.tflops(us), 0, 0, fmt::to_string(call.shape.rowsPerExpert), tip("used", us)});
    if (baseUs > 0) standard.points.push_back({x, call.tflops(baseUs), 0, 0, "", tip("default", baseUs)});
    table.row({fmt::to_string(call.shape.rowsPerExpert), shortNumber(x), shortNumber(call.tflops(us)),
               shortNumber(call.gbs(us)), share(us), share(baseUs),
               roof.gbs * 1e-3 * x < roof.tflops ? "memory" : "arithmetic"});
  }
  plot.series = {used, standard};
  std::erase_if(plot.series, [](const PlotSeries &s) { return s.points.empty(); });
  if (plot.series.empty()) return out + "<p>Not drawn: no call has a time.</p>\n";
  return out +
         figure(plot,
                fmt::format("Numbers beside the points are rows per expert. Roofs: {}, {} TFLOP/s and {} "
                            "GB/s, {}. Bytes are "
                            "the least that must move: weights of the experts in use, rows in, results out.",
                            roof.arithmetic, shortNumber(roof.tflops), shortNumber(roof.gbs), roof.source)) +
         table.str();
}

std::string candidateSection(const TunedGroup &group) {
  std::string out = "<h3>Every candidate</h3>\n";
  if (!group.common.empty()) out += "<p>All measured schedules have " + code(group.common) + ".</p>\n";
  for (const TunedCall &call : group.calls) {
    std::string summary; // the states in the order of the rows
    for (size_t row = 0, next = 0; row < call.rows.size(); row = next) {
      while (next < call.rows.size() && call.rows[next].state == call.rows[row].state) ++next;
      summary += fmt::format(", {} {}", next - row, call.rows[row].state);
    }
    out += fmt::format("<details><summary>{}, {} tokens: {} candidates{}</summary>\n", rowsText(call),
                       call.shape.tokens, call.rows.size(), escapeHtml(summary));
    if (!call.error.empty()) out += "<p>" + escapeHtml(call.error) + "</p>\n";
    Table table(fmt::format("Candidates of {}", call.shape.label()),
                {"µs", "99 %", "predicted, µs", "schedule", "verdict", "reason"}, 3);
    Table rejected("Rejected candidates of " + call.shape.label(),
                   {"predicted, µs", "schedule", "verdict", "reason"}, 1);
    size_t count = 0;
    for (const ScheduleRow &row : call.rows) {
      std::string predicted = row.predictedUs > 0 ? shortNumber(row.predictedUs) : "";
      if (row.rejected()) {
        rejected.row({predicted, code(row.name), row.state, row.reason}), ++count;
        continue;
      }
      table.row({row.us > 0 ? shortNumber(row.us) : "",
                 row.us > 0 ? fmt::format("{}–{}", shortNumber(row.lowUs), shortNumber(row.highUs)) : "",
                 predicted, code(row.name), row.state, row.reason},
                row.isWinner);
    }
    out += table.str();
    if (count)
      out += fmt::format("<details><summary>{} rejected without being measured</summary>\n{}</details>\n",
                         count, rejected.str());
    out += "</details>\n";
  }
  return out;
}

std::string facts(const TuneReport &report) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const TunedGroup &group : report.groups)
    for (const TunedCall &call : group.calls) {
      const tune::Result &r = call.result;
      if (!call.error.empty() || !rows.empty()) continue;
      rows.emplace_back("Device", fmt::format("{} ({}, {} {})", r.device.name, r.device.arch, r.device.units,
                                              r.device.arch == "cpu" ? "threads" : "multiprocessors"));
      rows.emplace_back("Protocol",
                        fmt::format("version {}, policy {}", tune::protocolVersion, tune::name(r.policy)));
    }
  rows.emplace_back("Quern", QUERN_VERSION);
  rows.emplace_back("Command", "<code>" + escapeHtml(report.command) + "</code>");
  if (!report.note.empty()) rows.emplace_back("Note", report.note);
  std::string out = "<dl>\n";
  for (auto &[name, text] : rows)
    out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, text.starts_with('<') ? text : escapeHtml(text));
  return out + "</dl>\n";
}

void replaceAll(std::string &text, std::string_view what, const std::string &with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size())
    text.replace(at, what.size(), with);
}
} // namespace

std::string tuneHtml(const TuneReport &report) {
  std::string body = facts(report);
  for (size_t i = 0; i < report.groups.size(); ++i) {
    const TunedGroup &group = report.groups[i];
    std::string id = fmt::format("g{}", i);
    bool measured = group.measured();
    body += fmt::format("<section>\n<h2>{}</h2>\n", escapeHtml(group.title));
    body += timeSection(group, id, measured) + roofSection(group, id, measured) + candidateSection(group) +
            "</section>\n";
  }
  std::string page = reportTemplates[0].text;
  replaceAll(page, "{{title}}", "Quern: schedules tried and chosen");
  replaceAll(page, "{{body}}", body);
  return page;
}

} // namespace quern::tools
