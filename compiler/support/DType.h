// Element types of activations, biases and outputs, and their bit-exact conversions.
#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace quern {

enum class DType : uint8_t { F32 = 0, BF16 = 1, F16 = 2 };

constexpr int64_t byteSize(DType t) { return t == DType::F32 ? 4 : 2; }
constexpr std::string_view name(DType t) {
  return t == DType::F32 ? "f32" : t == DType::BF16 ? "bf16" : "f16";
}
/// "f32", "bf16", "f16"; anything else is nullopt.
std::optional<DType> parseDType(std::string_view text);

/// Round to nearest even; NaN stays NaN (quiet), overflow gives infinity. Subnormals are kept.
uint16_t toBF16(float value);
uint16_t toF16(float value);
inline float fromBF16(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }
float fromF16(uint16_t bits);

/// `value` rounded to `t` and back.
float roundTo(DType t, float value);
/// Element `index` of an array of `t`.
float loadAs(DType t, const void *data, int64_t index);
void storeAs(DType t, void *data, int64_t index, float value);

/// e8m0 (OCP Microscaling v1.0, 5.4.1): 2^(bits-127), 255 is NaN; 0 is the subnormal 2^-127.
float fromE8M0(uint8_t bits);

} // namespace quern
