// What the kernels that decode share: scales and zero points of one expert, and nibbles in their order.
#pragma once
#include "kernels/device.cuh"

namespace quern_device {
namespace {

struct ScaleArray {
  const void *scales;
  const uint8 *zeros; // null: none
  int64 n, perRow;    // weight rows; blocks of one row, where rows are whole blocks
  int scaleType, blockShift;
  bool tiled; // [K/64][N] (runtime/packing/Layout.h), else in bitsandbytes' order
};

struct Scale {
  float scale, zero;
};

/// Of the `at`-th element of the array.
QUERN_DEVICE Scale scaleAt(const ScaleArray &s, int64 at) {
  return {s.scaleType == ScaleF32    ? static_cast<const float *>(s.scales)[at]
          : s.scaleType == ScaleBF16 ? fromBF16(static_cast<const uint16 *>(s.scales)[at])
                                     : fromE8M0(static_cast<const uint8 *>(s.scales)[at]),
          s.zeros ? float(s.zeros[at]) : 0};
}

/// Of a block in bitsandbytes' order.
QUERN_DEVICE Scale scaleOf(const ScaleArray &s, int64 block) {
  return scaleAt(s, s.tiled ? block % s.perRow * s.n + block / s.perRow : block);
}

QUERN_DEVICE uint8 decodeLowFirst(uint8 byte, int highFirst) {
  return highFirst ? uint8(byte >> 4 | byte << 4) : byte;
}

} // namespace
} // namespace quern_device
