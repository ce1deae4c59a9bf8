// AmxTiles: see the header. The order of operations follows the Operation sections of the Intel SDM, vol. 2.
#include "AmxTiles.h"
#include <cstring>
#include <immintrin.h>

namespace quern::amx {
namespace {

using DotFunction = decltype(&dotBf16Avx2);
DotFunction dotBf16 = dotBf16Avx2;

Fault loadConfig(TileState &state, const Instruction &instruction) {
  uint8_t config[64];
  std::memcpy(config, reinterpret_cast<const void *>(instruction.address), sizeof config);
  if (config[0] == 0) { // the INIT state; the other bytes are not looked at
    std::memset(&state, 0, sizeof state);
    return {};
  }
  if (config[0] != 1) return {"#GP: the palette must be 0 or 1", config[0]};
  for (int i = 2; i < 64; ++i)
    if ((i < 16 || (i >= 32 && i < 48) || i >= 56) && config[i])
      return {"#GP: reserved configuration bytes must be zero, byte", i};
  uint16_t colsb[TileState::tiles];
  std::memcpy(colsb, config + 16, sizeof colsb);
  const uint8_t *rows = config + 48;
  for (int t = 0; t < TileState::tiles; ++t) {
    if (colsb[t] > TileState::maxColsb) return {"#GP: colsb may be 64 at most", colsb[t]};
    if (rows[t] > TileState::maxRows) return {"#GP: rows may be 16 at most", rows[t]};
    if ((rows[t] == 0) != (colsb[t] == 0))
      return {"#GP: rows and colsb must both be zero or both not, tile", t};
  }
  std::memset(&state, 0, sizeof state);
  state.palette = 1;
  state.startRow = config[1];
  std::memcpy(state.colsb, colsb, sizeof colsb);
  std::memcpy(state.rows, rows, sizeof state.rows);
  return {};
}

void storeConfig(const TileState &state, const Instruction &instruction) {
  uint8_t config[64] = {}; // stays so in the INIT state, where all fields are zero
  config[0] = state.palette;
  config[1] = state.startRow;
  std::memcpy(config + 16, state.colsb, sizeof state.colsb);
  std::memcpy(config + 48, state.rows, sizeof state.rows);
  std::memcpy(reinterpret_cast<void *>(instruction.address), config, sizeof config);
}

Fault checkTile(const TileState &state, int tile) {
  if (state.palette == 0) return {"#UD: no tile configuration is loaded on this thread, palette", 0};
  if (state.rows[tile] == 0) return {"#UD: the tile is not configured, tile", tile};
  return {};
}

Fault checkTransfer(const TileState &state, int tile) {
  if (Fault fault = checkTile(state, tile)) return fault;
  if (state.colsb[tile] % 4) return {"#UD: colsb must be a multiple of 4", state.colsb[tile]};
  if (state.startRow >= state.rows[tile])
    return {"#UD: start_row must be below the tile's rows", state.startRow};
  return {};
}

Fault load(TileState &state, const Instruction &in) {
  const int t = in.dest;
  if (Fault fault = checkTransfer(state, t)) return fault;
  for (; state.startRow < state.rows[t]; ++state.startRow) {
    uint8_t *row = state.data[t][state.startRow];
    const auto *memory = reinterpret_cast<const uint8_t *>(in.address + state.startRow * in.stride);
    std::memset(row, 0, TileState::maxColsb);
    std::memcpy(row, memory, state.colsb[t]);
  }
  for (int r = state.rows[t]; r < TileState::maxRows; ++r)
    std::memset(state.data[t][r], 0, TileState::maxColsb);
  state.startRow = 0;
  return {};
}

Fault store(TileState &state, const Instruction &in) {
  const int t = in.dest;
  if (Fault fault = checkTransfer(state, t)) return fault;
  for (; state.startRow < state.rows[t]; ++state.startRow)
    std::memcpy(reinterpret_cast<uint8_t *>(in.address + state.startRow * in.stride),
                state.data[t][state.startRow], state.colsb[t]);
  state.startRow = 0;
  return {};
}

Fault dot(TileState &state, const Instruction &in) {
  const int c = in.dest, a = in.src1, b = in.src2;
  if (c == a || c == b || a == b) return {"#UD: the three tiles must differ, tile", c == b ? b : a};
  for (int tile : {c, a, b}) {
    if (Fault fault = checkTile(state, tile)) return fault;
    if (state.colsb[tile] % 4) return {"#UD: colsb must be a multiple of 4", state.colsb[tile]};
  }
  if (state.rows[c] != state.rows[a])
    return {"#UD: destination and first source must have the same rows", state.rows[a]};
  if (state.colsb[c] != state.colsb[b])
    return {"#UD: destination and second source must have the same colsb", state.colsb[b]};
  if (state.colsb[a] / 4 != state.rows[b])
    return {"#UD: the second source must have a row per bf16 pair of the first", state.rows[b]};
  // MXCSR is neither consulted nor updated by the instruction: round to nearest even, DAZ, FTZ, all
  // exceptions masked. The sums run behind a function pointer, so no arithmetic can move across the two
  // writes of MXCSR.
  const unsigned mxcsr = _mm_getcsr();
  _mm_setcsr(0x9FC0);
  dotBf16(state.data[c], state.data[a], state.data[b], state.rows[c], state.colsb[a] / 4, state.colsb[c] / 4);
  _mm_setcsr(mxcsr);
  for (int r = state.rows[c]; r < TileState::maxRows; ++r)
    std::memset(state.data[c][r], 0, TileState::maxColsb);
  state.startRow = 0;
  return {};
}

} // namespace

void selectDotBf16() { dotBf16 = __builtin_cpu_supports("avx512f") ? dotBf16Avx512 : dotBf16Avx2; }

Fault execute(TileState &state, const Instruction &instruction) {
  switch (instruction.kind) {
  case AmxKind::LdTileCfg: return loadConfig(state, instruction);
  case AmxKind::StTileCfg: return storeConfig(state, instruction), Fault();
  case AmxKind::TileLoadD:
  case AmxKind::TileLoadDT1: return load(state, instruction); // T1 is a cache hint, nothing else
  case AmxKind::TileStoreD: return store(state, instruction);
  case AmxKind::TileZero:
    if (Fault fault = checkTile(state, instruction.dest)) return fault;
    std::memset(state.data[instruction.dest], 0, sizeof state.data[0]);
    state.startRow = 0;
    return {};
  case AmxKind::TileRelease: std::memset(&state, 0, sizeof state); return {};
  case AmxKind::TdpBf16Ps: return dot(state, instruction);
  }
  return {"internal: unknown kind", static_cast<long>(instruction.kind)};
}

} // namespace quern::amx
