// Sorting (token, choice) pairs by expert on the device: the stable counting sort of
// runtime/routing/Routing.h, with 32-bit indices. Pairs are cut into chunks of 2048, a chunk into 8 runs of
// 256, one for each warp, so the order of one stable sort is (chunk, warp, position). Counting needs no
// atomics: in each step of 32 pairs a warp finds the lanes with equal experts by ballots.
//
//   up to 2048 pairs:  route_small                                            one launch
//   more:              route_count, route_scan, route_place                   three launches
//   dense scores:      route_scores before either
//
// Common parameters. ids: int32 or int64 (idBytes) [tokens, topK] with strides in elements; ids outside
// 0..experts-1 are skipped. weights: any float dtype (weightType, quern::DType) [tokens, topK] with strides,
// or null: all ones. pairs = tokens * topK < 2^31; experts <= 1024. Outputs: offsets int32 [experts + 1];
// rowToken int32 [pairs], -1 beyond the live rows; rowWeight f32 [pairs], 0 beyond them; inverse int32
// [pairs], the row of a pair or -1.
#include "kernels/device.cuh"

namespace quern_device {
namespace {

constexpr int routeThreads = 256, routeWarps = routeThreads / 32, routeSteps = 8;
constexpr int routeChunk = routeThreads * routeSteps, routeExperts = 1024;
constexpr int routeColumns = routeExperts / routeThreads; // experts of one thread in a scan over experts

/// The experts of this lane's pairs of a chunk, and each pair's rank among the warp's earlier pairs of the
/// same expert.
struct RoutePairs {
  int expert[routeSteps]; // -1: skipped, or beyond the last pair
  int rank[routeSteps];
};

QUERN_DEVICE int routePair(int chunk, int step) {
  return chunk * routeChunk + warpIndex() * (32 * routeSteps) + step * 32 + laneIndex();
}

QUERN_DEVICE void routeLoad(RoutePairs &pairs, int chunk, const void *ids, int idBytes, int64 stride0,
                            int64 stride1, int count, int topK, int experts) {
#pragma unroll
  for (int step = 0; step < routeSteps; ++step) {
    int pair = routePair(chunk, step);
    int64 id = -1;
    if (pair < count) {
      int token = pair / topK, choice = pair - token * topK;
      int64 at = token * stride0 + choice * stride1;
      id = idBytes == 4 ? static_cast<const int *>(ids)[at] : static_cast<const int64 *>(ids)[at];
    }
    pairs.expert[step] = id >= 0 && id < experts ? int(id) : -1;
  }
}

/// Counts the chunk's pairs into counts[warp][expert] and sets the ranks. Ends with a block barrier.
QUERN_DEVICE void routeCountChunk(RoutePairs &pairs, int *counts, int experts) {
  for (int i = threadIndex(); i < routeWarps * experts; i += routeThreads) counts[i] = 0;
  syncBlock();
  int *mine = counts + warpIndex() * experts;
  int bits = 32 - leadingZeros(uint32(experts)); // enough for the skipped ones, which become `experts`
  uint32 below = (1u << laneIndex()) - 1;
#pragma unroll
  for (int step = 0; step < routeSteps; ++step) {
    int key = pairs.expert[step] < 0 ? experts : pairs.expert[step];
    uint32 peers = fullWarp;
    for (int bit = 0; bit < bits; ++bit) {
      bool set = key >> bit & 1;
      uint32 with = warpBallot(set);
      peers &= set ? with : ~with;
    }
    int before = key < experts ? mine[key] : 0;
    pairs.rank[step] = before + populationCount(peers & below);
    syncWarp(); // every peer has read the count before the first of them raises it
    if (key < experts && !(peers & below)) mine[key] = before + populationCount(peers);
    syncWarp();
  }
  syncBlock();
}

/// Exclusive prefix sums of a block's 256 values; `*total` is the sum of all. `sums`: shared, routeWarps
/// ints.
QUERN_DEVICE int routeBlockScan(int value, int *sums, int *total) {
  int inclusive = value;
  for (int delta = 1; delta < 32; delta *= 2) {
    int other = warpShuffleUp(inclusive, delta);
    if (laneIndex() >= delta) inclusive += other;
  }
  if (laneIndex() == 31) sums[warpIndex()] = inclusive;
  syncBlock();
  int base = 0, all = 0;
#pragma unroll
  for (int warp = 0; warp < routeWarps; ++warp) {
    base += warp < warpIndex() ? sums[warp] : 0;
    all += sums[warp];
  }
  syncBlock();
  *total = all;
  return base + inclusive - value;
}

/// Makes counts[warp][e] the first row of that warp's pairs of expert e. `chunkBase` [experts]: pairs of e in
/// earlier chunks, or null; `totals` [experts]: pairs of e in all chunks, or null: this chunk is all. Block 0
/// writes the offsets. Returns the number of live rows.
QUERN_DEVICE int routeRows(int *counts, int *sums, const int *chunkBase, const int *totals, int experts,
                           int *offsets) {
  int own[routeColumns], sum = 0, live;
#pragma unroll
  for (int i = 0; i < routeColumns; ++i) {
    int e = threadIndex() * routeColumns + i;
    own[i] = 0;
    if (e < experts) {
      if (totals)
        own[i] = totals[e];
      else
#pragma unroll
        for (int warp = 0; warp < routeWarps; ++warp) own[i] += counts[warp * experts + e];
    }
    sum += own[i];
  }
  int row = routeBlockScan(sum, sums, &live);
#pragma unroll
  for (int i = 0; i < routeColumns; ++i) {
    int e = threadIndex() * routeColumns + i;
    if (e >= experts) continue;
    if (blockIndex() == 0) offsets[e] = row;
    int at = row + (chunkBase ? chunkBase[e] : 0);
#pragma unroll
    for (int warp = 0; warp < routeWarps; ++warp) {
      int count = counts[warp * experts + e];
      counts[warp * experts + e] = at;
      at += count;
    }
    row += own[i];
  }
  if (blockIndex() == 0 && threadIndex() == 0) offsets[experts] = live;
  syncBlock();
  return live;
}

QUERN_DEVICE void routePlace(const RoutePairs &pairs, int chunk, const int *counts, int live,
                             const void *weights, int weightType, int64 stride0, int64 stride1, int count,
                             int topK, int experts, int *rowToken, float *rowWeight, int *inverse) {
  const int *mine = counts + warpIndex() * experts;
#pragma unroll
  for (int step = 0; step < routeSteps; ++step) {
    int pair = routePair(chunk, step), expert = pairs.expert[step];
    if (pair >= count) continue;
    int row = expert < 0 ? -1 : mine[expert] + pairs.rank[step];
    inverse[pair] = row;
    if (row >= 0) {
      int token = pair / topK, choice = pair - token * topK;
      rowToken[row] = token;
      rowWeight[row] = weights ? loadAs(weightType, weights, token * stride0 + choice * stride1) : 1.0f;
    }
    if (pair >= live) rowToken[pair] = -1, rowWeight[pair] = 0; // here `pair` is a row beyond the live ones
  }
}

} // namespace
} // namespace quern_device

using namespace quern_device;

/// The whole sort of at most 2048 pairs. One block of 256 threads.
extern "C" __global__ void __launch_bounds__(routeThreads)
    route_small(const void *ids, int idBytes, int64 idStride0, int64 idStride1, const void *weights,
                int weightType, int64 weightStride0, int64 weightStride1, int tokens, int topK, int experts,
                int *offsets, int *rowToken, float *rowWeight, int *inverse) {
  __shared__ int counts[routeWarps * routeExperts], sums[routeWarps];
  int count = tokens * topK;
  RoutePairs pairs;
  routeLoad(pairs, 0, ids, idBytes, idStride0, idStride1, count, topK, experts);
  routeCountChunk(pairs, counts, experts);
  int live = routeRows(counts, sums, nullptr, nullptr, experts, offsets);
  routePlace(pairs, 0, counts, live, weights, weightType, weightStride0, weightStride1, count, topK, experts,
             rowToken, rowWeight, inverse);
}

/// chunkCounts int32 [chunks, experts]: pairs of each expert in each chunk. One block of 256 threads per
/// chunk.
extern "C" __global__ void __launch_bounds__(routeThreads)
    route_count(const void *ids, int idBytes, int64 idStride0, int64 idStride1, int tokens, int topK,
                int experts, int *chunkCounts) {
  __shared__ int counts[routeWarps * routeExperts];
  RoutePairs pairs;
  routeLoad(pairs, blockIndex(), ids, idBytes, idStride0, idStride1, tokens * topK, topK, experts);
  routeCountChunk(pairs, counts, experts);
  int64 base = int64(blockIndex()) * experts;
  for (int e = threadIndex(); e < experts; e += routeThreads) {
    int sum = 0;
#pragma unroll
    for (int warp = 0; warp < routeWarps; ++warp) sum += counts[warp * experts + e];
    chunkCounts[base + e] = sum;
  }
}

/// Exclusive prefix sums of chunkCounts over the chunks, in place; totals int32 [experts]. One block of 256
/// threads (32 experts x 8 parts of the chunks) per 32 experts.
extern "C" __global__ void __launch_bounds__(routeThreads)
    route_scan(int *chunkCounts, int *totals, int chunks, int experts) {
  __shared__ int parts[routeWarps * 32];
  int expert = blockIndex() * 32 + laneIndex(), part = warpIndex();
  int first = int(int64(chunks) * part / routeWarps), last = int(int64(chunks) * (part + 1) / routeWarps);
  int sum = 0;
  if (expert < experts)
    for (int chunk = first; chunk < last; ++chunk) sum += chunkCounts[int64(chunk) * experts + expert];
  parts[part * 32 + laneIndex()] = sum;
  syncBlock();
  int at = 0;
  for (int before = 0; before < part; ++before) at += parts[before * 32 + laneIndex()];
  if (expert >= experts) return;
  for (int chunk = first; chunk < last; ++chunk) {
    int count = chunkCounts[int64(chunk) * experts + expert];
    chunkCounts[int64(chunk) * experts + expert] = at;
    at += count;
  }
  if (part == routeWarps - 1) totals[expert] = at;
}

/// Places the pairs, given route_scan's results. One block of 256 threads per chunk.
extern "C" __global__ void __launch_bounds__(routeThreads)
    route_place(const void *ids, int idBytes, int64 idStride0, int64 idStride1, const void *weights,
                int weightType, int64 weightStride0, int64 weightStride1, int tokens, int topK, int experts,
                const int *chunkBases, const int *totals, int *offsets, int *rowToken, float *rowWeight,
                int *inverse) {
  __shared__ int counts[routeWarps * routeExperts], sums[routeWarps];
  int count = tokens * topK, chunk = blockIndex();
  RoutePairs pairs;
  routeLoad(pairs, chunk, ids, idBytes, idStride0, idStride1, count, topK, experts);
  routeCountChunk(pairs, counts, experts);
  int live = routeRows(counts, sums, chunkBases + int64(chunk) * experts, totals, experts, offsets);
  routePlace(pairs, chunk, counts, live, weights, weightType, weightStride0, weightStride1, count, topK,
             experts, rowToken, rowWeight, inverse);
}

/// Dense scores [tokens, experts] (any float dtype, strided) to ids int32 [tokens, topK] and weights f32
/// [tokens, topK]: each token's non-zero scores (NaN included) in ascending expert order, -1 and 0 where it
/// has fewer. A token with more than topK cannot be reported without a host sync: its weights become NaN.
/// Blocks of 256 threads, one warp for each token in turn.
extern "C" __global__ void __launch_bounds__(routeThreads)
    route_scores(const void *scores, int type, int64 stride0, int64 stride1, int tokens, int experts,
                 int topK, int *ids, float *weights) {
  for (int token = blockIndex() * routeWarps + warpIndex(); token < tokens;
       token += gridSize() * routeWarps) {
    int64 out = int64(token) * topK;
    int chosen = 0;
    for (int first = 0; first < experts; first += 32) {
      int e = first + laneIndex();
      chosen += populationCount(
          warpBallot(e < experts && !(loadAs(type, scores, token * stride0 + e * stride1) == 0)));
    }
    float poison = asFloat(0x7fc00000u);
    int at = 0;
    for (int first = 0; first < experts; first += 32) {
      int e = first + laneIndex();
      float score = e < experts ? loadAs(type, scores, token * stride0 + e * stride1) : 0;
      uint32 nonZero = warpBallot(!(score == 0));
      int place = at + populationCount(nonZero & ((1u << laneIndex()) - 1));
      if (!(score == 0) && place < topK)
        ids[out + place] = e, weights[out + place] = chosen > topK ? poison : score;
      at += populationCount(nonZero);
    }
    for (int c = at + laneIndex(); c < topK; c += 32) ids[out + c] = -1, weights[out + c] = 0;
  }
}
