// AmxTiles: the tile state of one thread and what each instruction does to it.
#pragma once
#include "AmxDecode.h"

namespace quern::amx {

/// Palette 1: eight tiles of 16 rows x 64 bytes. Zero-initialised is the INIT state (nothing configured).
struct TileState {
  static constexpr int tiles = 8, maxRows = 16, maxColsb = 64;
  alignas(64) uint8_t data[tiles][maxRows][maxColsb];
  uint16_t colsb[tiles]; // bytes per row
  uint8_t rows[tiles];
  uint8_t palette;  // 0 or 1; TILES_CONFIGURED of the SDM is palette != 0
  uint8_t startRow; // row where an interrupted load or store goes on; only ldtilecfg sets it here
};

/// A broken rule of the SDM: text without its value, and the value that broke it. `reason` is null when all
/// went well.
struct Fault {
  const char *reason = nullptr;
  long found = 0;
  explicit operator bool() const { return reason != nullptr; }
};

/// Executes one instruction as its Operation section in the Intel SDM vol. 2 says, with the checks of
/// section 2.10 (AMX exception classes). A fault leaves the state as it was. Async-signal-safe; a bad address
/// faults inside, as a plain SIGSEGV.
Fault execute(TileState &state, const Instruction &instruction);

/// C += A B of tdpbf16ps on palette-1 tiles: `rows` rows of C and A, `pairs` bf16 pairs of A = rows of B,
/// `columns` fp32 of C. Needs FMA3; expects MXCSR with DAZ and FTZ set and round to nearest even. `c` columns
/// from `columns` on are set to zero.
void dotBf16Avx2(uint8_t (*c)[64], const uint8_t (*a)[64], const uint8_t (*b)[64], int rows, int pairs,
                 int columns);
void dotBf16Avx512(uint8_t (*c)[64], const uint8_t (*a)[64], const uint8_t (*b)[64], int rows, int pairs,
                   int columns);

/// Chooses between the two above; called once, before the first execute.
void selectDotBf16();

} // namespace quern::amx
