// The simulator's launches: grids, addresses, schedulers, the table of symbols.
#include "codegen/gpu/Primitives.h"
#include "sim_support.h"
#include <algorithm>
#include <set>

namespace sim_tests {
namespace {

struct Grid {
  uint32_t tid[4 * 256], grid, block, lane[256], rank;
};

TEST(SimLaunch, RunsEveryThreadOfEveryBlock) {
  Grid data{};
  KernelRun<Grid> run(
      data,
      [](Grid &d) {
        const uint32_t i = qsim_ctaid_x() * qsim_ntid_x() + qsim_tid_x();
        storeGlobal(&d.tid[i], i + 1);
        if (qsim_ctaid_x() == 0) storeGlobal(&d.lane[qsim_tid_x()], qsim_laneid());
        if (i == 0) {
          storeGlobal(&d.grid, qsim_nctaid_x());
          storeGlobal(&d.block, qsim_ntid_x());
          storeGlobal(&d.rank, qsim_cluster_ctarank());
        }
      },
      256, 0);
  run.launch.grid = 4;
  expectClean(run, [&] {
    for (uint32_t i = 0; i < 4 * 256; ++i) ASSERT_EQ(data.tid[i], i + 1);
    for (uint32_t i = 0; i < 256; ++i) ASSERT_EQ(data.lane[i], i % 32);
    EXPECT_EQ(data.grid, 4u);
    EXPECT_EQ(data.block, 256u);
    EXPECT_EQ(data.rank, 0u);
    data = {};
  });
}

struct Addresses {
  uint64_t base, second;
};

TEST(SimLaunch, SharedAddressesAreTheLowHalfOfHostPointers) {
  Addresses data{};
  KernelRun<Addresses> run(data, [](Addresses &d) {
    if (qsim_tid_x() == 0) storeGlobal(&d.base, reinterpret_cast<uint64_t>(qsim_smem_base()));
    if (qsim_tid_x() == 127) storeGlobal(&d.second, reinterpret_cast<uint64_t>(qsim_smem_base()));
  });
  std::set<uint32_t> bases;
  for (uint64_t seed = 1; seed <= 32; ++seed) {
    ASSERT_TRUE(run(seed).ok());
    EXPECT_EQ(data.base, data.second);
    EXPECT_LT(uint32_t(data.base), 0x2000u);
    EXPECT_EQ(data.base % 1024, 0u);
    bases.insert(uint32_t(data.base));
  }
  EXPECT_GT(bases.size(), 1u) << "the base is randomised by the seed";
}

TEST(SimLaunch, EveryPrimitiveHasASymbol) {
  std::set<std::string> names;
  for (const Symbol &symbol : symbols()) {
    EXPECT_NE(symbol.address, nullptr);
    EXPECT_TRUE(names.insert(symbol.name).second) << symbol.name;
  }
  for (const quern::gpu::Primitive &primitive : quern::gpu::primitives) {
    std::string name = "qsim_" + std::string(primitive.name);
    std::replace(name.begin(), name.end(), '.', '_');
    EXPECT_TRUE(names.count(name)) << name;
  }
}

TEST(SimLaunch, IllegalLaunchesSayWhy) {
  int data = 0;
  KernelRun<int> run(data, [](int &) {});
  auto reason = [&](auto change) {
    KernelRun<int> copy = run;
    change(copy.launch);
    return copy().str();
  };
  EXPECT_THAT(reason([](Launch &l) { l.block = 48; }),
              HasSubstr("48 threads per block: multiples of 32 up to 1024"));
  EXPECT_THAT(reason([](Launch &l) { l.grid = 3, l.cluster = 2; }),
              HasSubstr("a grid of 3 is no multiple of the cluster of 2"));
  EXPECT_THAT(reason([](Launch &l) { l.cluster = 9; }), HasSubstr("a cluster of 9 CTAs: 1 to 8 are legal"));
  EXPECT_THAT(reason([](Launch &l) { l.smemBytes = 300000; }),
              HasSubstr("300000 bytes of dynamic shared memory: at most 232448"));
  EXPECT_THAT(reason([](Launch &l) { l.entry = nullptr; }), HasSubstr("there is no entry"));
  EXPECT_THAT(reason([](Launch &l) { l.block = 512, l.registers = 136; }),
              HasSubstr("136 registers for each of 512 threads"));
}

TEST(SimLaunch, SameSeedSameRun) {
  uint32_t data = 0;
  KernelRun<uint32_t> run(data, [](uint32_t &d) {
    qsim_global(&d, 4, 1);
    d = d * 31 + qsim_tid_x(); // depends on the order of the threads
    qsim_syncthreads();
  });
  auto result = [&](uint64_t seed) { return data = 0, (void)run(seed), data; };
  EXPECT_EQ(result(5), result(5));
  EXPECT_NE(result(5), result(6));
}

TEST(SimLaunch, BlocksRunInAnyOrder) {
  struct Order {
    uint32_t count, first;
  } data{};
  KernelRun<Order> run(
      data,
      [](Order &d) {
        if (qsim_tid_x() == 0 && d.count++ == 0) d.first = qsim_ctaid_x();
      },
      32, 0);
  run.launch.grid = 16;
  std::set<uint32_t> first;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    data = {};
    ASSERT_EQ(run(seed).ctas, 16u);
    ASSERT_EQ(data.count, 16u);
    first.insert(data.first);
  }
  EXPECT_GT(first.size(), 4u);
  run.options.scheduler = Scheduler::Fifo;
  data = {};
  run();
  EXPECT_EQ(data.first, 0u);
}

TEST(SimLaunch, EndlessLoopsEnd) {
  int data = 0;
  KernelRun<int> run(
      data,
      [](int &d) {
        for (;;) loadGlobal(&d);
      },
      32);
  run.options.secondsLimit = 0.05;
  EXPECT_THAT(run().str(), HasSubstr("[timeout] CTA 0, warp"));
}

} // namespace
} // namespace sim_tests
