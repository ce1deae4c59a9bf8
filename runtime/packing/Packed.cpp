// Checks of a packed operand and its reference decode.
#include "runtime/packing/Packed.h"
#include "runtime/launch/FloatEnvironment.h"
#include "runtime/packing/Tiles.h"
#include <algorithm>
#include <bit>
#include <cstring>
#include <fmt/format.h>
#include <memory>

namespace quern {

using syntax::Codec;
using syntax::ScaleType;

Status checkPacked(const PackedView &view, std::string_view argument) {
  std::string place = fmt::format("argument '{}'", argument);
  auto fail = [&](std::string message) { return Status(Error::user(std::move(message), place)); };
  const WeightShape &s = view.shape;
  if (!view.codec) return Error::internal("a packed operand without codec", place);
  if (s.n < 1 || s.k < 1)
    return fail(fmt::format("a weight of N = {}, K = {}; expected at least one row and column", s.n, s.k));
  if (s.k % 2) return fail(fmt::format("K is {}; expected an even K (two codes per byte)", s.k));
  if (s.block < 32 || s.block > 4096 || !std::has_single_bit(uint64_t(s.block)))
    return fail(fmt::format("block size is {}; expected a power of two in 32..4096", s.block));
  int64_t elements;
  if (__builtin_mul_overflow(s.n, s.k, &elements) || elements > INT64_MAX / 8)
    return fail(fmt::format("a weight of N = {}, K = {}; expected fewer than 2^60 elements", s.n, s.k));
  if (view.experts < 1) return fail(fmt::format("{} experts; expected at least one", view.experts));
  if (!view.hasExpertDim && view.experts != 1)
    return fail(fmt::format("{} experts in an operand without expert dimension; expected one", view.experts));
  auto checkPointers = [&](const auto &pointers, const char *what) -> Status {
    if (int64_t(pointers.size()) != view.experts)
      return fail(fmt::format("{} {} arrays; expected one for each of {} experts", pointers.size(), what,
                              view.experts));
    auto null = std::find(pointers.begin(), pointers.end(), nullptr);
    if (null == pointers.end()) return {};
    return fail(fmt::format("expert {} has no {}", null - pointers.begin(), what));
  };
  if (Status ok = checkPointers(view.codes, "codes"); !ok) return ok;
  if (Status ok = checkPointers(view.scales, "scales"); !ok) return ok;
  if (view.codec->hasZero) return checkPointers(view.zeros, "zeros");
  if (!view.zeros.empty())
    return fail(fmt::format("{} zeros arrays; expected none: codec '{}' has no zero", view.zeros.size(),
                            view.codec->name));
  return {};
}

namespace {

float loadScale(ScaleType type, const void *scales, int64_t index) {
  switch (type) {
  case ScaleType::F32: return loadAs(DType::F32, scales, index);
  case ScaleType::BF16: return loadAs(DType::BF16, scales, index);
  case ScaleType::E8M0: return fromE8M0(static_cast<const uint8_t *>(scales)[index]);
  }
  return 0;
}

/// Decoded values of the 16 codes in one block, as `out` elements.
void decodeTable(const PackedView &view, int64_t e, int64_t block, DType out, void *values) {
  int64_t index = scaleIndex(view.shape, view.layout, block);
  float scale = loadScale(view.codec->scale, view.scales[e], index);
  for (int code = 0; code < 16; ++code) {
    float value = view.codec->table[code];
    if (view.codec->hasZero) value -= float(view.zeros[e][index]);
    value *= scale;
    storeAs(out, values, code, roundTo(view.dtype, value));
  }
}

/// Rows [row0, row0 + count) from bitsandbytes' bytes `rows`; T holds an element's bits.
template <class T>
void decodeRows(const PackedView &view, int64_t e, DType out, int64_t row0, int64_t count,
                const uint8_t *rows, T *data) {
  const WeightShape &s = view.shape;
  bool highFirst = view.codec->highFirst;
  int64_t element = row0 * s.k, end = (row0 + count) * s.k; // both even, as is every block's start
  while (element < end) {
    int64_t block = element / s.block, blockEnd = std::min((block + 1) * s.block, end);
    T values[16];
    decodeTable(view, e, block, out, values);
    for (; element < blockEnd; element += 2) {
      uint8_t byte = rows[(element - row0 * s.k) / 2];
      data[element] = values[highFirst ? byte >> 4 : byte & 15];
      data[element + 1] = values[highFirst ? byte & 15 : byte >> 4];
    }
  }
}

} // namespace

void decodeExpert(const PackedView &view, int64_t e, DType out, void *data) {
  FloatEnvironment mode; // subnormals are kept whatever the caller's mode
  const WeightShape &s = view.shape;
  constexpr int64_t panel = 64; // a multiple of every layout's panel
  auto rows = std::make_unique_for_overwrite<uint8_t[]>(std::min(panel, s.n) * s.k / 2);
  for (int64_t row0 = 0; row0 < s.n; row0 += panel) {
    int64_t count = std::min(panel, s.n - row0);
    readRows(view.codes[e], s, view.codec->highFirst, view.layout, row0, count, rows.get());
    if (out == DType::F32)
      decodeRows(view, e, out, row0, count, rows.get(), static_cast<uint32_t *>(data));
    else
      decodeRows(view, e, out, row0, count, rows.get(), static_cast<uint16_t *>(data));
  }
}

} // namespace quern
