// The decoder against LLVM's assembler: every base, index and scale with eight displacements, as data that is
// never executed.
#include "AmxDecode.h"
#include "AmxTestSupport.h"

using namespace quern;
using amx::decode;
using amx::Instruction;

// The loops below and the ones in the tests walk the same order. rsp cannot be an index, so it is left out
// there.
#define GPRS "rax,rcx,rdx,rbx,rsp,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15"
#define INDICES "rax,rcx,rdx,rbx,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15"
#define DISPLACEMENTS "0,1,-1,127,-128,128,-129,0x12345678,-0x80000000"
asm(".pushsection .rodata\n"
    "amxSibForms:\n"
    ".irp base," GPRS "\n .irp index," INDICES "\n .irp scale,1,2,4,8\n .irp disp," DISPLACEMENTS "\n"
    "  tileloadd \\disp(%\\base,%\\index,\\scale), %tmm5\n"
    " .endr\n .endr\n .endr\n.endr\n"
    "amxSibFormsEnd:\n"
    "amxMemoryForms:\n"
    ".irp base," GPRS "\n .irp disp," DISPLACEMENTS "\n"
    "  ldtilecfg \\disp(%\\base)\n"
    "  sttilecfg \\disp(%\\base,%r12,4)\n"
    "  tilestored %tmm2, \\disp(%\\base)\n" // a SIB byte without an index
    " .endr\n.endr\n"
    "amxMemoryFormsEnd:\n"
    "amxNoBaseForms:\n"
    ".irp index," INDICES "\n"
    "  tileloaddt1 0x100(,%\\index,2), %tmm7\n"
    "  ldtilecfg -64(,%\\index,8)\n"
    ".endr\n"
    "amxNoBaseFormsEnd:\n"
    "amxRipForms:\n"
    "  ldtilecfg amxRipForms(%rip)\n"
    "  sttilecfg amxRipForms+256(%rip)\n"
    "amxRipFormsEnd:\n"
    "amxTileForms:\n"
    ".irp t,0,1,2,3,4,5,6,7\n"
    "  tileloadd (%rdx,%rcx), %tmm\\t\n tileloaddt1 (%rdx,%rcx), %tmm\\t\n tilestored %tmm\\t, (%rdx,%rcx)\n "
    "tilezero %tmm\\t\n"
    "  .irp u,0,1,2,3,4,5,6,7\n .irp v,0,1,2,3,4,5,6,7\n"
    "    .if (\\t - \\u) * (\\t - \\v) * (\\u - \\v)\n"
    "    tdpbf16ps %tmm\\v, %tmm\\u, %tmm\\t\n" // AT&T order: second source, first source, destination
    "    .endif\n"
    "  .endr\n .endr\n"
    ".endr\n"
    "  tilerelease\n"
    "amxTileFormsEnd:\n"
    ".popsection\n");
extern "C" {
extern const uint8_t amxSibForms[], amxSibFormsEnd[], amxMemoryForms[], amxMemoryFormsEnd[], amxNoBaseForms[],
    amxNoBaseFormsEnd[], amxRipForms[], amxRipFormsEnd[], amxTileForms[], amxTileFormsEnd[];
}

namespace {

constexpr int64_t displacements[] = {0, 1, -1, 127, -128, 128, -129, 0x12345678, -0x80000000ll};
constexpr int rsp = 4, r12 = 12;

/// Register values that cannot be confused with each other or with a sum of two.
struct AmxDecodeTest : testing::Test {
  uint64_t registers[16];
  AmxDecodeTest() {
    std::mt19937_64 random(20260101);
    for (uint64_t &r : registers) r = random();
  }
  const uint8_t *at = nullptr;
  Instruction in;
  void next(AmxKind kind) {
    ASSERT_TRUE(decode(at, registers, in))
        << "at byte " << std::hex << +at[0] << +at[1] << +at[2] << +at[3] << +at[4];
    ASSERT_EQ(in.kind, kind);
    at += in.length;
  }
};

TEST_F(AmxDecodeTest, EveryBaseIndexScaleAndDisplacement) {
  at = amxSibForms;
  for (int base = 0; base < 16; ++base)
    for (int index = 0; index < 16; ++index)
      for (int scale = 1; scale <= 8 && index != rsp; scale *= 2)
        for (int64_t disp : displacements) {
          ASSERT_NO_FATAL_FAILURE(next(AmxKind::TileLoadD));
          ASSERT_EQ(in.address, registers[base] + disp)
              << base << " " << index << " " << scale << " " << disp;
          ASSERT_EQ(in.stride, registers[index] * scale)
              << base << " " << index << " " << scale << " " << disp;
          ASSERT_EQ(in.dest, 5);
        }
  EXPECT_EQ(at, amxSibFormsEnd);
}

TEST_F(AmxDecodeTest, ConfigurationAddressesAndMissingIndex) {
  at = amxMemoryForms;
  for (int base = 0; base < 16; ++base)
    for (int64_t disp : displacements) {
      ASSERT_NO_FATAL_FAILURE(next(AmxKind::LdTileCfg));
      ASSERT_EQ(in.address, registers[base] + disp) << base;
      ASSERT_NO_FATAL_FAILURE(next(AmxKind::StTileCfg));
      ASSERT_EQ(in.address, registers[base] + registers[r12] * 4 + disp) << base;
      ASSERT_NO_FATAL_FAILURE(next(AmxKind::TileStoreD));
      ASSERT_EQ(in.address, registers[base] + disp) << base;
      ASSERT_EQ(in.stride, 0u);
      ASSERT_EQ(in.dest, 2);
    }
  EXPECT_EQ(at, amxMemoryFormsEnd);
}

TEST_F(AmxDecodeTest, NoBase) {
  at = amxNoBaseForms;
  for (int index = 0; index < 16; ++index) {
    if (index == rsp) continue;
    ASSERT_NO_FATAL_FAILURE(next(AmxKind::TileLoadDT1));
    ASSERT_EQ(in.address, 0x100u);
    ASSERT_EQ(in.stride, registers[index] * 2);
    ASSERT_EQ(in.dest, 7);
    ASSERT_NO_FATAL_FAILURE(next(AmxKind::LdTileCfg));
    ASSERT_EQ(in.address, registers[index] * 8 - 64);
  }
  EXPECT_EQ(at, amxNoBaseFormsEnd);
}

TEST_F(AmxDecodeTest, RipRelative) {
  at = amxRipForms;
  const auto here = reinterpret_cast<uint64_t>(amxRipForms);
  ASSERT_NO_FATAL_FAILURE(next(AmxKind::LdTileCfg));
  EXPECT_EQ(in.address, here);
  ASSERT_NO_FATAL_FAILURE(next(AmxKind::StTileCfg));
  EXPECT_EQ(in.address, here + 256);
  EXPECT_EQ(at, amxRipFormsEnd);
}

/// Encodings that no assembler picks: with VEX.B set, mod 0 and base 5 still mean disp32 alone, or
/// RIP-relative; never r13.
TEST_F(AmxDecodeTest, BaseFiveWithoutDisplacementIsNotR13) {
  const uint8_t noBase[] = {0xC4, 0xC2, 0x7B, 0x4B, 0x04,
                            0x0D, 0x00, 0x10, 0x00, 0x00}; // tileloadd 0x1000(,%rcx), %tmm0
  at = noBase;
  ASSERT_NO_FATAL_FAILURE(next(AmxKind::TileLoadD));
  EXPECT_EQ(in.address, 0x1000u);
  EXPECT_EQ(in.stride, registers[1]);
  EXPECT_EQ(in.length, sizeof noBase);
  const uint8_t rip[] = {0xC4, 0xC2, 0x78, 0x49, 0x05, 0xF0, 0xFF, 0xFF, 0xFF}; // ldtilecfg -16(%rip)
  at = rip;
  ASSERT_NO_FATAL_FAILURE(next(AmxKind::LdTileCfg));
  EXPECT_EQ(in.address, reinterpret_cast<uint64_t>(rip) + sizeof rip - 16);
  EXPECT_EQ(in.length, sizeof rip);
}

TEST_F(AmxDecodeTest, EveryTileNumber) {
  at = amxTileForms;
  for (int t = 0; t < 8; ++t) {
    for (AmxKind kind : {AmxKind::TileLoadD, AmxKind::TileLoadDT1, AmxKind::TileStoreD, AmxKind::TileZero}) {
      ASSERT_NO_FATAL_FAILURE(next(kind));
      ASSERT_EQ(in.dest, t);
    }
    for (int u = 0; u < 8; ++u)
      for (int v = 0; v < 8; ++v) {
        if (t == u || t == v || u == v) continue;
        ASSERT_NO_FATAL_FAILURE(next(AmxKind::TdpBf16Ps));
        ASSERT_EQ(in.dest, t);
        ASSERT_EQ(in.src1, u);
        ASSERT_EQ(in.src2, v);
      }
  }
  ASSERT_NO_FATAL_FAILURE(next(AmxKind::TileRelease));
  EXPECT_EQ(at, amxTileFormsEnd);
}

TEST_F(AmxDecodeTest, WhatIsNotOursIsLeftAlone) {
  const std::pair<const char *, std::vector<uint8_t>> others[] = {
      {"ud2", {0x0F, 0x0B}},
      {"tdpbssd", {0xC4, 0xE2, 0x6B, 0x5E, 0xC1}},
      {"tdpfp16ps (F2 5C)", {0xC4, 0xE2, 0x6B, 0x5C, 0xC1}},
      {"map 0F 3A", {0xC4, 0xE3, 0x78, 0x49, 0xC0}},
      {"VEX.W1", {0xC4, 0xE2, 0xF8, 0x49, 0xC0}},
      {"VEX.256", {0xC4, 0xE2, 0x7C, 0x49, 0xC0}},
      {"vvvv used by tilerelease", {0xC4, 0xE2, 0x70, 0x49, 0xC0}},
      {"ldtilecfg with /1", {0xC4, 0xE2, 0x78, 0x49, 0x08}},
      {"tilezero tmm8", {0xC4, 0x62, 0x7B, 0x49, 0xC0}},
      {"tileloadd tmm8", {0xC4, 0x62, 0x7B, 0x4B, 0x04, 0x08}},
      {"tileloadd without SIB", {0xC4, 0xE2, 0x7B, 0x4B, 0x00}},
      {"tileloadd of a register", {0xC4, 0xE2, 0x7B, 0x4B, 0xC4}},
      {"tileloadd without prefix", {0xC4, 0xE2, 0x78, 0x4B, 0x04, 0x08}},
      {"tdpbf16ps with vvvv = 8", {0xC4, 0xE2, 0x3A, 0x5C, 0xC1}},
      {"tdpbf16ps with rm = 9", {0xC4, 0xC2, 0x6A, 0x5C, 0xC1}},
      {"tdpbf16ps of memory", {0xC4, 0xE2, 0x6A, 0x5C, 0x01}},
      {"fs: ldtilecfg (rax)", {0x64, 0xC4, 0xE2, 0x78, 0x49, 0x00}},
      {"addr32 ldtilecfg (eax)", {0x67, 0xC4, 0xE2, 0x78, 0x49, 0x00}},
  };
  for (auto &[name, code] : others) {
    std::vector<uint8_t> padded = code;
    padded.resize(16, 0x90);
    EXPECT_FALSE(decode(padded.data(), registers, in)) << name;
  }
}

} // namespace
