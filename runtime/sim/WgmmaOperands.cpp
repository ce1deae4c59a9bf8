// The shared-memory descriptor of B (K-major).
#include "runtime/sim/WgmmaOperands.h"
#include "runtime/sim/Machine.h"
#include <cstring>

namespace quern::sim {

BOperand::BOperand(uint64_t d) {
  static constexpr uint32_t swizzles[4] = {0, 128, 64, 32};
  start = uint32_t(d & 0x3fff) << 4;
  leading = uint32_t(d >> 16 & 0x3fff) << 4;
  stride = uint32_t(d >> 32 & 0x3fff) << 4;
  swizzle = swizzles[d >> 62];
  if (d & 0x3ff1c000c000c000ull) fatal("wgmma", "descriptor 0x{:016x}: reserved bits are set", d);
  if (d >> 49 & 7) fatal("wgmma", "descriptor 0x{:016x}: a base offset is not modelled", d);
  // The pattern repeats every 8 rows and must start at such a multiple; bits 4..6 select the k16 slice.
  if (swizzle && start & (swizzle * 8 - 1) & ~(swizzle - 1))
    fatal("wgmma", "descriptor 0x{:016x}: start 0x{:x} is not aligned to the {}-byte pattern of its swizzle",
          d, start, swizzle * 8);
}

uint32_t BOperand::address(uint32_t n, uint32_t half) const {
  if (!swizzle) return start + n / 8 * stride + n % 8 * 16 + half * leading;
  return swizzled(start + n / 8 * stride + n % 8 * swizzle + half * 16, swizzle);
}

void readFragment(const float *c, uint32_t n, uint32_t t, float *acc) {
  const float *rows[2] = {c + fragmentRow(t, false) * n + t % 4 * 2,
                          c + fragmentRow(t, true) * n + t % 4 * 2};
  for (uint32_t i = 0; i < n / 2; i += 2) {
    const float *from = rows[i / 2 % 2] + i / 4 * 8;
    for (uint32_t e = 0; e < 2; ++e)
      acc[i + e] = from[e] == from[e] ? from[e] : std::bit_cast<float>(0x7fffffffu);
  }
}

void writeFragment(float *c, uint32_t n, uint32_t t, const float *acc) {
  float *rows[2] = {c + fragmentRow(t, false) * n + t % 4 * 2, c + fragmentRow(t, true) * n + t % 4 * 2};
  for (uint32_t i = 0; i < n / 2; i += 2) {
    float *to = rows[i / 2 % 2] + i / 4 * 8;
    for (uint32_t e = 0; e < 2; ++e) to[e] = acc[i + e];
  }
}

void readB(const Cta &cta, uint64_t descriptor, uint32_t n, uint16_t *b) {
  const BOperand operand(descriptor);
  for (uint32_t i = 0; i < n; ++i)
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t address = operand.address(i, half);
      if (!cta.holds(address, 16))
        fatal(
            "bounds",
            "wgmma: descriptor 0x{:016x} reaches shared address smem+0x{:x} for row n={}, outside the CTA's "
            "{} bytes",
            descriptor, int64_t(address) - cta.base, i, cta.bytes);
      std::memcpy(b + i * 16 + half * 8, cta.window + address, 16);
    }
}

} // namespace quern::sim
