// What a schedule should cost on Hopper: the budget of one step of 64 columns on one multiprocessor, and from
// it the time of a grouped matmul. A model to rank schedules by and to compare measurements with. Counts come
// from SASS, rates from NVIDIA's documents; the few constants that were fitted to measured times stand in
// CostModel.cpp with the measurement each one comes from, and benchmarks/NOTES.md has the whole table
// ("Calibration of the cost model").
#pragma once
#include "codegen/gpu/Schedule.h"
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace quern::gpu {

/// Rates of a device. Tensor: 4096 dense bf16 flops per clock and SM (H100 data sheet: 989 TFLOP/s, 132 SMs,
/// 1.83 GHz). ALU (PRMT, LOP3, SHF, IADD3, F2FP): 64 lanes per clock and SM; shared memory: 128 bytes per
/// clock and SM, shuffles 32 lanes (CUDA programming guide, arithmetic instructions, compute capability 9.0).
struct Device {
  std::string_view name;
  int64_t sms;
  double clockGHz; // fitted
  double hbmTBs;   // what a copy reaches: measured
  double l2TBs;    // to all SMs: fitted, a lower bound
};
/// "h100" (SXM5 80 GB: a copy moves 3.0 TB/s), "h200" (4.3 TB/s; all else is assumed to be the H100's).
const Device *findDevice(std::string_view name);
std::string deviceNames();

/// Instructions of one consumer thread in one step of 64 columns. `decodeCounts` has what the SASS of shipped
/// kernels has at most widths; a disassembly gives those of one loop.
struct StepCounts {
  double alu = 0, fma = 0, shuffle = 0, other = 0; // other: all else that is issued
};
StepCounts decodeCounts(Decode decode);

/// Clocks of one multiprocessor for one step of all consumer warpgroups of one CTA at a width of `n` tokens.
struct StepBudget {
  int64_t n = 0;
  double tensor = 0, alu = 0, issue = 0, smem = 0, l2 = 0;
  double seam = 0;             // latency that nothing of the same CTA hides; another resident CTA does
  double most() const;         // the busiest resource
  double clocks() const;       // of a CTA alone on its multiprocessor: most() + seam
  std::string limiter() const; // "tensor", "alu", "issue", "smem" or "l2"
};
StepBudget stepBudget(const Schedule &schedule, int64_t n, const Device &device, const StepCounts &counts,
                      int64_t scalesPerStep = 1);

/// A grouped matmul of `experts` experts with `rows` rows each on average.
struct Workload {
  int64_t n = 0, k = 0; // weight rows, reduced columns
  int64_t experts = 1, rows = 1;
  int64_t block = 64;     // codes per fp32 scale
  double outputBytes = 2; // stored for each weight row and token; 1 where two rows make one bf16 column
  /// How uneven experts are: half have sqrt(rows) * spread rows more than the mean, half fewer. 0.8 is the
  /// mean deviation of uniform random routing; 0: all have the same.
  double spread = 0.8;
};

struct Prediction {
  StepBudget step;                    // at the width that takes most of the time
  int64_t tiles = 0, rounds = 0;      // tiles in all; of the busiest CTA
  double smUs = 0, hbmUs = 0, us = 0; // us: with decodeUs
  double decodeUs = 0;                // decode=ahead: the kernel that decodes all weights before
  double tflops = 0, hbmTBs = 0;      // at `us`
  std::string limiter;                // "hbm", or the step's, or "too few tiles"
};
/// Bytes of the workspace that decode=ahead fills: 16-bit values in whole tiles and steps; 0 with another
/// decode.
double decodedBytes(const Schedule &schedule, const Workload &work);
/// How an expert's tokens are cut, as expand-tiles does it: equal tiles of at most bn rounded up to 16 rows,
/// the last one takes what is left; widths rounded up to the ladder.
struct ExpertTiles {
  int64_t width = 0, count = 0;
};
std::vector<ExpertTiles> tilesOf(const Schedule &schedule, int64_t rows);
/// Of the first tile.
int64_t tileWidth(const Schedule &schedule, int64_t rows);
/// The kernel alone, without what gathers before it or combines after it, but with what decodes before it
/// (decode=ahead). `countsOf`: by width.
Prediction predict(const Schedule &schedule, const Workload &work, const Device &device,
                   const std::function<StepCounts(int64_t)> &countsOf);
Prediction predict(const Schedule &schedule, const Workload &work, const Device &device,
                   const StepCounts &counts);

} // namespace quern::gpu
