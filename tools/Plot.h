// Plots as inline SVG: logarithmic axes, lines with intervals, roofs. No script and no font of its own.
#pragma once
#include <string>
#include <vector>

namespace quern::tools {

struct PlotPoint {
  double x = 0, y = 0;
  double low = 0, high = 0; // the interval of y; both 0: none is drawn
  std::string label;        // text beside the mark, left out where it would overlap
  std::string tip;          // what a pointer shows
};

struct PlotSeries {
  std::string name;
  int style =
      0; // colour, mark and dash: 0..plotStyles-1; negative: thin and grey, without a legend of its own
  bool lines = true; // points are joined
  bool hollow = false;
  std::vector<PlotPoint> points;
};
constexpr int plotStyles = 6;

/// The two lines of a roofline plot: y = min(slope * x, flat).
struct PlotRoof {
  double slope = 0, flat = 0; // 0: no roof
  std::string slopeLabel, flatLabel;
};

struct Plot {
  std::string id;          // unique in the page
  std::string title, desc; // for readers who do not see it
  std::string xLabel, yLabel;
  bool xPowersOfTwo = false;
  std::vector<PlotSeries> series;
  PlotRoof roof;
};

/// One <svg> of this size in CSS pixels.
std::string plotSvg(const Plot &plot, int width, int height);
/// The mark of a series for a legend, 18 x 12 pixels.
std::string plotMark(const PlotSeries &series);
std::string escapeHtml(const std::string &text);

} // namespace quern::tools
