// See CostModel.h.
#include "codegen/gpu/CostModel.h"
#include <algorithm>
#include <cmath>

namespace quern::gpu {
namespace {

constexpr Device devices[] = {{"h200", 132, 1.46, 4.3, 5.5}, {"h100", 132, 1.46, 3.0, 5.5}};

constexpr double tensorFlops = 4096, aluLanes = 64, issueLanes = 128, smemBytes = 128;
// Assumed: the part of a resource's clocks that the busiest one does not hide.
constexpr double exposed = 0.1;
// Assumed: a wgmma with A in registers takes at least this long, however narrow it is.
constexpr double narrowestWgmma = 16;
// Instructions per accumulator of the epilogue (bias, activation, conversion, address, store): counted in the
// SASS of gpt-oss gate_up, 14. Assumed: what starting a kernel and filling its first stages takes.
constexpr double epilogueInstructions = 14, startUs = 2;

int64_t divUp(int64_t value, int64_t by) { return (value + by - 1) / by; }

} // namespace

const Device *findDevice(std::string_view name) {
  auto found = std::ranges::find_if(devices, [&](const Device &d) { return d.name == name; });
  return found == std::end(devices) ? nullptr : found;
}

std::string deviceNames() {
  std::string names;
  for (const Device &d : devices) names += (names.empty() ? "" : ", ") + std::string(d.name);
  return names;
}

StepCounts decodeCounts(Decode decode) {
  // A thread decodes 32 codes of a step, 16 of each of two rows. Selecting 8 bf16 values from byte planes by
  // PRMT takes 22 to 25 ALU instructions and, in fast mode, 4 half2 products by the scale.
  constexpr double groups = 4, select = 23.5;
  if (decode == Decode::Fast) return {groups * select + 2, groups * 4, 0, 0}; // scales as pairs
  // Exact: of each row's 16 products a lane forms 4 (4 multiplications, 2 conversions to pairs, 2 PRMT to
  // byte planes) and gets the others by 6 shuffles; the codes of a group take one XOR.
  return {groups * (select + 1) + 2 * (2 + 2), 2 * 4, 2 * 6, 0};
}

double StepBudget::clocks() const {
  double most = std::max({tensor, alu, issue, smem, l2});
  return most + exposed * (tensor + alu + issue + smem + l2 - most);
}

std::string StepBudget::limiter() const {
  double most = std::max({tensor, alu, issue, smem, l2});
  return most == tensor ? "tensor"
         : most == alu  ? "alu"
         : most == smem ? "smem"
         : most == l2   ? "l2"
                        : "issue";
}

StepBudget stepBudget(const Schedule &s, int64_t n, const Device &device, const StepCounts &counts,
                      int64_t scalesPerStep) {
  StepBudget b;
  b.n = n;
  double consumers = s.consumers(), threads = 128 * consumers;
  // Four wgmma m64nNk16 of each consumer warpgroup.
  b.tensor = consumers * 4 * std::max(2.0 * 64 * n * 16 / tensorFlops, narrowestWgmma);
  b.alu = threads * counts.alu / aluLanes;
  b.issue = threads * (counts.alu + counts.fma + counts.shuffle + counts.other) / issueLanes;
  double tokens = n * 64 * 2, weights = s.bm * 32 + s.bm * scalesPerStep * 4;
  // Every consumer's wgmma reads all tokens; copies write the stage; consumers read codes and scales;
  // shuffles go the same way.
  b.smem = (consumers * tokens + (tokens + weights) + weights) / smemBytes + threads * counts.shuffle / 32;
  // A token tile is fetched once for a whole cluster.
  double l2BytesPerClock = device.l2TBs * 1e3 / device.clockGHz / device.sms;
  b.l2 = (tokens / s.cluster + weights) / l2BytesPerClock;
  return b;
}

int64_t tileWidth(const Schedule &s, int64_t rows) {
  int64_t tiles = divUp(rows, s.bn), even = divUp(rows, tiles);
  if (s.bn > 32) return std::min(divUp(even, 32) * 32, s.bn);
  int64_t width = 8;
  while (width < even) width *= 2;
  return width;
}

Prediction predict(const Schedule &s, const Workload &w, const Device &device, const StepCounts &counts) {
  Prediction p;
  int64_t n = tileWidth(s, w.rows), scalesPerStep = w.block < 64 ? 2 : 1;
  p.step = stepBudget(s, n, device, counts, scalesPerStep);
  p.tiles = w.experts * divUp(w.rows, s.bn) * divUp(w.n, s.bm);
  int64_t slots = std::max<int64_t>(device.sms * s.ctas / (s.split * s.cluster), 1) * s.cluster;
  p.rounds = divUp(p.tiles, slots);
  double steps = double(divUp(w.k, 64)) / s.split;
  double epilogue = s.consumers() * 128 * (n / 2.0) * epilogueInstructions / issueLanes;
  // The CTAs of a multiprocessor share its pipes: what one gains in latency the other loses in rate.
  double clocks = p.rounds * std::min<int64_t>(s.ctas, divUp(p.tiles * s.split, device.sms)) *
                  (steps * p.step.clocks() + epilogue);
  p.smUs = clocks / (device.clockGHz * 1e3) + startUs;
  double scales = double(w.n) * w.k / w.block * 4, outputs = double(w.rows) * w.n * w.outputBytes;
  double bytes = w.experts * (double(w.n) * w.k / 2 + scales + w.rows * double(w.k) * 2 + outputs);
  p.hbmUs = bytes / (device.hbmTBs * 1e6) + startUs;
  p.us = std::max(p.smUs, p.hbmUs);
  double flops = 2.0 * w.experts * w.rows * w.n * w.k;
  p.tflops = flops / p.us / 1e6, p.hbmTBs = bytes / p.us / 1e6;
  // With less than half of the CTAs at work in the last round on average, the shape is what limits.
  bool idle = double(p.tiles) / (p.rounds * slots) < 0.5;
  p.limiter = p.hbmUs >= p.smUs ? "hbm" : idle ? "too few tiles" : p.step.limiter();
  return p;
}

} // namespace quern::gpu
