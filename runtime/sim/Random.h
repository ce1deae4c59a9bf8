// The simulator's random numbers: xorshift64, so that a printed seed gives the same run on every machine.
#pragma once
#include <cstdint>

namespace quern::sim {

class Random {
public:
  void seed(uint64_t seed) {
    state = seed * 0x9E3779B97F4A7C15ull | 1;
    for (int i = 0; i < 8; ++i) next();
  }
  uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  }
  uint64_t below(uint64_t limit) { return (next() >> 16) % limit; }
  bool chance(double probability) { return (next() >> 11) * (1.0 / 9007199254740992.0) < probability; }

private:
  uint64_t state = 1;
};

} // namespace quern::sim
