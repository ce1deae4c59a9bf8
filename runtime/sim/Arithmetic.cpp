// Pure primitives, with the rounding and NaNs of PTX ISA 9.7.3 - 9.7.5 and 9.7.9.7.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Wgmma.h"
#include "runtime/sim/WgmmaOperands.h"
#include <bit>
#include <cmath>

namespace quern::sim {

static uint32_t bitsOf(float value) { return std::bit_cast<uint32_t>(value); }
static bool isNan(uint32_t bits) { return (bits & 0x7fffffff) > 0x7f800000; }

/// The fp32 next to `value` that keeps whether digits were lost: its last bit is set when they were, so that
/// a second, nearest rounding to fewer digits gives the nearest value of the first operand.
static float roundToOdd(double value) {
  float nearest = float(value);
  if (double(nearest) == value || std::isnan(value) || std::isinf(nearest)) return nearest;
  uint32_t bits = bitsOf(nearest);
  if (std::fabs(double(nearest)) > std::fabs(value)) --bits; // towards zero
  return std::bit_cast<float>(bits | 1);
}

static uint32_t toBf16(float value) {
  const uint32_t bits = bitsOf(value);
  if (isNan(bits)) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static uint32_t toF16(float value) {
  const uint32_t bits = bitsOf(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (isNan(bits)) return 0x7fff;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (magnitude >= 0x38800000) {                     // normal: rebias by 112, keep 10 of 23 digits
    const uint32_t rebased = magnitude - (112u << 23);
    return sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13;
  }
  // Subnormal: adding 0.5 makes the fp32 adder round at 2^-24, to nearest even.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
  return sign | (bitsOf(shifted) - bitsOf(0.5f));
}

static float fromHalf(uint32_t half, bool isF16) {
  const uint16_t bits = uint16_t(half);
  float value;
  widen(&bits, &value, 1, isF16);
  return value;
}

static uint32_t multiply(uint32_t a, uint32_t b, bool isF16) {
  uint32_t result = 0;
  for (unsigned shift = 0; shift < 32; shift += 16) {
    const double product = double(fromHalf(a >> shift, isF16)) * fromHalf(b >> shift, isF16); // exact
    const float odd = roundToOdd(product);
    result |= (isF16 ? toF16(odd) : toBf16(odd)) << shift;
  }
  return result;
}

static float flushed(float value) {
  return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value;
}
static float canonical(float value) {
  return isNan(bitsOf(value)) ? std::bit_cast<float>(0x7fffffffu) : flushed(value);
}

} // namespace quern::sim

using namespace quern::sim;

uint32_t qsim_prmt(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  uint32_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> (4 * i) & 15;
    uint32_t byte = uint32_t(bytes >> (8 * (choice & 7))) & 0xff;
    if (choice & 8) byte = byte & 0x80 ? 0xff : 0; // the sign, replicated
    result |= byte << (8 * i);
  }
  return result;
}

uint32_t qsim_mul_bf16x2(uint32_t a, uint32_t b) { return multiply(a, b, false); }
uint32_t qsim_mul_f16x2(uint32_t a, uint32_t b) { return multiply(a, b, true); }

// An accumulator in flight must not be converted: the token would be lost in the rounding.
uint32_t qsim_cvt_bf16x2(float high, float low) {
  qsim_store_f32(high);
  qsim_store_f32(low);
  return toBf16(high) << 16 | toBf16(low);
}
uint32_t qsim_cvt_f16x2(float high, float low) {
  qsim_store_f32(high);
  qsim_store_f32(low);
  return toF16(high) << 16 | toF16(low);
}
float qsim_ex2(float x) {
  qsim_store_f32(x);
  return canonical(float(std::exp2(double(flushed(x)))));
}
float qsim_rcp(float x) {
  qsim_store_f32(x);
  return canonical(float(1.0 / double(flushed(x))));
}
