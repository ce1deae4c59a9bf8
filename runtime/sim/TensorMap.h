// The tensor map that the simulator understands, in the 128 bytes of a CUtensorMap.
#pragma once
#include <cstdint>

namespace quern::sim {

struct alignas(64) TensorMap {
  static constexpr uint64_t signature = 0x534d5450414d4151ull;
  uint64_t magic;
  const char *base;
  uint64_t columns, rows, rowBytes;
  uint32_t boxColumns, boxRows, elementBytes;
  uint32_t swizzle; // bytes: 0 or 128
  uint32_t boxBytes() const { return boxColumns * boxRows * elementBytes; }
};
static_assert(sizeof(TensorMap) <= 128);

/// Address bits 4..6 are exchanged by bits 7..9 (of fewer bits for narrower swizzles; 0 means none).
inline uint32_t swizzled(uint32_t address, uint32_t swizzle) {
  return swizzle ? address ^ ((address >> 3) & (swizzle - 16)) : address;
}

} // namespace quern::sim
