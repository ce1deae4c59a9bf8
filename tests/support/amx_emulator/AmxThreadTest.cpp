// Threads (std::thread, OpenMP, oneTBB) keep their own tiles; the counters count every instruction once.
#include "AmxTestSupport.h"
#include <atomic>
#include <dlfcn.h>
#include <thread>
#ifdef QUERN_AMX_TEST_TBB
#include <tbb/parallel_for.h>
#endif

using namespace quern;
using namespace quern::amxtest;

namespace {

/// A thread's own work on its own tiles, with a shape of its own; true when all results are right.
bool workOnTiles(int id, int rounds) {
  const int rows = 1 + id % 16, colsb = 4 * (1 + id * 7 % 16);
  auto source = randomBytes(16 * 64, 100 + id);
  TileConfig config, read;
  config.all(rows, colsb).apply();
  _tile_loadd(2, source.data(), 64);
  bool good = true;
  for (int i = 0; i < rounds; ++i) {
    std::vector<uint8_t> got(16 * 64, 0x99);
    if (i % 8 == 0) std::this_thread::yield();
    _tile_stored(2, got.data(), 64);
    for (int r = 0; r < rows; ++r) good &= !std::memcmp(&got[r * 64], &source[r * 64], colsb);
  }
  _tile_storeconfig(read.bytes);
  good &= !std::memcmp(read.bytes, config.bytes, 64);
  _tile_release();
  return good;
}

TEST(AmxThreads, StdThreadsKeepTheirOwnTiles) {
  std::array<bool, 16> good = {};
  std::vector<std::thread> threads;
  for (int id = 0; id < 16; ++id) threads.emplace_back([&, id] { good[id] = workOnTiles(id, 200); });
  for (auto &t : threads) t.join();
  for (int id = 0; id < 16; ++id) EXPECT_TRUE(good[id]) << id;
}

TEST(AmxThreads, ANewThreadStartsUnconfigured) {
  TileConfig().all(16, 64).apply();
  TileConfig read;
  std::thread([&] { _tile_storeconfig(read.bytes); }).join();
  EXPECT_EQ(read.bytes[0], 0);
  _tile_release();
}

TEST(AmxThreads, OpenMPWorkers) {
  void *gomp = dlopen("libgomp.so.1", RTLD_NOW);
  if (!gomp) GTEST_SKIP() << "no libgomp here: " << dlerror();
  auto parallel =
      reinterpret_cast<void (*)(void (*)(void *), void *, unsigned, unsigned)>(dlsym(gomp, "GOMP_parallel"));
  ASSERT_NE(parallel, nullptr);
  static std::atomic<int> next, good;
  next = good = 0;
  parallel([](void *) { good += workOnTiles(next++, 200); }, nullptr, 4, 0);
  EXPECT_EQ(good.load(), 4);
}

TEST(AmxThreads, TbbWorkers) {
#ifdef QUERN_AMX_TEST_TBB
  std::atomic<int> good = 0;
  tbb::parallel_for(0, 64, [&](int id) { good += workOnTiles(id, 20); });
  EXPECT_EQ(good.load(), 64);
#else
  GTEST_SKIP() << "built without oneTBB";
#endif
}

TEST(AmxCounts, EveryInstructionIsCountedOnce) {
  QUERN_NEEDS_EMULATION();
  uint64_t before[amxKindCount];
  for (int k = 0; k < amxKindCount; ++k) before[k] = quern_amx_emulator_count(k);
  alignas(64) uint8_t memory[1024] = {};
  TileConfig config;
  auto times = [](int n, auto f) {
    while (n--) f();
  };
  config.all(16, 64);
  times(2, [&] { config.apply(); });
  times(3, [&] { _tile_storeconfig(memory); });
  times(4, [&] { _tile_loadd(0, memory, 64); });
  times(5, [&] { _tile_stream_loadd(1, memory, 64); });
  times(6, [&] { _tile_stored(0, memory, 64); });
  times(7, [&] { _tile_zero(2); });
  times(8, [&] { _tile_dpbf16ps(0, 1, 2); });
  times(1, [&] { _tile_release(); });
  const uint64_t expected[amxKindCount] = {2, 3, 4, 5, 6, 7, 1, 8};
  for (int k = 0; k < amxKindCount; ++k)
    EXPECT_EQ(quern_amx_emulator_count(k) - before[k], expected[k]) << quern_amx_emulator_name(k);
  EXPECT_EQ(quern_amx_emulator_count(-1), 0u);
  EXPECT_EQ(quern_amx_emulator_count(amxKindCount), 0u);
  EXPECT_EQ(quern_amx_emulator_name(amxKindCount), nullptr);
  EXPECT_STREQ(quern_amx_emulator_name(static_cast<int>(AmxKind::TdpBf16Ps)), "tdpbf16ps");
}

TEST(AmxCounts, NothingTrapsOnHardware) {
  if (!nativeHardware) GTEST_SKIP() << "this CPU has no AMX";
  workOnTiles(1, 10);
  for (int k = 0; k < amxKindCount; ++k) EXPECT_EQ(quern_amx_emulator_count(k), 0u);
}

} // namespace
