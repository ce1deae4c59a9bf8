// A routing in device memory: what Routing holds, with 32-bit indices (fewer than 2^31 rows).
#pragma once
#include <cstdint>

namespace quern {

/// Arrays on a device; owns nothing. Contents as in Routing: rows are the (token, choice) pairs sorted by
/// expert.
struct DeviceRouting {
  int32_t *offsets = nullptr;  // [E + 1]
  int32_t *rowToken = nullptr; // [R], -1 beyond the live rows
  float *rowWeight = nullptr;  // [R], 0 beyond the live rows
  int32_t *inverse = nullptr;  // [T * topK], -1 for a skipped pair
};

} // namespace quern
