// What a processor would refuse with #UD or #GP ends the process with one readable line: each rule's exact
// text.
#include "AmxTestSupport.h"
#include "AmxTiles.h"

using namespace quern;
using namespace quern::amxtest;

namespace {

struct AmxFaultDeathTest : testing::Test {
  alignas(64) uint8_t memory[1024] = {};
  void SetUp() override {
    QUERN_NEEDS_EMULATION();
    GTEST_FLAG_SET(death_test_style, "fast");
  }
};

TEST_F(AmxFaultDeathTest, Configuration) {
  auto with = [](int byte, int value) {
    TileConfig config;
    config.all(16, 64).bytes[byte] = static_cast<uint8_t>(value);
    return config;
  };
  EXPECT_DEATH(with(0, 2).apply(), "ldtilecfg at 0x[0-9a-f]+: #GP: the palette must be 0 or 1, found 2\n");
  for (int reserved : {2, 15, 32, 47, 56, 63})
    EXPECT_DEATH(with(reserved, 1).apply(),
                 "#GP: reserved configuration bytes must be zero, byte, found " + std::to_string(reserved));
  EXPECT_DEATH(with(20, 65).apply(), "#GP: colsb may be 64 at most, found 65");
  EXPECT_DEATH(with(21, 1).apply(), "#GP: colsb may be 64 at most, found 320"); // the high byte counts
  EXPECT_DEATH(with(50, 17).apply(), "#GP: rows may be 16 at most, found 17");
  EXPECT_DEATH(with(51, 0).apply(), "#GP: rows and colsb must both be zero or both not, tile, found 3");
  EXPECT_DEATH(with(24, 0).apply(), "#GP: rows and colsb must both be zero or both not, tile, found 4");
}

TEST_F(AmxFaultDeathTest, AFaultChangesNothing) {
  TileConfig bad;
  bad.all(16, 64).bytes[55] = 17; // the last byte that is looked at
  amx::TileState state = {}, before;
  state.palette = 1, state.rows[0] = 4, state.colsb[0] = 16, state.data[3][5][7] = 9;
  before = state;
  amx::Instruction in;
  in.kind = AmxKind::LdTileCfg;
  in.address = reinterpret_cast<uint64_t>(bad.bytes);
  EXPECT_TRUE(execute(state, in));
  EXPECT_EQ(0, std::memcmp(&state, &before, sizeof state));
}

TEST_F(AmxFaultDeathTest, Unconfigured) {
  _tile_release();
  const char *rule = "#UD: no tile configuration is loaded on this thread";
  EXPECT_DEATH(_tile_loadd(0, memory, 64), std::string("tileloadd at .*") + rule);
  EXPECT_DEATH(_tile_stream_loadd(0, memory, 64), std::string("tileloaddt1 at .*") + rule);
  EXPECT_DEATH(_tile_stored(0, memory, 64), std::string("tilestored at .*") + rule);
  EXPECT_DEATH(_tile_zero(0), std::string("tilezero at .*") + rule);
  EXPECT_DEATH(_tile_dpbf16ps(0, 1, 2), std::string("tdpbf16ps at .*") + rule);
}

TEST_F(AmxFaultDeathTest, Transfers) {
  TileConfig config;
  config.tile(0, 16, 64).tile(1, 4, 6).bytes[1] = 4;
  config.apply();
  EXPECT_DEATH(_tile_loadd(5, memory, 64),
               "#UD: the tile is not configured, tile, found 5; tmm5 is 0 rows x 0 bytes\n");
  EXPECT_DEATH(_tile_zero(5), "#UD: the tile is not configured, tile, found 5");
  EXPECT_DEATH(_tile_loadd(1, memory, 64),
               "#UD: colsb must be a multiple of 4, found 6; tmm1 is 4 rows x 6 bytes\n");
  EXPECT_DEATH(_tile_stored(1, memory, 64), "#UD: colsb must be a multiple of 4, found 6");
  config.tile(1, 4, 8).apply();
  EXPECT_DEATH(_tile_loadd(1, memory, 64),
               "#UD: start_row must be below the tile's rows, found 4; tmm1 is 4 rows x 8 bytes");
  EXPECT_DEATH(_tile_stored(1, memory, 64), "#UD: start_row must be below the tile's rows, found 4");
  _tile_release();
}

TEST_F(AmxFaultDeathTest, Dot) {
  TileConfig()
      .tile(0, 16, 64)
      .tile(1, 16, 64)
      .tile(2, 16, 64)
      .tile(3, 8, 64)
      .tile(4, 16, 32)
      .tile(5, 16, 62)
      .apply();
  // Compiler and assembler refuse these three, so they are spelled out: (0, 1, 1), (0, 0, 1), (0, 1, 0).
  EXPECT_DEATH(asm volatile(".byte 0xC4, 0xE2, 0x72, 0x5C, 0xC1"),
               "#UD: the three tiles must differ, tile, found 1");
  EXPECT_DEATH(asm volatile(".byte 0xC4, 0xE2, 0x72, 0x5C, 0xC0"),
               "#UD: the three tiles must differ, tile, found 0");
  EXPECT_DEATH(asm volatile(".byte 0xC4, 0xE2, 0x7A, 0x5C, 0xC1"),
               "#UD: the three tiles must differ, tile, found 0");
  EXPECT_DEATH(_tile_dpbf16ps(6, 1, 2), "#UD: the tile is not configured, tile, found 6");
  EXPECT_DEATH(_tile_dpbf16ps(0, 6, 2), "#UD: the tile is not configured, tile, found 6");
  EXPECT_DEATH(_tile_dpbf16ps(0, 1, 6), "#UD: the tile is not configured, tile, found 6");
  EXPECT_DEATH(_tile_dpbf16ps(0, 5, 2), "#UD: colsb must be a multiple of 4, found 62");
  EXPECT_DEATH(_tile_dpbf16ps(0, 3, 2),
               "#UD: destination and first source must have the same rows, found 8; tmm0 is 16 rows x 64 "
               "bytes; tmm3 is 8 rows x 64 bytes; tmm2 is 16 rows x 64 bytes\n");
  EXPECT_DEATH(_tile_dpbf16ps(4, 1, 2),
               "#UD: destination and second source must have the same colsb, found 64");
  EXPECT_DEATH(_tile_dpbf16ps(0, 1, 3),
               "#UD: the second source must have a row per bf16 pair of the first, found 8");
  _tile_release();
}

TEST_F(AmxFaultDeathTest, ABadAddressIsASegmentationFault) {
  std::signal(SIGSEGV, SIG_DFL); // AddressSanitizer answers it otherwise
  TileConfig().all(16, 64).apply();
  EXPECT_EXIT(_tile_loadd(0, reinterpret_cast<void *>(16), 64), testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(_tile_stored(0, reinterpret_cast<void *>(16), 64), testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(_tile_loadconfig(reinterpret_cast<void *>(16)), testing::KilledBySignal(SIGSEGV), "");
  _tile_release();
}

} // namespace
