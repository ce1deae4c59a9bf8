// See CostModel.h. What is marked fitted was chosen so that the rows of "Calibration of the cost model" in
// benchmarks/NOTES.md come out; each constant has the rows that determine it.
#include "codegen/gpu/CostModel.h"
#include <algorithm>
#include <cmath>

namespace quern::gpu {
namespace {

// Clock, fitted: with the decode replaced by an XOR, so that only the tensor cores bind, gate_up took 757 us,
// of which 1260 steps of 844 tensor clocks are 670. L2, fitted: at the tensor rate that run moved up to 8.5
// TB/s to the multiprocessors (neighbours read the same tokens at the same time), and cluster=2 was no
// faster: a lower bound.
constexpr Device devices[] = {{"h200", 132, 1.65, 4.3, 8.5}, {"h100", 132, 1.65, 3.0, 8.5}};

constexpr double tensorFlops = 4096, aluLanes = 64, issueLanes = 128, smemBytes = 128;
// Assumed: a wgmma with A in registers takes at least this long, however narrow it is.
constexpr double narrowestWgmma = 16;
// Clocks of a step that its CTA cannot hide: the wait at the seam between steps, the first decode. Fitted:
// PRMT decode by gate_up at 32, 128 and 512 rows, `pairs`, whose chain is shorter, at 1 to 32 rows.
constexpr double seamClocks = 250, pairsSeamClocks = 150;
// Assumed, not measured: nothing is decoded, a read of shared memory and a barrier are left. Between the fit
// for the XOR above (80) and `pairs`.
constexpr double aheadSeamClocks = 100;
// Launch of the kernel that decodes ahead. Assumed, as for the one that gathers.
constexpr double decodeStartUs = 2;
// Clocks that a gathering producer adds to a step per token. Fitted: 510 instead of 584 TFLOP/s.
constexpr double gatherClocks = 0.7;
// Instructions per accumulator of the epilogue (bias, activation, conversion, address, store): counted in the
// SASS of gpt-oss gate_up.
constexpr double epilogueInstructions = 14;
// Launch, table of tiles, first stages, the end of the last CTA, and the write-back of what the timing left
// dirty in L2. Fitted: one token takes 32 us, of which 45 steps explain 24.
constexpr double startUs = 10;
// A CTA of a split that hands its sums over, with a cluster barrier. Fitted: one token by split=2 and 4 took
// as long as, and 20 us more than, without.
constexpr double exchangeUs = 2;

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
  // Counted in the SASS of gate_up of gpt-oss. A thread decodes 32 codes of a step, 16 of each of two rows:
  // `fast` and `exact` in 4 groups of 8 with 22 ALU instructions each (PRMT, LOP3, SHF). For `exact` half of
  // what a thread of the producer does for its row is added: 16 products, their rounding and packing. `pairs`
  // looks 16 pairs up in shared memory. Other: uniform instructions, barriers, addresses, loads.
  switch (decode) {
  case Decode::Fast: return {93, 58, 0, 46};
  case Decode::Exact: return {100, 20, 0, 66};
  case Decode::Pairs: return {21, 56, 0, 60};
  // Four 16-byte loads; the rest is what every loop has.
  case Decode::Ahead: return {12, 0, 0, 57};
  }
  return {};
}

double StepBudget::most() const { return std::max({tensor, alu, issue, smem, l2}); }
double StepBudget::clocks() const { return most() + seam; }

std::string StepBudget::limiter() const {
  double busiest = most();
  return busiest == tensor ? "tensor"
         : busiest == alu  ? "alu"
         : busiest == smem ? "smem"
         : busiest == l2   ? "l2"
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
  double scales = s.decode == Decode::Ahead ? 0 : double(s.bm * scalesPerStep * 4);
  double tokens = n * 64 * 2, weights = double(s.weightBytes()) + scales;
  // Every consumer's wgmma reads all tokens; copies write the stage; consumers read weights and scales. For
  // `pairs` 8 bytes for two codes more; for `exact` the tables are written once and read by four 16-byte
  // loads of a thread, a quarter of a warp at a time. Shuffles go the same way.
  double lookups = s.decode == Decode::Pairs   ? threads * 16 * 8
                   : s.decode == Decode::Exact ? threads * 4 * 16 + s.bm * scalesPerStep * 32.0
                                               : 0;
  b.smem = (consumers * tokens + (tokens + weights) + weights + lookups) / smemBytes +
           threads * counts.shuffle / 32;
  // A token tile is fetched once for a whole cluster.
  double l2BytesPerClock = device.l2TBs * 1e3 / device.clockGHz / device.sms;
  b.l2 = (tokens / s.cluster + weights) / l2BytesPerClock;
  b.seam = (s.decode == Decode::Pairs   ? pairsSeamClocks
            : s.decode == Decode::Ahead ? aheadSeamClocks
                                        : seamClocks) +
           (s.gather == Gather::Fused ? gatherClocks * n : 0);
  return b;
}

double decodedBytes(const Schedule &s, const Workload &w) {
  if (s.decode != Decode::Ahead) return 0;
  return double(w.experts) * double(divUp(w.n, s.bm) * s.bm) * double(divUp(w.k, 64) * 64) * 2;
}

std::vector<ExpertTiles> tilesOf(const Schedule &s, int64_t rows) {
  auto width = [&](int64_t part) {
    if (s.bn > 32) return divUp(part, 32) * 32;
    int64_t width = 8;
    while (width < part) width *= 2;
    return width;
  };
  int64_t count = divUp(rows, s.bn), step = std::min<int64_t>(16, s.bn);
  int64_t part = divUp(divUp(rows, count), step) * step;
  // Rounding up can leave nothing for the last tile.
  int64_t whole = std::min(count, rows / part), rest = rows - whole * part;
  std::vector<ExpertTiles> tiles;
  if (whole) tiles.push_back({width(part), whole});
  if (rest) tiles.push_back({width(rest), 1});
  return tiles;
}

int64_t tileWidth(const Schedule &s, int64_t rows) { return tilesOf(s, rows).front().width; }

Prediction predict(const Schedule &s, const Workload &w, const Device &device,
                   const std::function<StepCounts(int64_t)> &countsOf) {
  Prediction p;
  double steps = double(divUp(w.k, 64)) / s.split;
  int64_t active = 1; // CTAs at work on one multiprocessor
  auto tileClocks = [&](const StepBudget &b) {
    double epilogue = s.consumers() * 128 * (b.n / 2.0) * epilogueInstructions / issueLanes;
    // The CTAs of a multiprocessor share its pipes and hide each other's latency.
    return steps * (active * b.most() + b.seam) + active * epilogue;
  };
  // Two kinds of experts, below and above the mean.
  int64_t uneven = w.experts > 1 ? std::lround(std::sqrt(double(w.rows)) * w.spread) : 0;
  struct Part {
    StepBudget step;
    int64_t tiles;
  };
  std::vector<Part> parts;
  int64_t weightTiles = divUp(divUp(w.n, s.bm), s.cluster) * s.cluster;
  auto add = [&](int64_t experts, int64_t rows) {
    for (ExpertTiles t : tilesOf(s, rows)) {
      StepBudget step = stepBudget(s, t.width, device, countsOf(t.width), w.block < 64 ? 2 : 1);
      parts.push_back({step, experts * t.count * weightTiles});
      p.tiles += parts.back().tiles;
    }
  };
  add(w.experts - w.experts / 2, std::max<int64_t>(w.rows - uneven, 1));
  if (w.experts > 1) add(w.experts / 2, w.rows + uneven);
  int64_t slots = std::max<int64_t>(device.sms * s.ctas / (s.split * s.cluster), 1) * s.cluster;
  p.rounds = divUp(p.tiles, slots);
  active = std::min<int64_t>(s.ctas, divUp(p.tiles * s.split, device.sms));
  // CTAs walk all tiles, so each has its share of every kind.
  double all = 0, longest = -1;
  for (const Part &part : parts) {
    double clocks = double(part.tiles) * tileClocks(part.step);
    all += clocks;
    if (clocks > longest) longest = clocks, p.step = part.step;
  }
  double clocks = double(p.rounds) * all / double(p.tiles);
  // Stores come at the end of a tile, in waves, and hide behind nothing: down, which stores 4 bytes where
  // gate_up stores 1, takes longer by just that.
  double stores = double(w.experts) * double(w.rows) * double(w.n) * w.outputBytes;
  p.smUs = clocks / (device.clockGHz * 1e3) + double(p.rounds * (s.split - 1)) * exchangeUs +
           stores / (device.hbmTBs * 1e6) + startUs;
  double packed = w.experts * (double(w.n) * w.k / 2 + double(w.n) * w.k / w.block * 4);
  double decoded = decodedBytes(s, w), inputs = double(w.experts) * double(w.rows) * w.k * 2;
  double bytes = (decoded ? decoded : packed) + inputs + stores;
  p.hbmUs = bytes / (device.hbmTBs * 1e6) + startUs;
  if (decoded) p.decodeUs = (packed + decoded) / (device.hbmTBs * 1e6) + decodeStartUs;
  p.us = std::max(p.smUs, p.hbmUs) + p.decodeUs;
  double flops = 2.0 * w.experts * w.rows * w.n * w.k;
  p.tflops = flops / p.us / 1e6, p.hbmTBs = bytes / p.us / 1e6;
  // With less than half of the CTAs at work in the last round on average, the shape is what limits.
  bool idle = double(p.tiles) / (p.rounds * slots) < 0.5;
  p.limiter = p.hbmUs >= p.smUs ? "hbm" : idle ? "too few tiles" : p.step.limiter();
  return p;
}

Prediction predict(const Schedule &s, const Workload &w, const Device &device, const StepCounts &counts) {
  return predict(s, w, device, [&](int64_t) { return counts; });
}

} // namespace quern::gpu
