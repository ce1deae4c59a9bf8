// Global memory: bounds, alignment, read-only buffers, atomics.
#include "sim_support.h"
#include <bit>

namespace sim_tests {
namespace {

struct Buffers {
  alignas(16) uint32_t a[16], gap[16], b[64];
  void *p;
  uint32_t bytes, store;
};

TEST(SimGlobal, EveryAccessIsChecked) {
  Buffers d{};
  KernelRun<Buffers> run(
      d,
      [](Buffers &d) {
        if (qsim_tid_x() == 9) qsim_global(d.p, d.bytes, d.store);
      },
      32);
  run.launch.buffers = {{"b", d.b, sizeof d.b, true}, {"a", d.a, sizeof d.a, false}};
  auto access = [&](void *p, uint32_t bytes, uint32_t store) {
    d.p = p, d.bytes = bytes, d.store = store;
    return run().str();
  };
  EXPECT_THAT(access(d.a, 16, 0), HasSubstr("0 issues"));
  EXPECT_THAT(access(d.a + 15, 4, 0), HasSubstr("0 issues"));
  EXPECT_THAT(access(d.b + 62, 8, 1), HasSubstr("0 issues"));
  EXPECT_THAT(access(reinterpret_cast<char *>(d.a) + 64, 4, 0),
              HasSubstr("[bounds] CTA 0, warp 0 lane 9: global load of 4 bytes out of bounds: at 'a'+64, "
                        "ends 4 bytes past the end of the buffer (64 bytes)"));
  EXPECT_THAT(access(d.a + 14, 16, 0), HasSubstr("at 'a'+56, ends 8 bytes past the end"));
  EXPECT_THAT(
      access(reinterpret_cast<char *>(d.b) - 8, 4, 1),
      HasSubstr("global store of 4 bytes out of bounds: begins 8 bytes before buffer 'b' (256 bytes)"));
  EXPECT_THAT(access(reinterpret_cast<char *>(d.b) + 2, 4, 1),
              HasSubstr("[misaligned] CTA 0, warp 0 lane 9: global store of 4 bytes at b+2"));
  EXPECT_THAT(access(d.a, 4, 1),
              HasSubstr("[read-only] CTA 0, warp 0 lane 9: global store of 4 bytes at a+0"));
  run.options.bounds = false;
  EXPECT_THAT(access(reinterpret_cast<char *>(d.a) + 64, 4, 0), HasSubstr("0 issues"));
}

TEST(SimGlobal, ManyAndOverlappingBuffers) {
  Buffers d{};
  KernelRun<Buffers> run(
      d,
      [](Buffers &d) {
        for (uint32_t i = 0; i < 64; ++i) qsim_global(&d.b[i], 4, i % 2);
      },
      32);
  run.launch.buffers.clear();
  for (int i = 0; i < 64; ++i)
    run.launch.buffers.push_back({"b" + std::to_string(i), &d.b[i], 4, i % 2 == 1});
  EXPECT_TRUE(run().ok()) << run().str();
  run.launch.buffers.resize(63);
  EXPECT_THAT(run().str(), HasSubstr("at 'b62'+4, ends 4 bytes past the end"));
  run.launch.buffers.push_back({"all", d.b, sizeof d.b, true}); // found behind a nearer, smaller one
  EXPECT_TRUE(run().ok()) << run().str();
}

TEST(SimGlobal, Atomics) {
  Buffers d{};
  KernelRun<Buffers> run(
      d,
      [](Buffers &d) {
        qsim_atomic(&d.b[3], 4, 1);
        d.b[3] += qsim_tid_x();
        qsim_grid_launch();
        qsim_grid_wait();
      },
      64);
  run.launch.grid = 3;
  expectClean(run, [&] {
    ASSERT_EQ(d.b[3], 3u * 63 * 64 / 2);
    d.b[3] = 0;
  });
  run.launch.buffers[0].writable = false;
  expectIssue(run, HasSubstr("[read-only]"));
}

TEST(SimGlobal, RepeatedIssuesAreCountedNotPrinted) {
  Buffers d{};
  KernelRun<Buffers> run(d, [](Buffers &) { qsim_store_f32(std::bit_cast<float>(0x7FD00123u)); }, 64);
  run.launch.roles = {{"one", 0, 1}, {"two", 1, 2}};
  Report report = run();
  EXPECT_EQ(report.issueCount, 64u);
  EXPECT_EQ(report.issues.size(), 2u) << "one for each role";
  EXPECT_THAT(report.str(), HasSubstr("62 more, most of them repetitions"));
}

} // namespace
} // namespace sim_tests
