// AmxDecode: see the header. Every AMX instruction needs the three-byte VEX form, because its opcodes live in
// map 0F 38.
#include "AmxDecode.h"
#include <cstring>

namespace quern::amx {
namespace {

enum Prefix : unsigned { none = 0, p66 = 1, pF3 = 2, pF2 = 3 }; // VEX.pp

struct Vex {
  bool r, x, b; // register extensions, already un-inverted
  unsigned vvvv, pp;
  uint8_t opcode, modrm;
  unsigned mod() const { return modrm >> 6; }
  unsigned reg() const { return modrm >> 3 & 7; }
  unsigned rm() const { return modrm & 7; }
};

/// A memory operand split as the tile instructions need it: base + displacement, and the scaled index apart.
struct Memory {
  uint64_t base = 0, index = 0;
  const uint8_t *end = nullptr;
};

/// `tail` is the byte after ModRM. VEX instructions of these opcodes carry no immediate, so the operand ends
/// the instruction and RIP-relative addresses count from `end`.
Memory memoryOperand(const Vex &vex, const uint8_t *tail, const uint64_t (&registers)[16]) {
  Memory memory;
  unsigned displacementBytes = vex.mod() == 1 ? 1 : vex.mod() == 2 ? 4 : 0;
  bool ripRelative = false;
  if (vex.rm() == 4) {
    uint8_t sib = *tail++;
    unsigned base = (sib & 7) | vex.b << 3, index = (sib >> 3 & 7) | vex.x << 3;
    // Index 4 means "none", but only without VEX.X: r12 is a proper index.
    if (index != 4) memory.index = registers[index] << (sib >> 6);
    // Base 5 with mod 0 means "no base, disp32" whatever VEX.B says: r13 needs a displacement too.
    if ((sib & 7) == 5 && vex.mod() == 0)
      displacementBytes = 4;
    else
      memory.base = registers[base];
  } else if (vex.rm() == 5 && vex.mod() == 0) {
    displacementBytes = 4;
    ripRelative = true;
  } else {
    memory.base = registers[vex.rm() | vex.b << 3];
  }
  if (displacementBytes == 1) {
    memory.base += static_cast<int64_t>(static_cast<int8_t>(*tail));
  } else if (displacementBytes == 4) {
    int32_t displacement;
    std::memcpy(&displacement, tail, sizeof displacement);
    memory.base += static_cast<int64_t>(displacement);
  }
  memory.end = tail + displacementBytes;
  if (ripRelative) memory.base += reinterpret_cast<uint64_t>(memory.end);
  return memory;
}

/// Fills `kind` and the tile numbers; false for anything that is not one of the eight.
bool identify(const Vex &vex, Instruction &out) {
  const bool memory = vex.mod() != 3;
  out.dest = vex.reg();
  switch (vex.opcode) {
  case 0x49:
    if (vex.r || vex.vvvv) return false;
    if (memory) {
      if (vex.reg() != 0) return false;
      if (vex.pp == none) return out.kind = AmxKind::LdTileCfg, true;
      if (vex.pp == p66) return out.kind = AmxKind::StTileCfg, true;
      return false;
    }
    if (vex.rm() != 0 || vex.b || vex.x) return false;
    if (vex.pp == none && vex.reg() == 0) return out.kind = AmxKind::TileRelease, true;
    if (vex.pp == pF2) return out.kind = AmxKind::TileZero, true;
    return false;
  case 0x4B: // always with a SIB byte: the index register is the row stride
    if (!memory || vex.rm() != 4 || vex.r || vex.vvvv) return false;
    if (vex.pp == pF2) return out.kind = AmxKind::TileLoadD, true;
    if (vex.pp == p66) return out.kind = AmxKind::TileLoadDT1, true;
    if (vex.pp == pF3) return out.kind = AmxKind::TileStoreD, true;
    return false;
  case 0x5C:
    if (memory || vex.pp != pF3 || vex.r || vex.x || vex.b || vex.vvvv > 7) return false;
    out.kind = AmxKind::TdpBf16Ps;
    out.src1 = vex.rm();
    out.src2 = vex.vvvv;
    return true;
  default: return false;
  }
}

} // namespace

bool decode(const uint8_t *code, const uint64_t (&registers)[16], Instruction &out) {
  // One byte after the other: what follows a shorter instruction may be an unmapped page.
  if (code[0] != 0xC4) return false;
  const uint8_t byte1 = code[1];
  if ((byte1 & 0x1F) != 2) return false; // map 0F 38
  const uint8_t byte2 = code[2];
  if (byte2 & 0x84) return false; // VEX.W0, VEX.128
  const uint8_t opcode = code[3];
  if (opcode != 0x49 && opcode != 0x4B && opcode != 0x5C) return false;
  const Vex vex{.r = !(byte1 & 0x80),
                .x = !(byte1 & 0x40),
                .b = !(byte1 & 0x20),
                .vvvv = ~byte2 >> 3 & 15u,
                .pp = byte2 & 3u,
                .opcode = opcode,
                .modrm = code[4]};
  out = Instruction();
  if (!identify(vex, out)) return false;
  const uint8_t *end = code + 5;
  if (vex.mod() != 3) {
    Memory memory = memoryOperand(vex, end, registers);
    const bool wholeAddress =
        vex.opcode == 0x49; // for ldtilecfg and sttilecfg the index is part of the address
    out.address = memory.base + (wholeAddress ? memory.index : 0);
    out.stride = wholeAddress ? 0 : memory.index;
    end = memory.end;
  }
  out.length = static_cast<uint8_t>(end - code);
  return true;
}

} // namespace quern::amx
