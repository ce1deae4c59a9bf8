// From a resolved kernel to what the GPU kernels can do: facts, parameters, writes; or the reason why not.
#pragma once
#include "codegen/cpu/Problem.h"
#include "codegen/gpu/Facts.h"
#include "codegen/gpu/Reads.h"

namespace quern::gpu {

/// A write with its reads resolved.
struct TileWrite {
  int operand = -1;
  bool combine = false;
  int index = 0; // of the combine's workspace
  int64_t columns = 0;
  DType dtype = DType::F32;
  std::vector<Read> reads;
  mlir::Region *body = nullptr;
};

struct TileKernel {
  Facts facts;
  std::vector<jit::GpuParam> params;
  std::vector<TileWrite> writes;
  std::vector<jit::LowRankStep> lowRank;
  std::vector<jit::CombineStep> combine;
  std::vector<jit::DecodeStep> decode;
};

/// User errors say what the GPU target does not take, and why.
Expected<TileKernel> readTileKernel(const cpu::Problem &problem, const Schedule &schedule);

} // namespace quern::gpu
