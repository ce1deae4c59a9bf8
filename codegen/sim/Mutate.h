// Automatic mutants of a kernel: small faults that a test on the simulator should notice. They keep the tests
// honest (DESIGN 5): a mutant that no test kills shows a hazard that nothing checks, or an equivalent
// program.
//
// A module is mutated where it is split (LateSplit.h): after the NVPTX optimisation pipeline. The faults:
//   * drop a primitive; what its results would be passes through it (wgmma, fence, wait), else is zero;
//   * duplicate it; an MMA then accumulates twice;
//   * swap it with the next primitive of its block, by moving it later, past the memory accesses between
//   them,
//     or by moving the next one earlier;
//   * change an integer constant (v + 1, 2 v) that feeds a primitive, a branch or the address of a store;
//   * change the number in a primitive's name (groups left in flight, registers).
// Left out, because they cannot matter: dropped hints (tma.prefetch, grid.launch), second copies of what is
// idempotent (fences, waits, barriers that all threads pass), swaps of equal calls.
#pragma once
#include "compiler/support/Error.h"
#include "llvm/IR/Module.h"
#include <string>
#include <vector>

namespace quern::sim {

/// What each mutant does, in the order of their numbers. The order depends on the module alone. The module is
/// rewritten to an equal one (addresses of shared variables become instructions).
std::vector<std::string> mutants(llvm::Module &module);
size_t mutantCount(llvm::Module &module);
/// Makes the module mutant `index` of it and says what that is. An index out of range is an internal error.
Expected<std::string> applyMutant(llvm::Module &module, size_t index);

} // namespace quern::sim
