// What tuning found, arranged for readers: the same rows feed the terminal table, the JSON and the HTML page.
#pragma once
#include "runtime/tune/Tuner.h"
#include "tools/Roof.h"
#include "tools/Shapes.h"
#include <string>
#include <vector>

namespace quern::tools {

/// One schedule of one call.
struct ScheduleRow {
  std::string schedule; // the line as the tuner has it
  std::string name;     // the fields in which the schedules of a group differ
  /// "winner", "default", "slower", "stopped", "failed", "not measured", "ranked", "pruned", "illegal" or
  /// "duplicate"
  std::string state;
  std::string reason;
  double us = 0, lowUs = 0, highUs = 0; // of the worse routing; 0: no measurement
  double predictedUs = 0;
  bool isDefault = false, isWinner = false;
  /// Nobody meant to measure it.
  bool rejected() const { return state == "pruned" || state == "illegal" || state == "duplicate"; }
  /// What the plots draw: measured if anything of the call was.
  double shownUs(bool measured) const { return measured ? us : predictedUs; }
};

/// One call: a kernel at one number of rows per expert.
struct TunedCall {
  Shape shape;
  tune::Result result;
  std::string error;             // instead of a result
  std::vector<ScheduleRow> rows; // best first
  bool measured = false;

  const ScheduleRow *winner() const;   // null without a result
  const ScheduleRow *standard() const; // the default's row
  double intensity() const { return result.work.bytes > 0 ? result.work.flops / result.work.bytes : 0; }
  double tflops(double us) const { return us > 0 ? result.work.flops / us * 1e-6 : 0; }
  double gbs(double us) const { return us > 0 ? result.work.bytes / us * 1e-3 : 0; }
};

/// The calls of one kernel with the same dimensions.
struct TunedGroup {
  std::string title;  // "gate_up E=32 K=2880 N=5760 top_k=4"
  std::string common; // the fields that all measured schedules share
  Roof roof;
  std::vector<TunedCall> calls;
  bool measured() const;
};

struct TuneReport {
  std::string command, note;
  double seconds = 0;
  std::vector<TunedGroup> groups;
};

/// Groups the calls and fills rows and names. Roofs are left to the caller.
std::vector<TunedGroup> groupCalls(std::vector<TunedCall> calls);

/// `all`: every rejected candidate, not the first few of each call.
void printTuneTable(const TuneReport &report, bool all);
std::string tuneJson(const TuneReport &report);
/// One self-contained page.
std::string tuneHtml(const TuneReport &report);

/// "123.4", "12.34": four significant figures.
std::string shortNumber(double value);

} // namespace quern::tools
