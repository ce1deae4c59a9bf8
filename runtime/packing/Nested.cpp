// bitsandbytes' nested ("double quantized") absmax: expanded once, folded back to the same bytes.
#include "runtime/launch/FloatEnvironment.h"
#include "runtime/packing/Packed.h"
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

// Two roundings are the format's definition: the compiler may not fuse the multiply with the add.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace quern {
namespace {

float expandOne(float code, float absmax2, float offset) {
  float product = code * absmax2;
  return product + offset;
}

/// Bits that identify a value. All NaNs are one: which operand's payload survives is up to the compiler.
uint32_t keyOf(float value) { return std::isnan(value) ? 0x7fc00000u : std::bit_cast<uint32_t>(value); }

/// From an expanded value back to the lowest code that gives it, for one value of absmax2.
class Inverse {
  std::array<uint64_t, 256> entries; // key << 8 | code, ascending

public:
  Inverse(const float code2[256], float absmax2, float offset) {
    for (uint64_t q = 0; q < 256; ++q)
      entries[q] = uint64_t(keyOf(expandOne(code2[q], absmax2, offset))) << 8 | q;
    if (!std::is_sorted(entries.begin(), entries.end())) std::sort(entries.begin(), entries.end());
  }
  uint8_t operator()(float value) const {
    uint64_t key = keyOf(value);
    auto at = std::lower_bound(entries.begin(), entries.end(), key << 8);
    return at != entries.end() && *at >> 8 == key ? uint8_t(*at) : 0;
  }
};

/// Calls visit(i, code) with the lowest code that gives absmax[i] (0 where none does).
template <class Visit>
void forEachFolded(const float *absmax, int64_t count, const float code2[256], const float *absmax2,
                   int64_t block2, float offset, Visit visit) {
  FloatEnvironment mode;
  for (int64_t begin = 0; begin < count; begin += block2) {
    Inverse inverse(code2, absmax2[begin / block2], offset);
    for (int64_t i = begin, end = std::min(begin + block2, count); i < end; ++i) visit(i, inverse(absmax[i]));
  }
}

} // namespace

void expandNested(const uint8_t *q, int64_t count, const float code2[256], const float *absmax2,
                  int64_t block2, float offset, float *absmax) {
  FloatEnvironment mode;
  for (int64_t begin = 0; begin < count; begin += block2) {
    float scale = absmax2[begin / block2];
    for (int64_t i = begin, end = std::min(begin + block2, count); i < end; ++i)
      absmax[i] = expandOne(code2[q[i]], scale, offset);
  }
}

std::vector<NestedException> findNestedExceptions(const uint8_t *q, const float *absmax, int64_t count,
                                                  const float code2[256], const float *absmax2,
                                                  int64_t block2, float offset) {
  std::vector<NestedException> exceptions;
  forEachFolded(absmax, count, code2, absmax2, block2, offset, [&](int64_t i, uint8_t code) {
    if (code != q[i]) exceptions.push_back({i, q[i]});
  });
  return exceptions;
}

void foldNested(const float *absmax, int64_t count, const float code2[256], const float *absmax2,
                int64_t block2, float offset, const std::vector<NestedException> &exceptions, uint8_t *q) {
  forEachFolded(absmax, count, code2, absmax2, block2, offset, [&](int64_t i, uint8_t code) { q[i] = code; });
  for (const NestedException &e : exceptions) q[e.index] = e.code;
}

} // namespace quern
