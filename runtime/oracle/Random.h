// A counter-based random generator: element i of a stream is a pure function of (seed, stream, i), so
// generated data are the same on every machine, in any order and with any thread count.
#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace quern::oracle {

/// The output function of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
/// 2014).
constexpr uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

class Random {
  uint64_t key;

public:
  Random(uint64_t seed, std::string_view stream) : key(mix(seed + 0x9e3779b97f4a7c15u)) {
    for (char c : stream) key = mix(key ^ uint8_t(c)) + 0x9e3779b97f4a7c15u;
  }
  uint64_t bits(uint64_t i) const { return mix(key + (i + 1) * 0x9e3779b97f4a7c15u); }
  /// In the open interval (0, 1).
  double uniform(uint64_t i) const { return (double(bits(i) >> 11) + 0.5) * 0x1p-53; }
  /// In 0..n-1.
  int64_t below(uint64_t i, int64_t n) const { return int64_t(uniform(i) * double(n)); }
  /// Standard normal, by Box and Muller.
  double normal(uint64_t i) const {
    return std::sqrt(-2 * std::log(uniform(2 * i))) * std::cos(2 * std::numbers::pi * uniform(2 * i + 1));
  }
};

} // namespace quern::oracle
