// What a schedule should cost on Hopper: the budget of one step of 64 columns on one multiprocessor, and from
// it the time of a grouped matmul. Counts come from codegen's own instruction sequences, rates from NVIDIA's
// documents; what is assumed is marked so. A model to rank schedules by and to compare measurements with.
#pragma once
#include "codegen/gpu/Schedule.h"
#include <cstdint>
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
  double clockGHz; // sustained under full tensor load: cuBLAS' 790 TFLOP/s are 132 x 4096 flops at 1.46 GHz
  double hbmTBs;   // what a copy reaches
  double l2TBs;    // to all SMs; assumed
};
/// "h200" (a copy reaches 4.3 TB/s), "h100" (assumed 3.0 TB/s).
const Device *findDevice(std::string_view name);
std::string deviceNames();

/// Instructions of one consumer thread in one step of 64 columns. `decodeCounts` gives what the decode
/// sequences need; a disassembly gives all.
struct StepCounts {
  double alu = 0, fma = 0, shuffle = 0, other = 0; // other: all else that is issued
};
StepCounts decodeCounts(Decode decode);

/// Clocks of one multiprocessor for one step of all its consumer warpgroups at a width of `n` tokens.
struct StepBudget {
  int64_t n = 0;
  double tensor = 0, alu = 0, issue = 0, smem = 0, l2 = 0;
  double clocks() const;       // the largest, and a share of the others: they overlap imperfectly (assumed)
  std::string limiter() const; // "tensor", "alu", "issue", "smem" or "l2"
};
StepBudget stepBudget(const Schedule &schedule, int64_t n, const Device &device, const StepCounts &counts,
                      int64_t scalesPerStep = 1);

/// A grouped matmul: `experts` experts with `rows` rows each.
struct Workload {
  int64_t n = 0, k = 0; // weight rows, reduced columns
  int64_t experts = 1, rows = 1;
  int64_t block = 64;      // codes per fp32 scale
  int64_t outputBytes = 2; // of one output element
};

struct Prediction {
  StepBudget step;               // at the width that is used
  int64_t tiles = 0, rounds = 0; // tiles in all; of the busiest CTA
  double smUs = 0, hbmUs = 0, us = 0;
  double tflops = 0, hbmTBs = 0; // at `us`
  std::string limiter;           // "hbm", or the step's, or "too few tiles"
};
/// The tokens of an expert are cut into equal tiles of at most bn, widths rounded up to the ladder.
int64_t tileWidth(const Schedule &schedule, int64_t rows);
Prediction predict(const Schedule &schedule, const Workload &work, const Device &device,
                   const StepCounts &counts);

} // namespace quern::gpu
