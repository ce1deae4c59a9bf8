// A small warp-specialised matmul for the simulator: a producer warpgroup copies B tiles through a ring of
// stages, a consumer warpgroup multiplies. One hazard can be planted.
#pragma once
#include "sim_support.h"
#include <bit>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

namespace sim_tests {

enum class Plant {
  None,
  NoFullWait,        // consumer does not wait for the copy
  WrongFullParity,   // consumer waits for the wrong phase
  WrongEmptyParity,  // producer waits for the wrong phase
  FewBytes,          // expect_tx announces too few bytes
  ManyBytes,         // expect_tx announces too many bytes
  EarlyRelease,      // stage released before wgmma.wait
  ReleaseOnce,       // one warp releases for its warpgroup
  NoInitFence,       // mbarrier init not fenced for the async proxy
  NoInitSync,        // no barrier after the init
  NoWgmmaFence,      // no wgmma.fence at all
  LateA,             // A register written after its fence
  LateAccumulator,   // accumulators written after their fence
  NoWgmmaWait,       // accumulators stored while in flight
  NoCommit,          // groups never committed
  TwoUses,           // an accumulator in flight used twice
  StoreToB,          // the consumer overwrites B while a wgmma reads it
  OneWarpFewer,      // one warp executes another sequence
  OneCopyMore,       // a last copy that nobody waits for
  DoubleArrive,      // one arrival too many
  OverwriteMbarrier, // a plain store into an mbarrier
  NoEmptyWait,       // producer does not wait for the release
  BadDescriptor,     // start address off the swizzle pattern
  DescriptorOutside, // descriptor beyond shared memory
};

constexpr uint32_t maxTokens = 256, gemmSteps = 5, gemmStages = 2, gemmK = gemmSteps * 64;

struct alignas(128) Gemm {
  char map[128];
  uint16_t a[64][gemmK], b[maxTokens][gemmK];
  float out[maxTokens][64];
  Plant plant;
  uint32_t n, isF16;
};

/// Shared memory: stages of n x 128 bytes at 0, mbarriers behind them.
inline uint64_t gemmSmem(const Gemm &g) { return gemmStages * g.n * 128 + 64; }
/// Descriptor of a K-major B tile with 128-byte swizzle at a shared address.
inline uint64_t descriptor(const void *p) {
  return (reinterpret_cast<uint64_t>(p) & 0x3ffff) >> 4 | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
/// The four A registers of a thread for the k16 slice that starts at column k: PTX ISA 9.7.15.5.1.
inline void loadA(Gemm &g, uint32_t t, uint32_t k, uint32_t *a) {
  const uint32_t row = t / 32 * 16 + t % 32 / 4, column = k + t % 4 * 2;
  for (uint32_t i = 0; i < 4; ++i)
    a[i] = loadGlobal(reinterpret_cast<uint32_t *>(&g.a[row + i % 2 * 8][column + i / 2 * 8]));
}

inline void gemmProducer(Gemm &g, char *full, char *empty) {
  if (qsim_tid_x() != 0) return;
  const uint32_t bytes = g.n * 128;
  for (uint32_t k = 0; k < gemmSteps + (g.plant == Plant::OneCopyMore); ++k) {
    const uint32_t s = k % gemmStages, parity = k / gemmStages & 1;
    if (g.plant != Plant::NoEmptyWait)
      qsim_mbarrier_wait(empty + 8 * s, parity ^ (g.plant != Plant::WrongEmptyParity));
    qsim_mbarrier_expect_tx(full + 8 * s, g.plant == Plant::FewBytes    ? bytes - 16
                                          : g.plant == Plant::ManyBytes ? bytes + 16
                                                                        : bytes);
    if (g.plant == Plant::DoubleArrive && k == 0) qsim_mbarrier_arrive(full + 8 * s);
    qsim_tma_load2d(smem(s * bytes), g.map, int32_t(k % gemmSteps * 64), 0, full + 8 * s);
  }
}

inline void gemmConsumer(Gemm &g, char *full, char *empty) {
  const uint32_t t = qsim_tid_x() - 128, nacc = g.n / 2;
  float acc[128] = {}, other[128];
  uint32_t a[4];
  auto fence = [&] {
    if (g.plant != Plant::NoWgmmaFence) qsim_wgmma_fence(acc, nacc, a, 4);
  };
  for (uint32_t k = 0; k < gemmSteps; ++k) {
    const uint32_t s = k % gemmStages, parity = k / gemmStages & 1;
    if (g.plant != Plant::NoFullWait)
      qsim_mbarrier_wait(full + 8 * s, parity ^ (g.plant == Plant::WrongFullParity));
    char *stage = smem(s * g.n * 128);
    for (uint32_t slice = 0; slice < 4; ++slice) {
      loadA(g, t, k * 64 + slice * 16, a);
      uint32_t late = 0;
      if (g.plant == Plant::LateA && t == 5) late = std::exchange(a[1], 0x7777);
      fence();
      if (late) a[1] = late;
      if (g.plant == Plant::LateAccumulator && k + slice == 0) acc[3] = 1;
      uint64_t desc = descriptor(stage + slice * 32);
      if (g.plant == Plant::BadDescriptor) desc += 8; // 128 bytes
      if (g.plant == Plant::DescriptorOutside) desc += gemmStages * g.n * 128 / 16;
      if (g.plant == Plant::OneWarpFewer && t / 32 == 2 && k == 1 && slice == 0) qsim_wgmma_commit();
      if (g.plant == Plant::TwoUses && k == 0 && slice == 1) std::memcpy(other, acc, sizeof other);
      qsim_wgmma(g.isF16, g.n, acc, a, desc);
      if (g.plant == Plant::TwoUses && k == 0 && slice == 1) qsim_wgmma(g.isF16, g.n, other, a, desc);
      if (g.plant != Plant::NoCommit) qsim_wgmma_commit();
    }
    auto release = [&] {
      if (g.plant == Plant::ReleaseOnce ? t == 0 : t % 32 == 0) qsim_mbarrier_arrive(empty + 8 * s);
    };
    if (g.plant == Plant::StoreToB) storeShared(reinterpret_cast<uint16_t *>(stage), uint16_t(0x1111));
    if (g.plant == Plant::EarlyRelease) release();
    if (g.plant != Plant::NoWgmmaWait) qsim_wgmma_wait(0, acc, nacc);
    if (g.plant != Plant::EarlyRelease) release();
  }
  const uint32_t row = t / 32 * 16 + t % 32 / 4;
  for (uint32_t i = 0; i < nacc; ++i) {
    qsim_store_f32(acc[i]);
    storeGlobal(&g.out[i / 4 * 8 + t % 4 * 2 + i % 2][row + i / 2 % 2 * 8], acc[i]);
  }
}

inline void gemmKernel(Gemm &g) {
  char *full = smem(gemmStages * g.n * 128), *empty = full + 8 * gemmStages;
  if (qsim_tid_x() == 0) {
    for (uint32_t s = 0; s < gemmStages; ++s) {
      qsim_mbarrier_init(full + 8 * s, 1);
      qsim_mbarrier_init(empty + 8 * s, g.plant == Plant::ReleaseOnce ? 1 : 4);
    }
    if (g.plant != Plant::NoInitFence) qsim_fence_mbarrier_init();
    if (g.plant == Plant::OverwriteMbarrier) storeShared(reinterpret_cast<uint32_t *>(full), 0u);
  }
  if (g.plant != Plant::NoInitSync) qsim_syncthreads();
  if (qsim_tid_x() < 128)
    gemmProducer(g, full, empty);
  else
    gemmConsumer(g, full, empty);
}

/// Small integers, so that every sum is exact; `bits` turns one into bf16 or f16.
inline void fillGemm(Gemm &g, uint32_t n, bool isF16, uint64_t seed = 7) {
  std::mt19937_64 random(seed);
  auto bits = [&](int v) {
    return uint16_t(isF16 ? std::bit_cast<uint16_t>(_Float16(v)) : std::bit_cast<uint32_t>(float(v)) >> 16);
  };
  for (auto &row : g.a)
    for (uint16_t &v : row) v = bits(int(random() % 9) - 4);
  for (auto &row : g.b)
    for (uint16_t &v : row) v = bits(int(random() % 9) - 4);
  g.plant = Plant::None;
  g.n = n;
  g.isF16 = isF16;
  ASSERT_EQ(encodeTensorMap(g.map, 2, g.b, gemmK, n, gemmK * 2, 64, n, true), "");
}

inline void checkGemm(Gemm &g) {
  auto value = [&](uint16_t v) {
    return g.isF16 ? float(std::bit_cast<_Float16>(v)) : std::bit_cast<float>(uint32_t(v) << 16);
  };
  for (uint32_t n = 0; n < g.n; ++n)
    for (uint32_t m = 0; m < 64; ++m) {
      float sum = 0;
      for (uint32_t k = 0; k < gemmK; ++k) sum += value(g.a[m][k]) * value(g.b[n][k]);
      ASSERT_EQ(g.out[n][m], sum) << "n=" << n << " m=" << m;
      g.out[n][m] = NAN;
    }
}

inline KernelRun<Gemm> gemmRun(Gemm &g) {
  KernelRun<Gemm> run(g, gemmKernel, 256, gemmSmem(g));
  run.launch.roles = {{"producer", 0, 4}, {"consumer", 4, 8}};
  return run;
}

} // namespace sim_tests
