// Vector clocks: storage and the two loops that run often.
#include "runtime/sim/Clock.h"
#include "runtime/sim/Multiversion.h"
#include <algorithm>
#include <cstring>

namespace quern::sim {

QSIM_MULTIVERSION void joinClocks(uint32_t *into, const uint32_t *from, size_t count) {
  for (size_t i = 0; i < count; ++i) into[i] = into[i] > from[i] ? into[i] : from[i];
}

QSIM_MULTIVERSION void meetClocks(uint32_t *low, const uint32_t *from, size_t count) {
  for (size_t i = 0; i < count; ++i) low[i] = low[i] < from[i] ? low[i] : from[i];
}

void Clocks::reset(size_t threadCount, size_t barriers) {
  threads = threadCount;
  stride = (2 * threads + threads / 32 + barriers + 15) / 16 * 16;
  active = threads;
  if (values.size() < stride * threads) values.resize(stride * threads);
  for (size_t i = 0; i < threads; ++i) {
    std::memset(of(i), 0, active * sizeof(uint32_t));
    of(i)[i] = 1;
  }
}

void Clocks::activateAll() {
  for (size_t i = 0; i < threads; ++i) std::memset(of(i) + active, 0, (stride - active) * sizeof(uint32_t));
  active = stride;
}

void MeetingClock::add(const Clocks &clocks, const uint32_t *clock) {
  if (empty) {
    values.assign(clocks.stride, 0);
    empty = false;
  }
  joinClocks(values.data(), clock, clocks.active);
}

} // namespace quern::sim
