// Medians and their intervals.
#include "runtime/tune/Tuner.h"
#include <algorithm>
#include <cmath>
#include <limits>

namespace quern::tune {

void summarize(Timing &timing) {
  std::vector<double> sorted = timing.samplesUs;
  std::ranges::sort(sorted);
  size_t n = sorted.size();
  if (!n) return;
  timing.medianUs = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
  // The number of samples below the true median is binomial(n, 1/2), whatever their distribution: the k-th
  // smallest and the k-th largest enclose it with probability 1 - 2 P(X < k). The largest k that leaves 99 %,
  // or the whole range when no k does (fewer than 8 samples).
  double tail = 0, logTerm = -double(n) * std::log(2.0); // log P(X = 0)
  size_t k = 0;
  for (size_t i = 0; i < n / 2; ++i) {
    tail += std::exp(logTerm);
    if (2 * tail > 0.01) break;
    k = i + 1;
    logTerm += std::log(double(n - i)) - std::log(double(i + 1));
  }
  size_t low = k ? k - 1 : 0;
  timing.lowUs = sorted[low], timing.highUs = sorted[n - 1 - low];
}

double Measurement::worstUs() const {
  double worst = 0;
  for (const Timing &t : timings) worst = std::max(worst, t.samplesUs.empty() ? INFINITY : t.medianUs);
  return timings.empty() ? INFINITY : worst;
}

std::string_view name(Policy policy) { return policy == Policy::Device ? "device" : "call"; }
std::optional<Policy> parsePolicy(std::string_view text) {
  for (Policy p : {Policy::Device, Policy::Call})
    if (text == name(p)) return p;
  return std::nullopt;
}
std::string_view name(Skew skew) { return skew == Skew::Uniform ? "uniform" : "zipf"; }
std::string_view name(Verdict verdict) {
  constexpr std::string_view names[] = {"default", "kept", "pruned", "illegal", "duplicate"};
  return names[size_t(verdict)];
}
std::string_view name(FailureKind kind) {
  constexpr std::string_view names[] = {"compile", "wrong", "bits", "crash", "hang", "device", "memory"};
  return names[size_t(kind)];
}
std::string_view name(Progress::Stage stage) {
  constexpr std::string_view names[] = {"ranking", "compiling", "checking", "measuring", "final", "done"};
  return names[size_t(stage)];
}

} // namespace quern::tune
