// Sorting (token, choice) pairs by expert: one stable counting sort. Rows of a routing are these pairs in
// expert order.
#pragma once
#include "compiler/support/DType.h"
#include "compiler/support/Error.h"
#include <cstdint>
#include <string_view>
#include <vector>

namespace quern {

/// R = tokens * topK rows are allocated; the live ones are [0, offsets[experts]). Rows beyond are never read
/// and have rowToken -1.
struct Routing {
  int64_t tokens = 0, experts = 0, topK = 0;
  std::vector<int64_t> offsets;  // [E + 1]: rows of expert e are [offsets[e], offsets[e+1])
  std::vector<int64_t> rowToken; // [R]: token of a row, -1 beyond the live rows
  std::vector<float> rowWeight;  // [R]: routing weight of a row, 0 beyond the live rows
  std::vector<int64_t> inverse;  // [T * topK]: row of the pair (t, c) at t * topK + c, -1 when it was skipped
  int64_t rows() const { return tokens * topK; }
  int64_t liveRows() const { return offsets.empty() ? 0 : offsets.back(); }
};

/// ids[T, topK] (strided, int32 or int64) and weights[T, topK] (strided, any float dtype; null: all ones).
/// Ids outside 0..experts-1 are skipped (contribute nothing). Within an expert rows keep (t, c) order. NaN
/// weights pass through.
Routing routeFromIds(const void *ids, int idBytes, int64_t idStride0, int64_t idStride1, const void *weights,
                     DType weightType, int64_t weightStride0, int64_t weightStride1, int64_t tokens,
                     int64_t topK, int64_t experts);

/// scores[T, E] dense: non-zero (NaN included) means chosen, with that weight. topK becomes the largest count
/// of any token (choices of a token in ascending expert order); pass topK > 0 to fix it: more non-zeros than
/// that in one token is a user error.
Expected<Routing> routeFromScores(const void *scores, DType type, int64_t stride0, int64_t stride1,
                                  int64_t tokens, int64_t experts, int64_t topK);

} // namespace quern
