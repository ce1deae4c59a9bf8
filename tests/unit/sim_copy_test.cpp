// Async copies: what lands where, and what is illegal.
#include "sim_support.h"
#include <numeric>

namespace sim_tests {
namespace {

/// One thread makes an mbarrier at smem+0 that expects `bytes`, runs `copy`, waits, and reads shared memory
/// back.
struct alignas(128) Copy {
  char map[128];
  uint16_t source[40][64];
  uint8_t seen[16384];
  void (*copy)(Copy &, void *barrier);
  uint32_t bytes, columns, offset;
};
constexpr uint32_t landing = 1024;

void copyKernel(Copy &c) {
  if (qsim_tid_x() != 0) return;
  void *barrier = smem(0);
  qsim_mbarrier_init(barrier, 1);
  qsim_fence_mbarrier_init();
  qsim_mbarrier_expect_tx(barrier, c.bytes);
  c.copy(c, barrier);
  qsim_mbarrier_wait(barrier, 0);
  for (uint32_t i = 0; i < c.bytes; i += 16) {
    qsim_shared(smem(landing + i), 16, 0);
    qsim_global(c.seen + i, 16, 1);
    std::memcpy(c.seen + i, smem(landing + i), 16);
  }
}

KernelRun<Copy> copyRun(Copy &c, uint32_t bytes, void (*copy)(Copy &, void *)) {
  std::iota(&c.source[0][0], &c.source[0][0] + 40 * 64, uint16_t(1));
  c.copy = copy;
  c.bytes = bytes;
  return KernelRun<Copy>(c, copyKernel, 32, 1024 + 16384);
}

TEST(SimCopy, LinearBulk) {
  auto c = std::make_unique<Copy>();
  auto run = copyRun(*c, 48, [](Copy &c, void *barrier) {
    qsim_cp_bulk(smem(landing), &c.source[3][8], 32, barrier);
    qsim_cp_bulk(smem(landing + 32), &c.source[1][0], 16, barrier);
  });
  expectClean(run, [&] {
    EXPECT_EQ(std::memcmp(c->seen, &c->source[3][8], 32), 0);
    EXPECT_EQ(std::memcmp(c->seen + 32, &c->source[1][0], 16), 0);
    std::memset(c->seen, 0, sizeof c->seen);
  });
}

// PTX ISA 5.5.7.1: within 8 rows of 128 bytes, the 16-byte chunk c of row r lies at chunk c ^ r. Elements
// outside the tensor are zero.
TEST(SimCopy, SwizzledBoxWithZerosOutside) {
  auto c = std::make_unique<Copy>();
  auto run = copyRun(*c, 16 * 128,
                     [](Copy &c, void *barrier) { qsim_tma_load2d(smem(landing), c.map, 8, 30, barrier); });
  ASSERT_EQ(encodeTensorMap(c->map, 2, c->source, 60, 40, 128, 64, 16, true), "");
  expectClean(run, [&] {
    for (uint32_t row = 0; row < 16; ++row)
      for (uint32_t column = 0; column < 64; ++column) {
        const uint32_t at = row * 128 + ((column / 8) ^ (row % 8)) * 16 + column % 8 * 2;
        uint16_t value;
        std::memcpy(&value, c->seen + at, 2);
        const bool inside = row + 30 < 40 && column + 8 < 60;
        ASSERT_EQ(value, inside ? c->source[row + 30][column + 8] : 0) << row << " " << column;
      }
    std::memset(c->seen, 0xff, sizeof c->seen);
  });
}

TEST(SimCopy, PlainBoxBeforeTheFirstRow) {
  auto c = std::make_unique<Copy>();
  auto run = copyRun(*c, 4 * 32, [](Copy &c, void *barrier) {
    qsim_tma_prefetch(c.map);
    qsim_tma_load2d(smem(landing), c.map, -8, -1, barrier);
  });
  ASSERT_EQ(encodeTensorMap(c->map, 2, c->source, 64, 40, 128, 16, 4, false), "");
  expectClean(run, [&] {
    for (int row = 0; row < 4; ++row)
      for (int column = 0; column < 16; ++column) {
        uint16_t value;
        std::memcpy(&value, c->seen + row * 32 + column * 2, 2);
        ASSERT_EQ(value, row >= 1 && column >= 8 ? c->source[row - 1][column - 8] : 0);
      }
  });
}

TEST(SimCopy, TensorMapArgumentsAreChecked) {
  alignas(64) char map[128];
  alignas(16) char base[64];
  auto encode = [&](int element, const void *p, uint64_t columns, uint64_t rows, uint64_t stride, uint32_t bc,
                    uint32_t br, bool swizzle) {
    return encodeTensorMap(map, element, p, columns, rows, stride, bc, br, swizzle);
  };
  EXPECT_EQ(encode(2, base, 64, 4, 128, 64, 4, true), "");
  EXPECT_EQ(encode(3, base, 64, 4, 128, 64, 4, true), "element size 3 is not 1, 2, 4 or 8 bytes");
  EXPECT_EQ(encode(2, base + 8, 64, 4, 128, 64, 4, true), "the base address is not 16-byte aligned");
  EXPECT_EQ(encode(2, base, 64, 0, 128, 64, 4, true), "0 x 64 elements: every dimension must be 1 to 2^32");
  EXPECT_EQ(encode(2, base, 64, 4, 136, 64, 4, true),
            "row stride 136 is not a multiple of 16 bytes below 2^40");
  EXPECT_EQ(encode(2, base, 64, 4, 112, 64, 4, true), "row stride 112 is less than 64 columns of 2 bytes");
  EXPECT_EQ(encode(2, base, 64, 4, 128, 64, 257, true), "box 257 x 64: every dimension must be 1 to 256");
  EXPECT_EQ(encode(2, base, 64, 4, 128, 12, 4, true), "a box row of 24 bytes is not a multiple of 16");
  EXPECT_EQ(encode(2, base, 64, 4, 128, 72, 4, true),
            "a box row of 144 bytes is wider than the 128-byte swizzle");
}

struct IllegalCopy {
  void (*copy)(Copy &, void *);
  const char *text;
};

class SimIllegalCopy : public testing::TestWithParam<IllegalCopy> {};

TEST_P(SimIllegalCopy, IsReported) {
  auto c = std::make_unique<Copy>();
  auto run = copyRun(*c, 2048, GetParam().copy);
  ASSERT_EQ(encodeTensorMap(c->map, 2, c->source, 64, 40, 128, 64, 16, true), "");
  expectIssue(run, HasSubstr(GetParam().text));
}

INSTANTIATE_TEST_SUITE_P(
    Planted, SimIllegalCopy,
    testing::Values(
        IllegalCopy{[](Copy &c, void *b) { qsim_cp_bulk(smem(landing), c.source, 24, b); },
                    "cp.async.bulk of 24 bytes: a positive multiple of 16"},
        IllegalCopy{[](Copy &c, void *b) { qsim_cp_bulk(smem(landing + 8), c.source, 16, b); },
                    "destination smem+0x408 needs 16-byte alignment"},
        IllegalCopy{[](Copy &c, void *b) { qsim_cp_bulk(smem(landing), &c.source[0][1], 16, b); },
                    "the global address needs 16-byte alignment, at data+130"},
        IllegalCopy{[](Copy &c, void *b) {
                      qsim_cp_bulk(smem(landing), reinterpret_cast<char *>(&c + 1) - 16, 32, b);
                    },
                    "ends 16 bytes past the end of the buffer"},
        IllegalCopy{[](Copy &c, void *b) { qsim_cp_bulk(smem(landing + 16384 - 16), c.source, 32, b); },
                    "[bounds] CTA 0, warp 0 lane 0: cp.async.bulk: 32 bytes at smem+0x43f0 are outside the "
                    "CTA's 17408 bytes"},
        IllegalCopy{[](Copy &c, void *) { qsim_cp_bulk(smem(landing), c.source, 16, smem(16)); },
                    "cp.async.bulk: there is no initialised mbarrier at smem+0x10"},
        IllegalCopy{[](Copy &c, void *b) { qsim_tma_load2d(smem(landing + 128), c.map, 0, 0, b); },
                    "destination smem+0x480 needs 1024-byte alignment"},
        IllegalCopy{[](Copy &c, void *b) { qsim_tma_load2d(smem(landing), c.source, 0, 0, b); },
                    "the operand is not a tensor map"},
        IllegalCopy{[](Copy &c, void *) { qsim_tma_prefetch(c.source); },
                    "prefetch.tensormap: the operand is not a tensor map"},
        IllegalCopy{[](Copy &c, void *b) {
                      encodeTensorMap(c.map, 2, c.source, 64, 1000, 128, 64, 16, true);
                      qsim_tma_load2d(smem(landing), c.map, 0, 0, b);
                    },
                    "the tensor map covers 128000 bytes, at 'data'+128, ends"},
        IllegalCopy{[](Copy &c, void *b) {
                      qsim_cp_bulk(smem(landing), c.source, 1024, b);
                      qsim_cp_bulk(smem(landing + 512), c.source, 1024, b);
                    },
                    "[race] CTA 0, warp 0 lane 0: cp.async.bulk overwrites smem+0x600, where an earlier "
                    "async copy may still write"},
        IllegalCopy{[](Copy &c, void *b) {
                      storeShared(smem<uint32_t>(landing + 4), 1u);
                      qsim_cp_bulk(smem(landing), c.source, 2048, b);
                    },
                    "[proxy-fence] CTA 0, warp 0 lane 0: cp.async.bulk overwrites smem+0x404, which warp 0 "
                    "lane 0 stored"},
        IllegalCopy{[](Copy &c, void *b) {
                      qsim_cp_bulk(smem(landing), c.source, 2048, b);
                      loadShared(smem<uint32_t>(landing + 100));
                    },
                    "ld.shared at smem+0x464 is not ordered after the async copy into it"},
        IllegalCopy{[](Copy &c, void *b) {
                      qsim_cp_bulk(smem(landing), c.source, 2048, b);
                      storeShared(smem<uint32_t>(landing + 2044), 1u);
                    },
                    "st.shared at smem+0xbfc is not ordered after the async copy into it"},
        IllegalCopy{[](Copy &, void *) { qsim_mbarrier_init(smem(4), 1); },
                    "mbarrier.init at smem+0x4: 8-byte alignment"},
        IllegalCopy{[](Copy &, void *) { qsim_mbarrier_init(smem(8), 0); },
                    "mbarrier.init at smem+0x8: 0 arrivals"},
        IllegalCopy{[](Copy &, void *b) { qsim_mbarrier_init(b, 1); },
                    "mbarrier.init at smem+0x0: there is an mbarrier already"},
        IllegalCopy{[](Copy &, void *b) { qsim_mbarrier_wait(b, 2); },
                    "mbarrier.try_wait.parity 2 at smem+0x0"},
        IllegalCopy{[](Copy &, void *b) {
                      qsim_mbarrier_init(smem(8), 1);
                      qsim_mbarrier_expect_tx(smem(8), 1 << 20);
                    },
                    "the transaction count 1048576 leaves its range"},
        IllegalCopy{[](Copy &, void *) { qsim_setmaxnreg(25, 0); },
                    "setmaxnreg 25: multiples of 8 from 24 to 256"}));

TEST(SimCopy, OverwritingWhatAnotherThreadMayStillReadIsReported) {
  auto c = std::make_unique<Copy>();
  std::memset(c->source, 0, sizeof c->source);
  KernelRun<Copy> run(
      *c,
      [](Copy &c) {
        void *barrier = smem(0);
        if (qsim_tid_x() == 0) {
          qsim_mbarrier_init(barrier, 1);
          qsim_fence_mbarrier_init();
          qsim_mbarrier_expect_tx(barrier, 16);
          qsim_cp_bulk(smem(landing), c.source, 16, barrier);
        }
        qsim_syncthreads();
        auto load = [] {
          if (qsim_tid_x() == 40) loadShared(smem<uint32_t>(landing + 12));
        };
        qsim_mbarrier_wait(barrier, 0);
        if (c.bytes) load();
        qsim_syncthreads();
        if (!c.bytes) load();
        if (qsim_tid_x() == 0) {
          qsim_mbarrier_expect_tx(barrier, 16);
          qsim_cp_bulk(smem(landing), c.source, 16, barrier);
          qsim_mbarrier_wait(barrier, 1);
        }
      },
      64);
  c->bytes = 0;
  KernelRun<Copy> hazard = run;
  // Seen in either order: the load races with the copy, or the copy with the load.
  expectIssue(hazard, AllOf(HasSubstr("[race]"),
                            testing::AnyOf(
                                HasSubstr("overwrites smem+0x40c, which warp 1 lane 8 may still read"),
                                HasSubstr("ld.shared at smem+0x40c is not ordered after the async copy"))));
  c->bytes = 1;
  expectClean(run, [] {});
}

} // namespace
} // namespace sim_tests
