// What the emulator's tests share: tile shapes, run-time tile numbers for the intrinsics, the plain model of
// tdpbf16ps, seeds.
#pragma once
#include "AmxEmulator.h"
#include <array>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstring>
#include <gtest/gtest.h>
#include <immintrin.h>
#include <random>
#include <utility>
#include <vector>

namespace quern::amxtest {

/// True when this CPU executes AMX itself: values are still compared (the model meets the hardware), counts
/// and faults are not.
extern bool nativeHardware;

#define QUERN_NEEDS_EMULATION()                                                                              \
  if (amxtest::nativeHardware) GTEST_SKIP() << "this CPU runs AMX natively: nothing traps into the emulator"

/// The 64 bytes of ldtilecfg.
struct TileConfig {
  alignas(64) uint8_t bytes[64] = {1};
  TileConfig &tile(int t, int rows, int colsb) {
    bytes[16 + 2 * t] = static_cast<uint8_t>(colsb);
    bytes[17 + 2 * t] = static_cast<uint8_t>(colsb >> 8);
    bytes[48 + t] = static_cast<uint8_t>(rows);
    return *this;
  }
  TileConfig &all(int rows, int colsb) {
    for (int t = 0; t < 8; ++t) tile(t, rows, colsb);
    return *this;
  }
  const TileConfig &apply() const { return _tile_loadconfig(bytes), *this; }
};

// Tile numbers are immediates; these tables make them run-time values.
template <int T> void loadTile(const void *p, size_t stride) { _tile_loadd(T, p, stride); }
template <int T> void streamTile(const void *p, size_t stride) { _tile_stream_loadd(T, p, stride); }
template <int T> void storeTile(void *p, size_t stride) { _tile_stored(T, p, stride); }
template <int T> void zeroTile() { _tile_zero(T); }
template <int I> void dotTiles() {
  constexpr int c = I / 64, a = I / 8 % 8, b = I % 8;
  if constexpr (c != a && c != b && a != b) _tile_dpbf16ps(c, a, b);
}
template <int... I> constexpr auto dotTable(std::integer_sequence<int, I...>) {
  return std::array{&dotTiles<I>...};
}
template <int... T> constexpr auto loadTable(std::integer_sequence<int, T...>) {
  return std::array{&loadTile<T>...};
}
template <int... T> constexpr auto streamTable(std::integer_sequence<int, T...>) {
  return std::array{&streamTile<T>...};
}
template <int... T> constexpr auto storeTable(std::integer_sequence<int, T...>) {
  return std::array{&storeTile<T>...};
}
template <int... T> constexpr auto zeroTable(std::integer_sequence<int, T...>) {
  return std::array{&zeroTile<T>...};
}
using EightTiles = std::make_integer_sequence<int, 8>;
inline constexpr auto loads = loadTable(EightTiles()), streams = streamTable(EightTiles());
inline constexpr auto stores = storeTable(EightTiles());
inline constexpr auto zeros = zeroTable(EightTiles());
inline constexpr auto dots = dotTable(std::make_integer_sequence<int, 512>()); // [c * 64 + a * 8 + b]

/// fp32 a * b + c, rounded once to nearest even, denormals flushed on input and output. No FMA: the product
/// of two bf16 or of an fp32 and 1 is exact in fp64, the fp64 sum is made "round to odd" from its exact
/// error, so rounding it again to fp32 is right.
inline float modelFma(float a, float b, float c) {
  auto daz = [](float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; };
  a = daz(a), b = daz(b), c = daz(c);
  const double product = static_cast<double>(a) * b, addend = c;
  double sum = product + addend;
  if (!std::isfinite(product) || !std::isfinite(c)) return static_cast<float>(sum);
  const double t = sum - product, error = (product - (sum - t)) + (addend - t);
  if (error != 0 && !(std::bit_cast<uint64_t>(sum) & 1))
    sum = std::nextafter(sum, error > 0 ? std::numeric_limits<double>::infinity()
                                        : -std::numeric_limits<double>::infinity());
  if (std::fabs(sum) >= 0x1p-100) return static_cast<float>(sum);
  const float scaled = static_cast<float>(sum * 0x1p100); // 24 bits with an unbounded exponent
  return std::fabs(scaled) < 0x1p-26f ? std::copysign(0.0f, scaled) : static_cast<float>(scaled * 0x1p-100);
}

inline float fromBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

/// C[rows][cols] += A[rows][2 pairs] B[pairs][cols][2], one element after the other, as the SDM's pseudo code
/// sums it.
inline void modelDot(std::vector<float> &c, const std::vector<uint16_t> &a, const std::vector<uint16_t> &b,
                     int rows, int pairs, int cols) {
  for (int n = 0; n < cols; ++n)
    for (int m = 0; m < rows; ++m) {
      float part[2] = {0, 0};
      for (int i = 0; i < 2; ++i)
        for (int k = 0; k < pairs; ++k)
          part[i] =
              modelFma(fromBf16(a[m * 2 * pairs + 2 * k + i]), fromBf16(b[(k * cols + n) * 2 + i]), part[i]);
      float &out = c[m * cols + n];
      out = modelFma(out, 1, modelFma(part[0], 1, part[1]));
    }
}

/// Bitwise equal, or both NaN: the SDM does not name the payload.
inline bool sameFloat(float x, float y) {
  return (std::isnan(x) && std::isnan(y)) || std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
}

/// A fresh seed each run, printed when the test fails; QUERN_TEST_SEED repeats a run.
inline unsigned testSeed() {
  const char *given = std::getenv("QUERN_TEST_SEED");
  return given ? static_cast<unsigned>(std::strtoul(given, nullptr, 0)) : std::random_device()();
}

inline std::vector<uint8_t> randomBytes(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(n);
  for (auto &b : bytes) b = static_cast<uint8_t>(random());
  return bytes;
}

/// The SIGILL handler that was there before the emulator: it notes the address and steps over `skipBytes`.
struct OldHandler {
  volatile uint64_t calls = 0, rip = 0;
  volatile int code = 0;
  volatile int skipBytes = 2; // ud2
};
extern OldHandler oldHandler;
void onOldSigill(int signal, siginfo_t *info, void *context);

} // namespace quern::amxtest
