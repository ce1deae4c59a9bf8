// Bulk and tensor map copies: checks when they are issued, data when they land.
#include "runtime/sim/AsyncCopy.h"
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"
#include <cstring>

namespace quern::sim {

static void copyBox(const AsyncCopy &copy) {
  const TensorMap &map = *copy.map;
  const uint32_t rowBytes = map.boxColumns * map.elementBytes, perChunk = 16 / map.elementBytes;
  for (uint32_t r = 0; r < map.boxRows; ++r) {
    const int64_t row = int64_t(copy.row) + r;
    const bool inside = row >= 0 && row < int64_t(map.rows);
    const char *source = inside ? map.base + row * map.rowBytes : nullptr;
    for (uint32_t c = 0; c < rowBytes; c += 16) {
      char chunk[16] = {}; // out of bounds: zeros
      const int64_t column = int64_t(copy.column) + c / map.elementBytes;
      if (inside && column >= 0 && column + perChunk <= int64_t(map.columns))
        std::memcpy(chunk, source + column * map.elementBytes, 16);
      else if (inside)
        for (uint32_t e = 0; e < perChunk; ++e)
          if (column + e >= 0 && column + e < int64_t(map.columns))
            std::memcpy(chunk + e * map.elementBytes, source + (column + e) * map.elementBytes,
                        map.elementBytes);
      std::memcpy(copy.cta->window + swizzled(copy.address + r * rowBytes + c, map.swizzle), chunk, 16);
    }
  }
}

void CopyQueue::land(size_t index) {
  const AsyncCopy copy = pending[index];
  pending[index] = pending.back();
  pending.pop_back();
  if (copy.map)
    copyBox(copy);
  else
    std::memcpy(copy.cta->window + copy.address, copy.source, copy.bytes);
  Mbarrier &barrier = copy.cta->mbarriers[copy.barrier];
  // Waiters learn of all copies up to the first that is still on its way.
  uint32_t complete = barrier.issued;
  for (const AsyncCopy &other : pending)
    if (other.cta == copy.cta && other.barrier == copy.barrier)
      complete = std::min(complete, other.epoch - 1);
  barrier.collected[barrier.agent] = std::max(barrier.collected[barrier.agent], complete);
  completeBytes(*copy.cta, barrier, copy.bytes);
}

void CopyQueue::landAny() { land(machine->random.below(pending.size())); }

bool CopyQueue::landFor(Cta &cta, Mbarrier &barrier) {
  const uint64_t phase = barrier.phase;
  bool any = false;
  for (size_t i = 0;
       barrier.phase == phase && barrier.pending == 0 && barrier.bytes > 0 && i < pending.size();)
    if (pending[i].cta == &cta && pending[i].barrier == barrier.index)
      land(i), any = true, i = 0;
    else
      ++i;
  return any;
}

bool CopyQueue::pendingOn(const Cta &cta, const Mbarrier &barrier) const {
  for (const AsyncCopy &copy : pending)
    if (copy.cta == &cta && copy.barrier == barrier.index) return true;
  return false;
}

void CopyQueue::add(const AsyncCopy &copy) {
  pending.push_back(copy);
  ++machine->report.copies;
  if (machine->options.copies == CopyMode::Eager) land(pending.size() - 1);
}

static void issueCopy(Cta &cta, uint32_t address, uint32_t bytes, void *barrierPointer, const char *what,
                      AsyncCopy copy) {
  Machine &m = *machine;
  Mbarrier &barrier = findMbarrier(cta, barrierPointer, what);
  checkFenced(cta, barrier, what);
  copy.cta = &cta;
  copy.address = address;
  copy.bytes = bytes;
  copy.barrier = barrier.index;
  copy.epoch = ++barrier.issued;
  if (m.options.happensBefore) asyncWrite(cta, address, bytes, barrier.agent, copy.epoch, what);
  m.copies.add(copy);
}

static const TensorMap &checkedMap(void *p, const char *what) {
  auto *map = static_cast<const TensorMap *>(p);
  uint64_t magic;
  std::memcpy(&magic, p, sizeof magic);
  if (magic != TensorMap::signature) fatal("tensor-map", "{}: the operand is not a tensor map", what);
  if (machine->options.bounds) {
    const uint64_t bytes = (map->rows - 1) * map->rowBytes + map->columns * map->elementBytes;
    if (!machine->globals.find(map->base, bytes))
      fatal("bounds", "{}: the tensor map covers {} bytes, {}", what, bytes,
            machine->globals.describe(map->base, bytes));
  }
  return *map;
}

/// Checks the destination of a box and returns its shared address.
static uint32_t boxDestination(const TensorMap &map, void *shared, const char *what) {
  Cta &cta = *self().cta;
  const uint32_t address = cta.address(shared, map.boxBytes(), what),
                 align = map.swizzle ? map.swizzle * 8 : 128;
  if (address % align)
    fatal("misaligned", "{}: destination {} needs {}-byte alignment", what, placeOf(cta, address), align);
  return address;
}

} // namespace quern::sim

using namespace quern::sim;

void qsim_cp_bulk(void *shared, void *global, uint32_t bytes, void *barrier) {
  step();
  maybeYield();
  const char *what = "cp.async.bulk";
  Cta &cta = *self().cta;
  if (bytes == 0 || bytes % 16)
    fatal("misaligned", "{} of {} bytes: a positive multiple of 16 is needed", what, bytes);
  const uint32_t address = cta.address(shared, bytes, what);
  if (address % 16)
    fatal("misaligned", "{}: destination {} needs 16-byte alignment", what, placeOf(cta, address));
  if (reinterpret_cast<uintptr_t>(global) % 16)
    fatal("misaligned", "{}: the global address needs 16-byte alignment, {}", what,
          machine->globals.describe(global, bytes));
  if (machine->options.bounds && !machine->globals.find(global, bytes))
    fatal("bounds", "{} of {} bytes out of bounds: {}", what, bytes,
          machine->globals.describe(global, bytes));
  issueCopy(cta, address, bytes, barrier, what, {.source = static_cast<const char *>(global)});
}

void qsim_tma_load2d(void *shared, void *p, int32_t column, int32_t row, void *barrier) {
  step();
  maybeYield();
  const char *what = "cp.async.bulk.tensor";
  const TensorMap &map = checkedMap(p, what);
  const uint32_t address = boxDestination(map, shared, what);
  issueCopy(*self().cta, address, map.boxBytes(), barrier, what, {.map = &map, .column = column, .row = row});
}

void qsim_tma_load2d_multicast(void *shared, void *p, int32_t column, int32_t row, void *barrier,
                               uint16_t mask) {
  step();
  maybeYield();
  const char *what = "cp.async.bulk.tensor.multicast";
  const TensorMap &map = checkedMap(p, what);
  const uint32_t address = boxDestination(map, shared, what);
  const uint32_t barrierAddress = self().cta->address(barrier, 8, what);
  if (!mask || mask >> machine->launch->cluster)
    fatal("cluster", "{}: mask 0x{:x} in a cluster of {}", what, mask, machine->launch->cluster);
  for (uint32_t rank = 0; rank < machine->launch->cluster; ++rank) {
    if (!(mask >> rank & 1)) continue;
    Cta &cta = remoteCta(rank, what);
    issueCopy(cta, address, map.boxBytes(), cta.window + barrierAddress, what,
              {.map = &map, .column = column, .row = row});
  }
}

void qsim_tma_prefetch(void *map) {
  step();
  checkedMap(map, "prefetch.tensormap");
}
