// Layouts of wgmma operands: B in shared memory through its descriptor, fragments of A and of the
// accumulators in registers, and the tokens that stand for accumulators in flight. PTX ISA 9.7.15.5.
#pragma once
#include <bit>
#include <cstdint>
#include <utility>

namespace quern::sim {

struct Cta;

/// Shared address of the 8 elements k = 8*half.. of row n of B.
class BOperand {
public:
  /// Fatal issue for a descriptor that is not modelled.
  BOperand(uint64_t descriptor);
  uint32_t address(uint32_t n, uint32_t half) const;
  uint32_t start;

private:
  uint32_t leading, stride, swizzle;
};

/// Copies B[n][16] out of shared memory.
void readB(const Cta &cta, uint64_t descriptor, uint32_t n, uint16_t *b);

/// Row of A and C that thread t (0..127) of the warpgroup holds in half `high` of its registers.
inline uint32_t fragmentRow(uint32_t t, bool high) { return t / 32 * 16 + t % 32 / 4 + (high ? 8 : 0); }
/// Element e (0..7) of the four A registers: row and k.
inline std::pair<uint32_t, uint32_t> aAt(uint32_t t, uint32_t e) {
  return {fragmentRow(t, e & 2), t % 4 * 2 + (e & 1) + (e >> 2) * 8};
}

/// All n/2 accumulators of thread t, from and to C[64][n]. NaNs leave as the tensor core's one, never a
/// token.
void readFragment(const float *c, uint32_t n, uint32_t t, float *acc);
void writeFragment(float *c, uint32_t n, uint32_t t, const float *acc);

// A token: a quiet NaN whose payload is 13 bits of the operation's serial number and 7 bits of the register.
constexpr uint32_t tokenBits = 0x7FD00000u, tokenMask = 0xFFF00000u, serialMask = 0x1FFF;
inline bool isToken(uint32_t bits) { return (bits & tokenMask) == tokenBits; }
inline bool isToken(float value) { return isToken(std::bit_cast<uint32_t>(value)); }
inline uint32_t token(uint32_t serial, uint32_t i) { return tokenBits | (serial & serialMask) << 7 | i; }
inline uint32_t tokenSerial(uint32_t bits) { return bits >> 7 & serialMask; }
inline uint32_t tokenRegister(uint32_t bits) { return bits & 127; }
/// acc[0..count) are the tokens of one operation in order, from register 0.
inline bool areTokens(const float *acc, uint32_t count) {
  const uint32_t first = std::bit_cast<uint32_t>(acc[0]);
  uint32_t differs = isToken(first) ? tokenRegister(first) : 1;
  for (uint32_t i = 0; i < count; ++i) differs |= std::bit_cast<uint32_t>(acc[i]) ^ (first + i);
  return !differs;
}

} // namespace quern::sim
