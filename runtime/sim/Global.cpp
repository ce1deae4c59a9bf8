// Global memory: every access must lie in a registered buffer.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"
#include <algorithm>
#include <cstdlib>

namespace quern::sim {

static const char *begin(const Buffer &buffer) { return static_cast<const char *>(buffer.data); }
static const char *end(const Buffer &buffer) { return begin(buffer) + buffer.bytes; }

void GlobalMap::reset(const std::vector<Buffer> &buffers) {
  sorted = buffers;
  last = 0;
  std::sort(sorted.begin(), sorted.end(),
            [](const Buffer &a, const Buffer &b) { return begin(a) < begin(b); });
  reach.clear();
  for (const Buffer &buffer : sorted)
    reach.push_back(reach.empty() ? end(buffer) : std::max(reach.back(), end(buffer)));
}

const Buffer *GlobalMap::find(const void *pointer, uint64_t bytes) {
  const char *p = static_cast<const char *>(pointer);
  auto holds = [&](size_t i) {
    return p >= begin(sorted[i]) && p < end(sorted[i]) && bytes <= uint64_t(end(sorted[i]) - p);
  };
  if (last < sorted.size() && holds(last)) return &sorted[last];
  size_t i = std::upper_bound(sorted.begin(), sorted.end(), p,
                              [](const char *p, const Buffer &b) { return p < begin(b); }) -
             sorted.begin();
  while (i-- > 0 && reach[i] > p)
    if (holds(i)) return last = i, &sorted[i];
  return nullptr;
}

Text GlobalMap::describe(const void *pointer, uint64_t bytes) const {
  const char *p = static_cast<const char *>(pointer);
  const Buffer *nearest = nullptr;
  uint64_t distance = ~0ull;
  for (const Buffer &buffer : sorted) { // how many bytes lie outside, or how far away it is
    const uint64_t away = p < begin(buffer)         ? begin(buffer) - p
                          : p + bytes > end(buffer) ? p + bytes - end(buffer)
                                                    : 0;
    if (away < distance) distance = away, nearest = &buffer;
  }
  if (!nearest) return text("no buffer is registered");
  if (distance == 0) return text("at {}+{}", nearest->name, p - begin(*nearest));
  if (p < begin(*nearest))
    return text("begins {} bytes before buffer '{}' ({} bytes)", distance, nearest->name, nearest->bytes);
  return text("at '{}'+{}, ends {} bytes past the end of the buffer ({} bytes)", nearest->name,
              p - begin(*nearest), distance, nearest->bytes);
}

} // namespace quern::sim

using namespace quern::sim;

void qsim_global(void *p, uint32_t bytes, uint32_t store) {
  step();
  Machine &m = *machine;
  const char *what = store ? "global store" : "global load";
  const Buffer *buffer = m.options.bounds ? m.globals.find(p, bytes) : nullptr;
  if (m.options.bounds && !buffer)
    fatal("bounds", "{} of {} bytes out of bounds: {}", what, bytes, m.globals.describe(p, bytes));
  if (reinterpret_cast<uintptr_t>(p) % (bytes & -bytes))
    fatal("misaligned", "{} of {} bytes {}", what, bytes, m.globals.describe(p, bytes));
  if (store && buffer && !buffer->writable)
    fatal("read-only", "{} of {} bytes {}, which the kernel may only read", what, bytes,
          m.globals.describe(p, bytes));
}
