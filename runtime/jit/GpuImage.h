// A compiled GPU kernel and what a launcher must know to run it. The same record serves a real GPU (PTX,
// cubin) and the simulator (a host function).
#pragma once
#include "compiler/support/DType.h"
#include <cstdint>
#include <string>
#include <vector>

namespace quern::jit {

/// One kernel parameter, in order. `operand` counts parameters, then outputs, of the .qn kernel.
struct GpuParam {
  enum Kind : uint8_t {
    TensorMap, // 128 bytes by value: CUtensorMap of the activations [rows, K], see GpuImage::x
    Pointer,   // device address of tensor `operand` (8 bytes)
    Stride,    // stride of dimension `index` of tensor `operand`, in elements (8 bytes)
    Codes,     // device address of an array of E device addresses: each expert's codes
    Scales,    // the same for scales
    Zeros,     // the same for zero points
    Offsets,   // device address of int32 offsets[E + 1]; a dense kernel gets the two ints {0, rows}
    RowToken,  // device address of int32 rowToken[R]
    RowWeight, // device address of f32 rowWeight[R]
    Scalar,    // f32 scalar `operand` (4 bytes)
    Rows,      // int32: allocated rows R (dense: rows)
    Experts,   // int32: E (dense: 1)
    Partial,   // device address of the combine's workspace: f32 [R][columns of write `index`]
    LowRank,   // device address of the workspace of low-rank contraction `index`: f32 [R][P]
    Decoded,   // device address of the workspace that decode step `index` fills
  } kind = Pointer;
  int operand = -1, index = 0;
};

/// One f32 [R][P] workspace to be filled before the kernel: out[r, p] = sum(k) lhs[row(r), k] * rhs[(e,) p,
/// k].
struct LowRankStep {
  int lhs = -1, rhs = -1; // operands
  bool byToken = false, byExpert = false;
  int64_t columns = 0, reduced = 0; // P and K
};

/// A workspace to be filled before the kernel with the decoded weights of operand `packed`, as the A
/// fragments of wgmma m64nNk16 (kernels/decode_ahead.cu): [experts (one when not byExpert)][ceil(N /
/// tileRows)][ceil(K / 64)][tileRows / 64][slice of 16 columns][thread of a warpgroup][16 bytes].
struct DecodeStep {
  int packed = -1;                 // operand
  bool byExpert = false;           // the operand has an expert dimension
  bool halved = false;             // MMA rows g and g + 8 are rows j and j + N/2, else 2g and 2g + 1 of 16
  int64_t rows = 0, columns = 0;   // N and K of one expert
  int64_t tileRows = 0;            // of a weight tile: the schedule's bm
  DType dtype = DType::BF16;       // of the values: bf16 or f16
  int64_t bytesPerExpert() const { // whole tiles and whole steps of 64 columns
    return (rows + tileRows - 1) / tileRows * tileRows * ((columns + 63) / 64) * 128;
  }
};

/// One output to be formed after the kernel: out[t, n] = sum over the rows r of token t, ascending, of
/// partial[r, n] (f32; a token without rows gets zero).
struct CombineStep {
  int output = -1; // operand
  int64_t columns = 0;
};

struct GpuImage {
  std::string entry, arch, schedule; // arch: "sm_90a" or "sim"
  std::string ptx, cubin; // cubin is empty when no ptxas was found (the driver's JIT takes the PTX)
  std::string ptxasLog;   // registers, spills, warnings
  std::string ptxasPath;  // what made the cubin; only from the compiler, not in the cache
  std::vector<GpuParam> params;
  int threads = 0, cluster = 1, ctasPerSm = 1;
  int registers = 0;     // of a thread at launch; setmaxnreg moves them between warpgroups
  int64_t smemBytes = 0; // dynamic shared memory
  int64_t tiles = 0; // weight tiles of one expert (grid: min(SMs * ctasPerSm, what there is), whole clusters)
  /// The activations: operand `lhs`, K columns. `sorted`: the kernel reads rows [0, R) in routing order from
  /// the tensor map (boxes of 64 columns x boxRows rows, 128-byte swizzle); when the .qn kernel gathers by
  /// token, the launcher first gathers into a workspace. Otherwise the kernel gathers itself through RowToken
  /// and Pointer. Either way the kernel wants `dtype`, unit column stride and 16-byte aligned rows; the
  /// launcher converts or copies when the argument is otherwise.
  struct Activations {
    int operand = -1;
    bool byToken = false, sorted = false;
    DType dtype = DType::BF16;
    int64_t columns = 0, boxRows = 0;
  } x;
  std::vector<LowRankStep> lowRank;
  std::vector<CombineStep> combine;
  std::vector<DecodeStep> decode; // one at most
  /// Simulator only: runs one thread of the kernel; `params[i]` points at parameter i.
  void (*simEntry)(void **params) = nullptr;
};

} // namespace quern::jit
