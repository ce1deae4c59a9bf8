// See Race.h.
#include "runtime/tune/Race.h"
#include "runtime/oracle/Random.h"
#include <algorithm>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

namespace quern::tune {
namespace {

constexpr Skew skews[] = {Skew::Uniform, Skew::Zipf};
/// A round below this share of the usual clock is left out (facts: neighbours and heat; clock ratio).
constexpr double leastClock = 0.9;

class Race {
  Measurer &measurer;
  const std::vector<Runner> &runners;
  const Options &options;
  const ProgressFn &progress;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  oracle::Random random;
  uint64_t draws = 0;
  std::vector<unsigned> clocksSeen;
  RaceResult result;

  double elapsed() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  bool outOfTime() const { return elapsed() > options.seconds; }
  void tell(Progress::Stage stage, size_t done, size_t total, std::string text) const {
    if (progress) progress({stage, done, total, std::move(text)});
  }

  static std::vector<Measurement> fresh(const std::vector<Runner> &runners) {
    std::vector<Measurement> all;
    for (const Runner &r : runners) {
      Measurement m;
      m.schedule = r.schedule, m.candidate = r.candidate, m.image = r.image;
      for (Skew skew : skews) m.timings.push_back({skew, {}, 0, 0, 0, 0});
      all.push_back(std::move(m));
    }
    return all;
  }

  /// Bad: the device says so, or its clock is far below that of the other rounds.
  bool isBad(const Round &round) {
    if (round.smMHz) clocksSeen.push_back(round.smMHz);
    if (round.slowed) return true;
    if (!round.smMHz) return false;
    std::vector<unsigned> sorted = clocksSeen;
    std::ranges::nth_element(sorted, sorted.begin() + ptrdiff_t(sorted.size() / 2));
    return double(round.smMHz) < leastClock * double(sorted[sorted.size() / 2]);
  }

  /// One cold sample of every live runner under each routing, in a new random order.
  void round(std::vector<Measurement> &all, const std::vector<size_t> &live) {
    for (size_t s = 0; s < std::size(skews); ++s) {
      std::vector<size_t> order = live;
      for (size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1], order[size_t(random.below(draws++, int64_t(i)))]);
      std::erase_if(order, [&](size_t i) { return all[i].failure.has_value(); });
      // Who dies is out; the innocent run again, in what is left of the order.
      while (!order.empty()) {
        std::vector<std::string> schedules;
        for (size_t i : order) schedules.push_back(all[i].schedule);
        Round taken = measurer.round(schedules, skews[s]);
        if (taken.failure) {
          size_t guilty = std::min(taken.guilty, order.size() - 1);
          all[order[guilty]].failure = std::move(taken.failure);
          order.erase(order.begin() + ptrdiff_t(guilty));
          continue;
        }
        bool bad = isBad(taken);
        for (size_t i = 0; i < order.size() && i < taken.us.size(); ++i) {
          Timing &timing = all[order[i]].timings[s];
          ++result.samples;
          bad ? void(++timing.dropped) : timing.samplesUs.push_back(taken.us[i]);
        }
        break;
      }
    }
    for (size_t i : live)
      for (Timing &t : all[i].timings) summarize(t);
  }

  /// The bounds of the worse routing.
  static double low(const Measurement &m) {
    double worst = 0;
    for (const Timing &t : m.timings) worst = std::max(worst, t.samplesUs.empty() ? INFINITY : t.lowUs);
    return worst;
  }
  static double high(const Measurement &m) {
    double worst = 0;
    for (const Timing &t : m.timings) worst = std::max(worst, t.samplesUs.empty() ? INFINITY : t.highUs);
    return worst;
  }

  /// Of those that cannot be told from the fastest, the first: the default, or the one that the model likes
  /// best. So small noise does not make ranks or runs disagree.
  size_t choose() const {
    const auto &all = result.measurements;
    size_t best = 0;
    double least = INFINITY;
    for (size_t i = 0; i < all.size(); ++i)
      if (!all[i].failure && all[i].worstUs() < least) best = i, least = all[i].worstUs();
    for (size_t i = 0; i < all.size(); ++i)
      if (!all[i].failure && all[i].worstUs() <= least * (1 + options.minGain / 2) &&
          low(all[i]) <= high(all[best]))
        return i;
    return best;
  }

  void heats() {
    auto &all = result.measurements;
    std::vector<size_t> live(all.size());
    std::iota(live.begin(), live.end(), size_t(0));
    for (int n = 0; n < options.maxRounds && !outOfTime(); ++n) {
      round(all, live);
      std::erase_if(live, [&](size_t i) { return all[i].failure.has_value(); });
      if (all[0].failure) return;
      size_t best = choose();
      if (n + 1 >= options.minRounds)
        std::erase_if(live, [&](size_t i) {
          if (i == 0 || i == best || low(all[i]) <= high(all[best])) return false;
          all[i].stopped = fmt::format("after {} rounds: at least {:.1f} us, the best at most {:.1f} us",
                                       n + 1, low(all[i]), high(all[best]));
          return true;
        });
      tell(Progress::Measuring, size_t(n + 1), size_t(options.maxRounds),
           fmt::format("{} left; best so far {:.1f} us, default {:.1f} us", live.size(), all[best].worstUs(),
                       all[0].worstUs()));
      if (live.size() == 1) return;
    }
    if (!outOfTime()) return;
    for (size_t i : live) all[i].stopped = "out of time";
  }

  /// New samples, so that the luck that made the challenger the fastest of many does not count again.
  void final(size_t challenger) {
    std::vector<Runner> pair{runners[0], runners[challenger]};
    result.finals = fresh(pair);
    auto &all = result.finals;
    double until = elapsed() + std::max(options.seconds / 4, options.seconds - elapsed());
    for (int n = 0; n < options.finalRounds && elapsed() < until; ++n) {
      round(all, {0, 1});
      tell(Progress::Final, size_t(n + 1), size_t(options.finalRounds),
           fmt::format("default {:.1f} us, challenger {:.1f} us", all[0].worstUs(), all[1].worstUs()));
      if (all[0].failure || all[1].failure) break;
    }
    if (all[0].failure) {
      result.fair = false, result.reason = "the default failed in the last race: " + all[0].failure->message;
      return;
    }
    if (all[1].failure) {
      result.measurements[challenger].failure = all[1].failure;
      result.reason = "the challenger failed in the last race: " + all[1].failure->message;
      return;
    }
    // Fewer than 8 samples give no interval of 99 %.
    for (const Measurement &m : all)
      for (const Timing &t : m.timings)
        if (t.samplesUs.size() < 8) {
          result.fair = false, result.reason = "default kept: out of time in the last race";
          return;
        }
    std::string figures =
        fmt::format("{:.1f} us [{:.1f}, {:.1f}] against the default's {:.1f} us [{:.1f}, {:.1f}]",
                    all[1].worstUs(), low(all[1]), high(all[1]), all[0].worstUs(), low(all[0]), high(all[0]));
    bool apart = high(all[1]) < low(all[0]) && all[1].worstUs() <= all[0].worstUs() * (1 - options.minGain);
    // Under no routing may it be slower beyond the intervals.
    for (size_t s = 0; s < std::size(skews); ++s)
      if (all[1].timings[s].lowUs > all[0].timings[s].highUs) {
        apart = false;
        figures += fmt::format(", and slower with {} routing", name(skews[s]));
      }
    result.reason =
        (apart ? "faster in the last race: " : "default kept: no clear gain in the last race: ") + figures;
    if (apart) result.winner = challenger;
  }

public:
  Race(Measurer &measurer, const std::vector<Runner> &runners, const Options &options,
       const ProgressFn &progress)
      : measurer(measurer), runners(runners), options(options), progress(progress),
        random(options.seed, "order of the race") {}

  RaceResult run() {
    result.measurements = fresh(runners);
    heats();
    const auto &all = result.measurements;
    if (all[0].failure) {
      result.fair = false, result.reason = "the default failed: " + all[0].failure->message;
      return std::move(result);
    }
    // Too few rounds tell nothing, not even that the default is best.
    for (const Measurement &m : all)
      for (const Timing &t : m.timings)
        result.fair &= m.failure || m.stopped.starts_with("after") ||
                       t.samplesUs.size() >= size_t(options.minRounds) || t.dropped > 0;
    size_t best = choose();
    if (!result.fair) {
      result.reason = "default kept: out of time";
    } else if (best != 0) {
      final(best);
    } else {
      result.reason =
          runners.size() == 1 ? "default kept: nothing else to measure" : "default kept: nothing was faster";
    }
    return std::move(result);
  }
};

} // namespace

RaceResult race(Measurer &measurer, const std::vector<Runner> &runners, const Options &options,
                const ProgressFn &progress) {
  return Race(measurer, runners, options, progress).run();
}

} // namespace quern::tune
