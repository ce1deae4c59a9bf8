// How a long command says where it is: one redrawn line on a terminal, a line for each piece of work
// elsewhere. All on standard error.
#pragma once
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace quern::tools {

/// Thread safe. Work that costs nothing (found in the cache) does not enter the estimate of the time left.
class Progress {
public:
  /// `quiet`: nothing is printed. `redraw`: what standard error is, unless a test says otherwise.
  Progress(int64_t total, bool quiet);
  Progress(int64_t total, bool quiet, bool redraw);
  ~Progress() { close(); }
  /// Removes the bar; nothing is printed afterwards.
  void close();

  /// A piece of work starts or goes on; `part` in 0..1 is how much of it is done.
  void at(const std::string &label, double part = 0);
  /// A piece of work is done. `outcome`: "compiled in 1.2 s". `free`: it cost nothing.
  void finish(const std::string &label, const std::string &outcome, bool free = false);
  /// A line that stays, above the bar.
  void say(const std::string &line);
  /// Seconds left at the rate so far, or negative when nothing can be said.
  double secondsLeft() const;

private:
  using Clock = std::chrono::steady_clock;
  mutable std::mutex mutex;
  int64_t total, done = 0, worked = 0;
  double part = 0;
  bool quiet, redraw, drawn = false;
  std::string current;
  Clock::time_point start = Clock::now(), lastDraw{};

  double left() const;
  void draw(bool now);
  void erase();
};

/// "0.8 s", "1 min 20 s", "2 h 5 min"
std::string durationText(double seconds);

} // namespace quern::tools
