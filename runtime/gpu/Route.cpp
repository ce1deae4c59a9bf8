// Launches of kernels/routing.cu.
#include "runtime/gpu/DeviceCode.h"
#include "runtime/gpu/LaunchCall.h"
#include "runtime/gpu/Memory.h"
#include <fmt/format.h>

namespace quern::gpu {
namespace {

constexpr int64_t chunkPairs = 2048; // routeChunk of kernels/routing.cu
constexpr unsigned threads = 256;

Status check(int64_t tokens, int64_t topK, int64_t experts) {
  if (experts > maxExperts)
    return Error::user(fmt::format("{} experts; expected at most {} on a GPU", experts, maxExperts),
                       "routing");
  if (tokens < 0 || topK < 0 || experts < 0 || (topK && tokens > (INT32_MAX - chunkPairs) / topK))
    return Error::user(
        fmt::format("{} tokens with top_k {} and {} experts; expected fewer than 2^31 pairs on a GPU", tokens,
                    topK, experts),
        "routing");
  return {};
}

void readsMatrix(LaunchCall &call, const char *name, const void *data, int64_t width, int64_t rows,
                 int64_t columns, const int64_t (&strides)[2]) {
  Span span = spanOf({rows, columns}, {strides[0], strides[1]});
  if (data) call.reads(name, static_cast<const char *>(data) + span.lowest * width, span.count * width);
}

void readsPairs(LaunchCall &call, const RouteIds &s) {
  readsMatrix(call, "ids", s.ids, s.idBytes, s.tokens, s.topK, s.idStrides);
  readsMatrix(call, "weights", s.weights, byteSize(s.weightType), s.tokens, s.topK, s.weightStrides);
}

void writesRouting(LaunchCall &call, const DeviceRouting &out, int64_t pairs, int64_t experts) {
  call.writes("offsets", out.offsets, (experts + 1) * 4);
  call.writes("rowToken", out.rowToken, pairs * 4);
  call.writes("rowWeight", out.rowWeight, pairs * 4);
  call.writes("inverse", out.inverse, pairs * 4);
}

} // namespace

Status routeFromIds(Backend &backend, Stream stream, const RouteIds &s, const DeviceRouting &out) {
  if (Status ok = check(s.tokens, s.topK, s.experts); !ok) return ok;
  int64_t pairs = s.tokens * s.topK, chunks = (pairs + chunkPairs - 1) / chunkPairs;
  int tokens = int(s.tokens), topK = int(s.topK), experts = int(s.experts);
  if (chunks <= 1) {
    LaunchCall call{backend, stream};
    readsPairs(call, s);
    writesRouting(call, out, pairs, s.experts);
    return call("route_small", 1, threads, s.ids, s.idBytes, s.idStrides[0], s.idStrides[1], s.weights,
                int(s.weightType), s.weightStrides[0], s.weightStrides[1], tokens, topK, experts, out.offsets,
                out.rowToken, out.rowWeight, out.inverse);
  }
  auto counts = DeviceMemory::allocate(backend, (chunks + 1) * s.experts * 4, stream);
  if (!counts) return counts.takeError();
  auto *chunkCounts = static_cast<int32_t *>(counts->data()), *totals = chunkCounts + chunks * s.experts;
  LaunchCall count{backend, stream};
  readsPairs(count, s);
  count.writes("chunkCounts", chunkCounts, chunks * s.experts * 4);
  if (Status ok = count("route_count", unsigned(chunks), threads, s.ids, s.idBytes, s.idStrides[0],
                        s.idStrides[1], tokens, topK, experts, chunkCounts);
      !ok)
    return ok;
  if (s.experts) {
    LaunchCall scan{backend, stream};
    scan.writes("chunkCounts", chunkCounts, counts->bytes());
    if (Status ok = scan("route_scan", unsigned((s.experts + 31) / 32), threads, chunkCounts, totals,
                         int(chunks), experts);
        !ok)
      return ok;
  }
  LaunchCall place{backend, stream};
  readsPairs(place, s);
  place.reads("chunkBases", chunkCounts, counts->bytes());
  writesRouting(place, out, pairs, s.experts);
  return place("route_place", unsigned(chunks), threads, s.ids, s.idBytes, s.idStrides[0], s.idStrides[1],
               s.weights, int(s.weightType), s.weightStrides[0], s.weightStrides[1], tokens, topK, experts,
               static_cast<const int32_t *>(chunkCounts), static_cast<const int32_t *>(totals), out.offsets,
               out.rowToken, out.rowWeight, out.inverse);
}

Status routeFromScores(Backend &backend, Stream stream, const RouteScores &s, const DeviceRouting &out) {
  if (s.topK < 1) return Error::user("dense scores need top_k on a GPU", "argument 'scores'");
  if (Status ok = check(s.tokens, s.topK, s.experts); !ok) return ok;
  int64_t pairs = s.tokens * s.topK;
  auto memory = DeviceMemory::allocate(backend, pairs * 8, stream);
  if (!memory) return memory.takeError();
  auto *ids = static_cast<int32_t *>(memory->data());
  auto *weights = reinterpret_cast<float *>(ids + pairs);
  if (s.tokens) {
    LaunchCall call{backend, stream};
    readsMatrix(call, "scores", s.scores, byteSize(s.type), s.tokens, s.experts, s.strides);
    call.writes("pairs", ids, pairs * 8);
    if (Status ok =
            call("route_scores", call.gridFor((s.tokens + 7) / 8), threads, s.scores, int(s.type),
                 s.strides[0], s.strides[1], int(s.tokens), int(s.experts), int(s.topK), ids, weights);
        !ok)
      return ok;
  }
  return routeFromIds(backend, stream,
                      {ids, 4, {s.topK, 1}, weights, DType::F32, {s.topK, 1}, s.tokens, s.topK, s.experts},
                      out);
}

} // namespace quern::gpu
