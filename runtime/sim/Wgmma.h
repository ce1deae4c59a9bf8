// wgmma.mma_async of one warpgroup: operations in flight, their operands and results.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace quern::sim {

struct Cta;

constexpr unsigned maxN = 256;

/// One m64nNk16 operation.
struct WgmmaOp {
  uint32_t serial = 0, group = 0, n = 0;
  uint64_t descriptor = 0;
  std::vector<uint16_t> b;         // [n][16], as read at issue
  std::unique_ptr<float[]> result; // [64][n]; gone when the next operation took it as its accumulator
};

/// What a thread brings to the rendezvous of its warpgroup, and what the fence checks remember.
struct WgmmaThread {
  float *acc = nullptr;
  const uint32_t *a = nullptr;
  uint64_t descriptor = 0;
  uint32_t n = 0, isF16 = 0;
  uint32_t commits = 0;
  uint64_t history = 0; // hash of the wgmma primitives that it has executed
  bool fenced = false;
  std::vector<uint32_t> fencedA; // values of A registers that recent fences covered
  size_t fencedNext = 0;
  std::vector<uint32_t> known; // accumulators as the last fence or wait left them
};

struct Warpgroup {
  unsigned arrived = 0;
  uint32_t serial = 0;
  uint32_t retired[4] = {};                          // commit groups that each warp has waited for
  std::vector<std::unique_ptr<WgmmaOp>> ops;         // oldest first
  std::vector<std::unique_ptr<float[]>> freeResults; // [64][256] each
  void reset();
};

/// C[64][n] += A[64][16] * B, both already fp32; B is [16][maxN].
void multiplyAccumulate(const float (*a)[16], const float (*b)[maxN], float *c, uint32_t n);
/// bf16 or f16 to fp32.
void widen(const uint16_t *from, float *to, uint32_t count, bool isF16);

} // namespace quern::sim
