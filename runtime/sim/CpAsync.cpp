// cp.async: per-thread copies of 16 bytes that land late, as generic-proxy writes of the issuing thread.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"
#include <cstring>

namespace quern::sim {

static void land(Thread &t, CpAsync &copy) {
  if (copy.landed) return;
  copy.landed = true;
  char *to = t.cta->window + copy.address;
  std::memset(to, 0, 16);
  if (copy.sourceBytes) std::memcpy(to, copy.source, copy.sourceBytes);
}

/// The wait: the words become ordinary stores of this thread, made now.
static void observe(Thread &t, const CpAsync &copy) {
  if (!machine->options.happensBefore) return;
  const uint32_t first = t.cta->shadowIndex(copy.address) / 4;
  for (uint32_t i = first; i < first + 4; ++i) {
    Word &word = t.cta->shadow.words[i];
    if (word.writer == t.id && word.writeClock == inFlight) word.writeClock = t.clock[t.id];
  }
}

} // namespace quern::sim

using namespace quern::sim;

void qsim_cp_async16(void *shared, void *global, uint32_t srcBytes) {
  step();
  maybeYield(0.25);
  Machine &m = *machine;
  Thread &t = self();
  Cta &cta = *t.cta;
  const char *what = "cp.async";
  const uint32_t address = cta.address(shared, 16, what);
  if (address % 16)
    fatal("misaligned", "{}: destination {} needs 16-byte alignment", what, placeOf(cta, address));
  if (srcBytes > 16) fatal("bounds", "{}: source size {}; 0 to 16 is legal", what, srcBytes);
  if (reinterpret_cast<uintptr_t>(global) % 16)
    fatal("misaligned", "{}: the global address needs 16-byte alignment, {}", what,
          m.globals.describe(global, srcBytes));
  if (srcBytes && m.options.bounds && !m.globals.find(global, srcBytes))
    fatal("bounds", "{} of {} bytes out of bounds: {}", what, srcBytes, m.globals.describe(global, srcBytes));
  if (m.options.happensBefore) {
    genericAccess(cta, address, 16, Access::Store, what);
    const uint32_t first = cta.shadowIndex(address) / 4;
    for (uint32_t i = first; i < first + 4; ++i) cta.shadow.words[i].writeClock = inFlight;
  }
  t.copies.push_back({address, static_cast<const char *>(global), srcBytes, t.copyGroups, false});
  ++m.report.copies;
  if (m.options.copies == CopyMode::Eager || (m.options.copies == CopyMode::Random && m.random.chance(0.5)))
    land(t, t.copies.back());
}

void qsim_cp_async_commit() {
  step();
  ++self().copyGroups;
}

void qsim_cp_async_wait(uint32_t groups) {
  step();
  maybeYield();
  Thread &t = self();
  const uint32_t complete = t.copyGroups > groups ? t.copyGroups - groups : 0;
  size_t kept = 0;
  for (CpAsync &copy : t.copies) {
    if (copy.group >= complete) {
      t.copies[kept++] = copy;
      continue;
    }
    land(t, copy);
    observe(t, copy);
  }
  t.copies.resize(kept);
}
