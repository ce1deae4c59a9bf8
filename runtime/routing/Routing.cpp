// Stable counting sort of (token, choice) pairs by expert: count, prefix sum, place. O(T*k + E), no
// comparison.
#include "runtime/routing/Routing.h"
#include "runtime/launch/FloatEnvironment.h"
#include "runtime/launch/ParallelFor.h"
#include <algorithm>
#include <string>

namespace quern {
namespace {

/// Pairs are cut into chunks, each with its own counters; a chunk's counters start where the chunks before it
/// end, so the order is that of one stable sort whatever the number of chunks.
constexpr int64_t pairsPerChunk = 1 << 16;

struct Pairs {
  const void *ids;
  int64_t idStride0, idStride1;
  const void *weights;
  DType weightType;
  int64_t weightStride0, weightStride1;
  int64_t tokens, topK, experts;
};

/// Calls visit(pair, token, choice, expert) for the chunk's pairs in order; expert is -1 for a skipped one.
template <class Id, class Visit>
void forEachPair(const Pairs &p, int64_t token0, int64_t token1, Visit visit) {
  const Id *ids = static_cast<const Id *>(p.ids);
  for (int64_t t = token0; t < token1; ++t)
    for (int64_t c = 0; c < p.topK; ++c) {
      int64_t id = ids[t * p.idStride0 + c * p.idStride1];
      visit(t * p.topK + c, t, c, id >= 0 && id < p.experts ? id : -1);
    }
}

template <class Id> Routing sortPairs(const Pairs &p) {
  Routing routing;
  routing.tokens = p.tokens, routing.experts = p.experts, routing.topK = p.topK;
  int64_t rows = p.tokens * p.topK;
  routing.offsets.assign(p.experts + 1, 0);
  routing.rowToken.resize(rows);
  routing.rowWeight.resize(rows);
  routing.inverse.resize(rows);

  // Counters of all chunks together stay below the pairs' own size.
  int threads = numThreads();
  int64_t chunks = std::min({rows / pairsPerChunk, 4 * int64_t(threads), rows / (p.experts + 1)});
  chunks = threads > 1 ? std::max<int64_t>(chunks, 1) : 1;
  auto tokenOf = [&](int64_t chunk) { return p.tokens * chunk / chunks; };
  std::vector<int64_t> next(chunks * p.experts, 0);
  parallelFor(chunks, threads, [&](int64_t chunk, int) {
    int64_t *count = next.data() + chunk * p.experts;
    forEachPair<Id>(p, tokenOf(chunk), tokenOf(chunk + 1), [&](int64_t, int64_t, int64_t, int64_t e) {
      if (e >= 0) ++count[e];
    });
  });

  int64_t row = 0;
  for (int64_t e = 0; e < p.experts; ++e) {
    routing.offsets[e] = row;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      int64_t count = next[chunk * p.experts + e];
      next[chunk * p.experts + e] = row;
      row += count;
    }
  }
  routing.offsets[p.experts] = row;

  parallelFor(chunks, threads, [&](int64_t chunk, int) {
    int64_t *place = next.data() + chunk * p.experts;
    forEachPair<Id>(
        p, tokenOf(chunk), tokenOf(chunk + 1), [&](int64_t pair, int64_t t, int64_t c, int64_t e) {
          int64_t r = e < 0 ? -1 : place[e]++;
          routing.inverse[pair] = r;
          if (r < 0) return;
          routing.rowToken[r] = t;
          routing.rowWeight[r] =
              p.weights ? loadAs(p.weightType, p.weights, t * p.weightStride0 + c * p.weightStride1) : 1.0f;
        });
  });
  std::fill(routing.rowToken.begin() + row, routing.rowToken.end(), -1);
  std::fill(routing.rowWeight.begin() + row, routing.rowWeight.end(), 0.0f);
  return routing;
}

} // namespace

Routing routeFromIds(const void *ids, int idBytes, int64_t idStride0, int64_t idStride1, const void *weights,
                     DType weightType, int64_t weightStride0, int64_t weightStride1, int64_t tokens,
                     int64_t topK, int64_t experts) {
  Pairs pairs{ids,           idStride0,     idStride1, weights, weightType,
              weightStride0, weightStride1, tokens,    topK,    experts};
  return idBytes == 4 ? sortPairs<int32_t>(pairs) : sortPairs<int64_t>(pairs);
}

Expected<Routing> routeFromScores(const void *scores, DType type, int64_t stride0, int64_t stride1,
                                  int64_t tokens, int64_t experts, int64_t topK) {
  FloatEnvironment mode; // a subnormal score is not zero
  // The chosen experts of all tokens one after the other, then as [T, topK] with -1 where a token chose
  // fewer.
  std::vector<int64_t> chosen, count(tokens, 0);
  std::vector<float> value;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t e = 0; e < experts; ++e)
      if (float score = loadAs(type, scores, t * stride0 + e * stride1); !(score == 0)) {
        chosen.push_back(e), value.push_back(score);
        ++count[t];
      }
  auto most = std::max_element(count.begin(), count.end());
  if (topK <= 0) topK = tokens ? *most : 0;
  if (tokens && *most > topK)
    return Error::user("token " + std::to_string(most - count.begin()) + " has " + std::to_string(*most) +
                           " non-zero scores; expected at most top_k = " + std::to_string(topK),
                       "argument 'scores'");
  std::vector<int64_t> ids(tokens * topK, -1);
  std::vector<float> weights(tokens * topK, 0.0f);
  for (int64_t t = 0, i = 0; t < tokens; ++t)
    for (int64_t c = 0; c < count[t]; ++c, ++i)
      ids[t * topK + c] = chosen[i], weights[t * topK + c] = value[i];
  return routeFromIds(ids.data(), 8, topK, 1, weights.data(), DType::F32, topK, 1, tokens, topK, experts);
}

} // namespace quern
