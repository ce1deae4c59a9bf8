// Addresses in a CTA's shared memory, static variables, special registers.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"

namespace quern::sim {

bool Cta::holds(uint64_t address, uint64_t size) const {
  return (address >= base && address + size <= uint64_t(base) + bytes) ||
         (address >= staticBase && address + size <= uint64_t(staticBase) + staticBytes);
}

uint32_t Cta::address(const void *p, uint64_t size, const char *what) {
  const uint64_t address = reinterpret_cast<uint64_t>(p) - reinterpret_cast<uint64_t>(window);
  if (!holds(address, size))
    fatal("bounds", "{}: {} bytes at smem+0x{:x} are outside the CTA's {} bytes of dynamic shared memory",
          what, size, int64_t(address) - base, bytes);
  return uint32_t(address);
}

} // namespace quern::sim

using namespace quern::sim;

uint32_t qsim_tid_x() { return self().tid; }
uint32_t qsim_ntid_x() { return machine->launch->block; }
uint32_t qsim_ctaid_x() { return self().cta->index; }
uint32_t qsim_nctaid_x() { return machine->launch->grid; }
uint32_t qsim_laneid() { return self().lane(); }
uint32_t qsim_cluster_ctarank() { return self().cta->rank; }
void *qsim_smem_base() { return self().cta->window + self().cta->base; }

void *qsim_smem_static(uint32_t id, uint32_t bytes, uint32_t align) {
  Cta &cta = *self().cta;
  auto [variable, isNew] = cta.statics.try_emplace(id);
  if (isNew) {
    align = std::max(align, 16u); // granules of the shadow
    const uint32_t offset = (cta.staticBytes + align - 1) / align * align, size = (bytes + 15) / 16 * 16;
    if (offset + size > maxStaticShared)
      fatal("bounds", "static shared variables take {} bytes: at most {} exist", offset + size,
            maxStaticShared);
    cta.shadow.grow(offset + size - cta.staticBytes);
    cta.staticBytes = offset + size;
    variable->second = {offset, bytes};
    poison(cta.window + staticBase + offset, size, machine->options.poison);
  } else if (variable->second.bytes != bytes) {
    fatal("bounds", "static shared variable {} has {} and {} bytes", id, variable->second.bytes, bytes);
  }
  return cta.window + staticBase + variable->second.offset;
}
