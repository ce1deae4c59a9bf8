// Scalar conversions written with integers, so that they are the same on every machine and in every rounding
// mode.
#include "compiler/support/DType.h"
#include <cstring>

namespace quern {

std::optional<DType> parseDType(std::string_view text) {
  for (DType t : {DType::F32, DType::BF16, DType::F16})
    if (text == name(t)) return t;
  return std::nullopt;
}

uint16_t toBF16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t toF16(float value) { // _Float16 conversions round to nearest even on every x86-64 compiler in use
  return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
}

float fromF16(uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }

float roundTo(DType t, float value) {
  if (t == DType::BF16) return fromBF16(toBF16(value));
  if (t == DType::F16) return fromF16(toF16(value));
  return value;
}

float loadAs(DType t, const void *data, int64_t index) {
  if (t == DType::F32) return static_cast<const float *>(data)[index];
  uint16_t bits = static_cast<const uint16_t *>(data)[index];
  return t == DType::BF16 ? fromBF16(bits) : fromF16(bits);
}

void storeAs(DType t, void *data, int64_t index, float value) {
  if (t == DType::F32)
    static_cast<float *>(data)[index] = value;
  else
    static_cast<uint16_t *>(data)[index] = t == DType::BF16 ? toBF16(value) : toF16(value);
}

float fromE8M0(uint8_t bits) {
  if (bits == 255) return std::bit_cast<float>(0x7fc00000u);
  if (bits == 0) return std::bit_cast<float>(0x00400000u);
  return std::bit_cast<float>(uint32_t(bits) << 23);
}

} // namespace quern
