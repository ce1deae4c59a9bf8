// Each check stops at the first fault and says what was found and what was expected.
#include "runtime/launch/ArgumentChecks.h"
#include "runtime/launch/DimSolver.h"
#include <bit>
#include <fmt/format.h>

namespace quern {

using syntax::Codec;
using syntax::ScaleType;

namespace {

std::string_view scaleName(ScaleType type) {
  return type == ScaleType::F32 ? "f32" : type == ScaleType::BF16 ? "bf16" : "e8m0";
}

} // namespace

std::string codecDifference(const Codec &found, const Codec &expected) {
  auto order = [](const Codec &c) { return c.highFirst ? "high" : "low"; };
  for (int i = 0; i < 16; ++i)
    if (std::bit_cast<uint32_t>(found.table[i]) != std::bit_cast<uint32_t>(expected.table[i]))
      return fmt::format("table[{}] is {}; expected {}", i, found.table[i], expected.table[i]);
  if (found.highFirst != expected.highFirst)
    return fmt::format("its first nibble is {}; expected {}", order(found), order(expected));
  if (found.scale != expected.scale)
    return fmt::format("its scales are {}; expected {}", scaleName(found.scale), scaleName(expected.scale));
  if (found.hasZero != expected.hasZero)
    return found.hasZero ? "it has zeros; expected none" : "it has no zeros; expected one u4 zero per block";
  return "";
}

Status checkRouting(const RoutingView &r, std::string_view argument) {
  auto fail = [&](std::string message) {
    return Status(Error::user(std::move(message), argumentPlace(argument)));
  };
  int64_t rows = 0;
  if (r.tokens < 0 || r.experts < 0 || r.topK < 0 || __builtin_mul_overflow(r.tokens, r.topK, &rows))
    return fail(fmt::format("{} tokens, {} experts, top_k {}; expected a routing that fits in memory",
                            r.tokens, r.experts, r.topK));
  if (r.onDevice()) return {}; // its contents come from the device's own sort and cannot be read here
  if (!r.offsets || (rows && (!r.rowToken || !r.rowWeight))) return fail("a routing without data");
  if (r.offsets[0] != 0) return fail(fmt::format("offsets[0] is {}; expected 0", r.offsets[0]));
  for (int64_t e = 0; e < r.experts; ++e)
    if (r.offsets[e + 1] < r.offsets[e] || r.offsets[e + 1] > rows)
      return fail(fmt::format("offsets[{}] is {}; expected {} (the one before) to {} (T * top_k)", e + 1,
                              r.offsets[e + 1], r.offsets[e], rows));
  for (int64_t row = 0; row < r.offsets[r.experts]; ++row)
    if (r.rowToken[row] < 0 || r.rowToken[row] >= r.tokens)
      return fail(fmt::format("row_token[{}] is {}; expected 0 to {}", row, r.rowToken[row], r.tokens - 1));
  return {};
}

} // namespace quern
