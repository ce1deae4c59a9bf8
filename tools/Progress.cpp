// See Progress.h.
#include "tools/Progress.h"
#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace quern::tools {

std::string durationText(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  int64_t whole = int64_t(seconds + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

Progress::Progress(int64_t total, bool quiet) : Progress(total, quiet, isatty(STDERR_FILENO)) {}
Progress::Progress(int64_t total, bool quiet, bool redraw) : total(total), quiet(quiet), redraw(redraw) {}

void Progress::close() {
  std::lock_guard lock(mutex);
  erase();
  quiet = true;
}

double Progress::left() const {
  double finished = double(worked) + part;
  double open = double(total - done) - part;
  if (open <= 0) return 0;
  if (finished <= 0) return -1;
  return std::chrono::duration<double>(Clock::now() - start).count() / finished * open;
}

double Progress::secondsLeft() const {
  std::lock_guard lock(mutex);
  return left();
}

void Progress::erase() {
  if (drawn) std::fputs("\r\033[K", stderr);
  drawn = false;
}

void Progress::draw(bool now) {
  if (quiet || !redraw) return;
  auto time = Clock::now();
  if (!now && drawn && time - lastDraw < std::chrono::milliseconds(100)) return;
  lastDraw = time;
  winsize size{};
  size_t width = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
  constexpr int cells = 24;
  int full = total > 0 ? int(cells * std::min(1.0, (double(done) + part) / double(total))) : cells;
  std::string line = fmt::format("[{:#<{}}{:.<{}}] {}/{}", "", full, "", cells - full, done, total);
  if (double seconds = left(); seconds >= 0) line += ", " + durationText(seconds) + " left";
  line += "  " + current;
  if (line.size() >= width) line.resize(width - 1);
  fmt::print(stderr, "\r\033[K{}", line);
  std::fflush(stderr);
  drawn = true;
}

void Progress::at(const std::string &label, double newPart) {
  std::lock_guard lock(mutex);
  bool changed = current != label;
  current = label, part = std::clamp(newPart, 0.0, 1.0);
  draw(changed);
}

void Progress::finish(const std::string &label, const std::string &outcome, bool free) {
  std::lock_guard lock(mutex);
  ++done, worked += !free, part = 0;
  if (quiet) return;
  if (redraw) return draw(done == total);
  std::string line = fmt::format("{}/{} {}: {}", done, total, label, outcome);
  if (double seconds = left(); seconds > 0) line += ", " + durationText(seconds) + " left";
  fmt::print(stderr, "{}\n", line);
  std::fflush(stderr);
}

void Progress::say(const std::string &line) {
  std::lock_guard lock(mutex);
  if (quiet) return;
  erase();
  fmt::print(stderr, "{}\n", line);
  draw(true);
}

} // namespace quern::tools
