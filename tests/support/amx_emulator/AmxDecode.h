// AmxDecode: the VEX-encoded AMX instruction at an address, with its memory operand already resolved.
#pragma once
#include "AmxEmulator.h"

namespace quern::amx {

/// One instruction. `dest` is the tile that is loaded, zeroed, stored or accumulated into; `src1` and `src2`
/// are tdpbf16ps's.
struct Instruction {
  AmxKind kind = AmxKind::TileRelease;
  uint8_t length = 0; // bytes
  uint8_t dest = 0, src1 = 0, src2 = 0;
  uint64_t address = 0; // of the 64 configuration bytes, or of tile row 0
  uint64_t stride = 0;  // bytes from one tile row to the next, modulo 2^64
};

/// Decodes the instruction at `code`; `registers` holds the 16 general registers in encoding order (rax, rcx,
/// rdx, rbx, rsp, ...). False when it is not one of AmxKind in its canonical encoding: other AMX
/// instructions, tiles 8 and up, VEX.W or VEX.L set, and legacy prefixes (FS, GS, address size). Reads no
/// byte beyond the instruction. Async-signal-safe. Source: Intel SDM vol. 2, section 2.3 (VEX), table 2-3
/// (SIB) and the instructions' own pages.
bool decode(const uint8_t *code, const uint64_t (&registers)[16], Instruction &out);

} // namespace quern::amx
