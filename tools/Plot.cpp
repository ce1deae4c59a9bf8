// See Plot.h.
#include "tools/Plot.h"
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>

namespace quern::tools {

std::string escapeHtml(const std::string &text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

namespace {
constexpr int labelSize = 11; // of the font, in CSS pixels; a digit is at most 0.65 of it wide

/// A logarithmic axis on pixels [from, to].
struct Axis {
  double low = 0, high = 0; // log2 of the ends
  double from = 0, to = 0;
  double at(double value) const { return from + (std::log2(value) - low) / (high - low) * (to - from); }
  bool holds(double value) const {
    double v = std::log2(value);
    return v >= low - 1e-9 && v <= high + 1e-9;
  }
};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  void add(double value) {
    if (value > 0 && std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  }
  /// Widened by 6 % on both sides, and to at least a factor of two.
  Axis axis(double from, double to) const {
    double a = high > 0 ? std::log2(low) : 0, b = high > 0 ? std::log2(high) : 1;
    if (b - a < 1) a -= (1 - (b - a)) / 2, b = a + 1;
    double pad = 0.06 * (b - a);
    return {a - pad, b + pad, from, to};
  }
};

std::vector<double> powersOfTwo(const Axis &axis, double pixels) {
  int first = int(std::ceil(axis.low - 1e-9)), last = int(std::floor(axis.high + 1e-9)), step = 1;
  while ((last - first) / step + 1 > std::max(2.0, std::abs(axis.to - axis.from) / pixels)) step *= 2;
  std::vector<double> out;
  for (int i = first; i <= last; i += step) out.push_back(std::exp2(i));
  return out;
}

/// 1, 2 and 5 of each decade, or 1 alone, or every n-th decade: as many as fit.
std::vector<double> decades(const Axis &axis, double pixels) {
  auto fitting = size_t(std::max(2.0, std::abs(axis.to - axis.from) / pixels));
  auto collect = [&](std::initializer_list<int> digits, int step) {
    std::vector<double> out;
    for (int e = -12; e <= 15; ++e)
      for (int digit : digits)
        if (double v = digit * std::pow(10.0, e); e % step == 0 && axis.holds(v)) out.push_back(v);
    return out;
  };
  auto all = collect({1, 2, 5}, 1);
  if (all.size() <= fitting) return all;
  for (int step : {1, 2, 3, 6})
    if (auto some = collect({1}, step); some.size() >= 2 && some.size() <= fitting) return some;
  // Less than a decade of many ticks: the first and the last.
  return {all.front(), all.back()};
}

std::string tickText(double value) {
  if (value >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:g}k", value / 1e3);
  return fmt::format("{:g}", value);
}

std::string mark(int style, bool hollow, double x, double y, double r) {
  std::string css = style < 0 ? "grey" : fmt::format("s{}{}", style, hollow ? " hollow" : "");
  auto path = [&](std::string d) { return fmt::format("<path class=\"m {}\" d=\"{}\"/>", css, d); };
  switch (style) {
  case 1:
    return path(fmt::format("M{:.1f} {:.1f}h{:.1f}v{:.1f}h{:.1f}z", x - r, y - r, 2 * r, 2 * r, -2 * r));
  case 2:
    return path(
        fmt::format("M{:.1f} {:.1f}l{:.1f} {:.1f}h{:.1f}z", x, y - 1.2 * r, 1.2 * r, 2.1 * r, -2.4 * r));
  case 3:
    return path(fmt::format("M{:.1f} {:.1f}l{:.1f} {:.1f}l{:.1f} {:.1f}l{:.1f} {:.1f}z", x, y - 1.4 * r,
                            1.4 * r, 1.4 * r, -1.4 * r, 1.4 * r, -1.4 * r, -1.4 * r));
  case 4:
    return path(
        fmt::format("M{:.1f} {:.1f}l{:.1f} {:.1f}h{:.1f}z", x, y + 1.2 * r, 1.2 * r, -2.1 * r, -2.4 * r));
  case 5:
    return fmt::format("<path class=\"l {}\" d=\"M{:.1f} {:.1f}l{:.1f} {:.1f}m0 {:.1f}l{:.1f} {:.1f}\"/>",
                       css, x - r, y - r, 2 * r, 2 * r, -2 * r, -2 * r, 2 * r);
  default:
    return fmt::format("<circle class=\"m {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"/>", css, x, y,
                       style < 0 ? 2.0 : r);
  }
}

/// Rectangles that hold text already.
class Labels {
  struct Box {
    double x0, y0, x1, y1;
  };
  std::vector<Box> taken;

public:
  void block(double x0, double y0, double x1, double y1) { taken.push_back({x0, y0, x1, y1}); }
  bool free(double x0, double y0, double x1, double y1) const {
    return std::none_of(taken.begin(), taken.end(),
                        [&](const Box &b) { return x0 < b.x1 && b.x0 < x1 && y0 < b.y1 && b.y0 < y1; });
  }
};

class Drawing {
  const Plot &plot;
  int width, height;
  double left = 52, right = 12, top = 12, bottom = 42;
  Axis x, y;
  Labels labels;
  std::string out;

  void text(double px, double py, const char *anchor, const std::string &words, const char *css = "") {
    out += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", css, px,
                       py, anchor, escapeHtml(words));
  }
  void line(const char *css, double x0, double y0, double x1, double y1) {
    out += fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", css,
                       x0, y0, x1, y1);
  }

  void ranges() {
    Range rx, ry;
    for (const PlotSeries &s : plot.series)
      for (const PlotPoint &p : s.points) rx.add(p.x), ry.add(p.y), ry.add(p.low), ry.add(p.high);
    if (plot.roof.flat > 0 && plot.roof.slope > 0) {
      double ridge = plot.roof.flat / plot.roof.slope;
      rx.add(ridge / 4), rx.add(ridge * 4);
      ry.add(plot.roof.flat * 1.5); // room for its label
    }
    x = rx.axis(left, width - right), y = ry.axis(height - bottom, top);
  }

  void axes() {
    for (double v : plot.xPowersOfTwo ? powersOfTwo(x, 44) : decades(x, 44)) {
      line("grid", x.at(v), top, x.at(v), height - bottom);
      text(x.at(v), height - bottom + 15, "middle", tickText(v));
    }
    for (double v : decades(y, 24)) {
      line("grid", left, y.at(v), width - right, y.at(v));
      text(left - 6, y.at(v) + 4, "end", tickText(v));
    }
    line("axis", left, height - bottom, width - right, height - bottom);
    line("axis", left, top, left, height - bottom);
    text((left + width - right) / 2, height - 8, "middle", plot.xLabel, "name");
    double middle = (top + height - bottom) / 2;
    out += fmt::format(
        "<text class=\"name\" text-anchor=\"middle\" transform=\"translate(12 {:.1f}) rotate(-90)\">{}"
        "</text>\n",
        middle, escapeHtml(plot.yLabel));
  }

  void roof() {
    const PlotRoof &r = plot.roof;
    if (r.flat <= 0 || r.slope <= 0) return;
    double ridge = r.flat / r.slope, lowest = std::exp2(y.low) / r.slope;
    double begin = std::max(lowest, std::exp2(x.low)), end = std::exp2(x.high);
    line("roof", x.at(begin), y.at(begin * r.slope), x.at(ridge), y.at(r.flat));
    line("roof", x.at(ridge), y.at(r.flat), x.at(end), y.at(r.flat));
    auto wide = [](const std::string &words) { return 0.58 * labelSize * double(words.size()); };
    double px = width - right - 2, py = y.at(r.flat) - 6;
    text(px, py, "end", r.flatLabel, "note");
    labels.block(px - wide(r.flatLabel), py - labelSize, px, py + 3);
    // Along the slope, above its lower half.
    double middle = std::sqrt(begin * ridge), cx = x.at(middle), cy = y.at(middle * r.slope);
    double angle = std::atan2(y.at(r.flat) - y.at(begin * r.slope), x.at(ridge) - x.at(begin)) * 180 / M_PI;
    if (double length = std::hypot(x.at(ridge) - x.at(begin), y.at(r.flat) - y.at(begin * r.slope));
        length > wide(r.slopeLabel) + 10)
      out += fmt::format("<text class=\"note\" text-anchor=\"middle\" transform=\"translate({:.1f} {:.1f}) "
                         "rotate({:.1f}) translate(0 -7)\">{}</text>\n",
                         cx, cy, angle, escapeHtml(r.slopeLabel));
  }

  void draw(const PlotSeries &s) {
    std::string css = s.style < 0 ? "grey" : fmt::format("s{}", s.style);
    if (s.lines && s.points.size() > 1) {
      out += fmt::format("<polyline class=\"l {}\" points=\"", css);
      for (const PlotPoint &p : s.points) out += fmt::format("{:.1f},{:.1f} ", x.at(p.x), y.at(p.y));
      out += "\"/>\n";
    }
    for (const PlotPoint &p : s.points) {
      double px = x.at(p.x), py = y.at(p.y);
      out += fmt::format("<g><title>{}</title>", escapeHtml(p.tip));
      if (s.style >= 0 && p.low > 0 && p.high > p.low)
        out +=
            fmt::format("<line class=\"l bar {}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>",
                        css, px, y.at(p.low), px, y.at(p.high));
      out += mark(s.style, s.hollow, px, py, 4) + "</g>\n";
      labels.block(px - 5, py - 5, px + 5, py + 5);
    }
  }

  void pointLabels() {
    for (const PlotSeries &s : plot.series)
      for (const PlotPoint &p : s.points) {
        if (p.label.empty()) continue;
        double px = x.at(p.x), py = y.at(p.y), wide = 0.62 * labelSize * double(p.label.size());
        // Below right first: the roof is above.
        struct Place {
          double dx, dy;
        };
        for (Place at : {Place{8, 13}, {8, 4}, {-8 - wide, 4}, {-wide / 2, 18}, {-8 - wide, -6}, {8, -6}}) {
          double x0 = px + at.dx, y1 = py + at.dy;
          if (x0 < left || x0 + wide > width - 2 || y1 > height - bottom - 2 || y1 - labelSize < top ||
              !labels.free(x0, y1 - labelSize + 2, x0 + wide, y1 + 2))
            continue;
          text(x0, y1, "start", p.label, "note");
          labels.block(x0, y1 - labelSize + 2, x0 + wide, y1 + 2);
          break;
        }
      }
  }

public:
  Drawing(const Plot &plot, int width, int height) : plot(plot), width(width), height(height) {}
  std::string str() {
    std::string id = fmt::format("{}-{}", plot.id, width);
    out = fmt::format(
        "<svg class=\"w{0}\" viewBox=\"0 0 {0} {1}\" role=\"img\" aria-labelledby=\"{2}-t {2}-d\">\n"
        "<title id=\"{2}-t\">{3}</title>\n<desc id=\"{2}-d\">{4}</desc>\n",
        width, height, id, escapeHtml(plot.title), escapeHtml(plot.desc));
    ranges();
    axes();
    roof();
    // What matters most is drawn last, on top.
    for (const PlotSeries &s : plot.series)
      if (s.style < 0) draw(s);
    for (size_t i = plot.series.size(); i-- > 0;)
      if (plot.series[i].style >= 0) draw(plot.series[i]);
    pointLabels();
    return out + "</svg>\n";
  }
};
} // namespace

std::string plotSvg(const Plot &plot, int width, int height) { return Drawing(plot, width, height).str(); }

std::string plotMark(const PlotSeries &series) {
  std::string css = series.style < 0 ? "grey" : fmt::format("s{}", series.style);
  std::string line =
      series.lines ? fmt::format("<line class=\"l {}\" x1=\"0\" y1=\"7\" x2=\"22\" y2=\"7\"/>", css) : "";
  return fmt::format("<svg class=\"key\" viewBox=\"0 0 22 14\" aria-hidden=\"true\">{}{}</svg>", line,
                     mark(series.style, series.hollow, 11, 7, 4));
}

} // namespace quern::tools
