// Configuration, loads, stores, zeroing and addresses, through real machine code that traps.
#include "AmxTestSupport.h"
#include "AmxTiles.h"
#include <sys/mman.h>
#include <unistd.h>

using namespace quern;
using namespace quern::amxtest;

namespace {

TEST(AmxConfig, RoundTrip) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) config.tile(t, 16 - 2 * t, 64 - 8 * t);
  config.apply();
  TileConfig read;
  std::memset(read.bytes, 0xEE, 64);
  _tile_storeconfig(read.bytes);
  EXPECT_EQ(0, std::memcmp(read.bytes, config.bytes, 64));
  _tile_release();
  _tile_storeconfig(read.bytes);
  EXPECT_EQ(0, std::memcmp(read.bytes, std::array<uint8_t, 64>().data(), 64))
      << "tilerelease leaves no configuration";
}

TEST(AmxConfig, PaletteZeroReleases) {
  TileConfig().all(16, 64).apply();
  TileConfig none;
  std::memset(none.bytes, 0xAB, 64); // only the palette is looked at
  none.bytes[0] = 0;
  none.apply();
  _tile_storeconfig(none.bytes);
  EXPECT_EQ(0, std::memcmp(none.bytes, std::array<uint8_t, 64>().data(), 64));
}

TEST(AmxConfig, LoadingAConfigurationZeroesAllTiles) {
  auto data = randomBytes(1024, 1);
  TileConfig().all(16, 64).apply();
  for (int t = 0; t < 8; ++t) loads[t](data.data(), 64);
  TileConfig().all(16, 64).apply();
  for (int t = 0; t < 8; ++t) {
    std::vector<uint8_t> got(1024, 0xCC);
    stores[t](got.data(), 64);
    EXPECT_EQ(got, std::vector<uint8_t>(1024, 0)) << "tile " << t;
  }
  _tile_release();
}

TEST(AmxTransfer, EveryShapeStrideAndTile) {
  const unsigned seed = testSeed();
  std::mt19937 random(seed);
  for (int round = 0; round < 400; ++round) {
    const int t = round % 8, rows = 1 + random() % 16, colsb = 4 * (1 + random() % 16);
    const size_t in = colsb + random() % 100, out = colsb + random() % 100; // any alignment
    auto source = randomBytes(16 * 200, seed + round);
    std::vector<uint8_t> got(16 * 200, 0x5A), expected = got;
    TileConfig().tile(t, rows, colsb).apply();
    (round & 8 ? streams : loads)[t](source.data() + 3, in);
    stores[t](got.data() + 1, out);
    for (int r = 0; r < rows; ++r)
      std::copy_n(source.begin() + 3 + r * in, colsb, expected.begin() + 1 + r * out);
    ASSERT_EQ(got, expected) << "tile " << t << ", " << rows << " x " << colsb << ", seed " << seed;
  }
  _tile_release();
}

TEST(AmxTransfer, NegativeAndZeroStride) {
  auto source = randomBytes(1024, 7);
  std::vector<uint8_t> got(1024);
  TileConfig().all(16, 64).apply();
  _tile_loadd(1, source.data() + 15 * 64, static_cast<size_t>(-64));
  _tile_stored(1, got.data(), 64);
  for (int r = 0; r < 16; ++r) EXPECT_EQ(0, std::memcmp(&got[r * 64], &source[(15 - r) * 64], 64)) << r;
  asm volatile("tileloadd 64(%0), %%tmm2" ::"r"(source.data()) : "memory"); // no index: every row is the same
  _tile_stored(2, got.data(), 64);
  for (int r = 0; r < 16; ++r) EXPECT_EQ(0, std::memcmp(&got[r * 64], &source[64], 64)) << r;
  _tile_release();
}

// Executed operand forms; the decoder's own test covers all of them, these show that the registers really are
// the trapped code's.
#define LOAD_FORM(base, index, operand)                                                                      \
  [](const void *p, uint64_t i) {                                                                            \
    asm volatile("mov %0, %%" base "\n mov %1, %%" index "\n tileloadd " operand ", %%tmm4" ::"r"(p), "r"(i) \
                 : base, index, "memory");                                                                   \
  }
TEST(AmxTransfer, OperandForms) {
  struct Form {
    const char *name;
    void (*load)(const void *base, uint64_t index);
    int displacement, scale;
  };
  const Form forms[] = {
      {"rax rcx", LOAD_FORM("rax", "rcx", "(%%rax,%%rcx)"), 0, 1},
      {"r8 r9", LOAD_FORM("r8", "r9", "(%%r8,%%r9)"), 0, 1},
      {"r12 r13*2 disp8", LOAD_FORM("r12", "r13", "-128(%%r12,%%r13,2)"), -128, 2},
      {"r13 r12*4", LOAD_FORM("r13", "r12", "(%%r13,%%r12,4)"), 0, 4},
      {"r15 r14*8 disp32", LOAD_FORM("r15", "r14", "-2000(%%r15,%%r14,8)"), -2000, 8},
      {"rdi rsi disp32", LOAD_FORM("rdi", "rsi", "1000(%%rdi,%%rsi)"), 1000, 1},
      {"rdx r10*2 disp8", LOAD_FORM("rdx", "r10", "127(%%rdx,%%r10,2)"), 127, 2},
      {"rbp r11",
       [](const void *p, uint64_t i) {
         asm volatile("mov %1, %%r11\n xchg %0, %%rbp\n tileloadd 8(%%rbp,%%r11), %%tmm4\n xchg %0, %%rbp"
                      : "+r"(p)
                      : "r"(i)
                      : "r11", "memory");
       },
       8, 1},
      {"rsp rax*2", // the signal frame lands below the borrowed stack pointer
       [](const void *p, uint64_t i) {
         asm volatile("mov %1, %%rax\n xchg %0, %%rsp\n tileloadd (%%rsp,%%rax,2), %%tmm4\n xchg %0, %%rsp"
                      : "+r"(p)
                      : "r"(i)
                      : "rax", "memory");
       },
       0, 2},
  };
  constexpr size_t stack = 128 << 10;
  auto memory = randomBytes(stack + 64 * 1024, 11);
  TileConfig().all(16, 64).apply();
  for (const Form &form : forms) {
    std::vector<uint8_t> got(1024), expected;
    const uint64_t index = 96;
    const uint8_t *base = memory.data() + stack + 4000;
    for (int r = 0; r < 16; ++r) {
      const uint8_t *row = base + form.displacement + r * index * form.scale;
      expected.insert(expected.end(), row, row + 64);
    }
    form.load(base, index);
    _tile_stored(4, got.data(), 64);
    EXPECT_EQ(got, expected) << form.name;
  }
  _tile_release();
}

TEST(AmxConfig, OperandForms) {
  static const TileConfig config = TileConfig().tile(0, 3, 12).tile(7, 16, 64);
  asm volatile("ldtilecfg %0" ::"m"(config.bytes)); // RIP-relative
  alignas(64) uint8_t got[4096] = {};
  asm volatile("mov %0, %%r13\n mov $100, %%r12d\n sttilecfg -64(%%r13,%%r12,8)" ::"r"(got)
               : "r12", "r13", "memory");
  EXPECT_EQ(0, std::memcmp(got + 736, config.bytes, 64));
  asm volatile("ldtilecfg 736(%0)\n sttilecfg 0x800(%0)" ::"r"(got) : "memory");
  EXPECT_EQ(0, std::memcmp(got + 0x800, config.bytes, 64));
  _tile_release();
}

/// start_row in the configuration: a load leaves the rows before it alone, a store skips them, and both set
/// it back to zero.
TEST(AmxTransfer, StartRow) {
  auto source = randomBytes(1024, 3);
  std::vector<uint8_t> got(1024, 0x77), expected(1024, 0);
  TileConfig config;
  config.all(16, 64).bytes[1] = 5;
  config.apply();
  _tile_loadd(0, source.data(), 64);
  _tile_stored(0, got.data(), 64); // start_row is zero again: all rows
  std::copy(source.begin() + 5 * 64, source.end(), expected.begin() + 5 * 64);
  EXPECT_EQ(got, expected);
  config.apply();
  std::fill(got.begin(), got.end(), 0x77);
  _tile_stored(0, got.data(), 64);
  EXPECT_EQ(std::vector<uint8_t>(got.begin(), got.begin() + 320), std::vector<uint8_t>(320, 0x77));
  EXPECT_EQ(std::vector<uint8_t>(got.begin() + 320, got.end()), std::vector<uint8_t>(704, 0));
  TileConfig read;
  _tile_storeconfig(read.bytes);
  EXPECT_EQ(read.bytes[1], 0);
  _tile_release();
}

TEST(AmxTransfer, TileZeroClearsOneTile) {
  auto source = randomBytes(1024, 5);
  for (int z = 0; z < 8; ++z) {
    TileConfig().all(16, 64).apply();
    for (int t = 0; t < 8; ++t) loads[t](source.data(), 64);
    zeros[z]();
    for (int t = 0; t < 8; ++t) {
      std::vector<uint8_t> got(1024, 0x33);
      stores[t](got.data(), 64);
      EXPECT_EQ(got, t == z ? std::vector<uint8_t>(1024, 0) : source) << z << " " << t;
    }
  }
  _tile_release();
}

/// Rows and columns beyond the configured shape are zeroed by each write. Instructions cannot see them, so
/// this looks inside.
TEST(AmxState, UpperRowsAndColumnsAreZeroed) {
  alignas(64) uint8_t memory[1024];
  std::memset(memory, 0x3F, sizeof memory);
  amx::selectDotBf16();
  for (AmxKind kind : {AmxKind::TileLoadD, AmxKind::TileLoadDT1, AmxKind::TdpBf16Ps, AmxKind::TileZero}) {
    amx::TileState state = {};
    std::memset(state.data, 0x11, sizeof state.data);
    state.palette = 1;
    for (int t = 0; t < 8; ++t) state.rows[t] = 5, state.colsb[t] = 20; // 5 x 5 pairs x 5
    amx::Instruction in;
    in.kind = kind;
    in.dest = 1, in.src1 = 2, in.src2 = 3;
    in.address = reinterpret_cast<uint64_t>(memory);
    in.stride = 64;
    ASSERT_FALSE(execute(state, in));
    for (int r = 0; r < 16; ++r)
      for (int b = 0; b < 64; ++b) {
        const bool inside = r < 5 && b < 20;
        if (!inside) ASSERT_EQ(state.data[1][r][b], 0) << static_cast<int>(kind) << ": " << r << " " << b;
        if (inside && (kind == AmxKind::TileLoadD || kind == AmxKind::TileLoadDT1))
          ASSERT_EQ(state.data[1][r][b], 0x3F);
      }
    for (int t : {0, 2, 3, 4, 5, 6, 7}) ASSERT_EQ(state.data[t][15][63], 0x11) << "other tiles stay";
  }
}

/// Two pages, the second one unmapped.
struct GuardedPage {
  uint8_t *page =
      static_cast<uint8_t *>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  GuardedPage() { mprotect(page + 4096, 4096, PROT_NONE); }
  ~GuardedPage() { munmap(page, 8192); }
  uint8_t *end() { return page + 4096; }
};

TEST(AmxTransfer, TouchesNothingBeyondTheLastRow) {
  GuardedPage guarded;
  TileConfig().all(3, 20).apply();
  std::memset(guarded.page, 0x42, 4096);
  _tile_loadd(0, guarded.end() - 2 * 32 - 20, 32);
  std::memset(guarded.page, 0, 4096);
  _tile_stored(0, guarded.end() - 2 * 32 - 20, 32);
  EXPECT_EQ(guarded.end()[-1], 0x42);
  EXPECT_EQ(guarded.end()[-21], 0);
  _tile_storeconfig(guarded.end() - 64);
  _tile_loadconfig(guarded.end() - 64);
  _tile_release();
}

TEST(AmxTransfer, CodeAtTheEndOfAPage) {
  GuardedPage guarded;
  const uint8_t code[] = {0xC4, 0xE2, 0x78, 0x49, 0xC0, 0xC3}; // tilerelease; ret
  std::memcpy(guarded.end() - sizeof code, code, sizeof code);
  ASSERT_EQ(0, mprotect(guarded.page, 4096, PROT_READ | PROT_EXEC));
  TileConfig config;
  config.all(1, 4).apply();
  reinterpret_cast<void (*)()>(guarded.end() - sizeof code)();
  _tile_storeconfig(config.bytes);
  EXPECT_EQ(config.bytes[0], 0);
}

} // namespace
