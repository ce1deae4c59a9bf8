// A functional model of the Hopper primitives (codegen/gpu/Primitives.h) on the CPU: one fiber per CUDA
// thread, a happens-before detector, hazards on demand. It runs the program that becomes PTX; see README.md.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace quern::sim {

enum class CopyMode : uint8_t { Eager, Lazy, Random }; // when the data of an async copy lands
enum class Scheduler : uint8_t { Fifo, Random, Pct };  // Pct: random priorities with demotions

/// One switch per hazard; the defaults are what tests run with.
struct Options {
  uint64_t seed = 1;
  CopyMode copies = CopyMode::Lazy;
  Scheduler scheduler = Scheduler::Random;
  double yieldProbability = 0.05; // voluntary switches at primitives that do not block
  bool happensBefore = true;      // vector clocks over shared memory, async copies, wgmma reads
  bool tokens = true;             // accumulators are unreadable between wgmma and its wait
  bool poison = true;             // shared memory starts as NaN patterns
  bool bounds = true;             // global accesses must lie in a registered buffer
  bool rehash = true;             // the B operand must not change between issue and wait
  bool convergence = true;  // warp-wide instructions (wgmma, shfl, ballot) order the lanes of a warp; PTX
                            // promises that for bar.warp.sync only
  bool warpWait = true;     // wgmma.wait proves completion for the executing warp, not its warpgroup
  double secondsLimit = 60; // a launch that takes longer ends in an issue
  int maxIssues = 8;
};

/// Global memory that a kernel may touch.
struct Buffer {
  std::string name;
  void *data = nullptr;
  uint64_t bytes = 0;
  bool writable = false;
};

struct Launch {
  void (*entry)(void **params) = nullptr;
  void **params = nullptr;
  unsigned grid = 1, block = 128, cluster = 1;
  uint64_t smemBytes = 0;
  unsigned registers = 0; // per thread at launch, for setmaxnreg; 0: the most that fits one CTA per SM
  std::vector<Buffer> buffers;
  /// Names of warp ranges for reports, e.g. {"producer", 0, 4}, {"consumer", 4, 12}.
  struct Role {
    std::string name;
    unsigned firstWarp, endWarp;
  };
  std::vector<Role> roles;
};

struct Report {
  std::vector<std::string>
      issues; // deduplicated texts, the first maxIssues: detector, role, warp, place, what was expected
  uint64_t issueCount = 0, ctas = 0, switches = 0, wgmmas = 0, copies = 0;
  uint64_t seed = 0;
  double ms = 0;
  bool deadlock = false;
  bool ok() const { return issueCount == 0; }
  std::string str() const; // all of it, readable
};

/// Runs the grid, cluster by cluster. One launch at a time per process (a lock inside).
Report launch(const Launch &launch, const Options &options);

/// The 128-byte tensor map that tma.load2d understands here: what cuTensorMapEncodeTiled would be given, with
/// the same argument checks. Rank 2: inner dimension first, `rowBytes` between rows. Returns "" or the
/// reason.
std::string encodeTensorMap(void *map128, int elementBytes, const void *base, uint64_t columns, uint64_t rows,
                            uint64_t rowBytes, uint32_t boxColumns, uint32_t boxRows, bool swizzle128);

/// The `qsim_*` functions and their addresses, for the JIT.
struct Symbol {
  const char *name;
  void *address;
};
const std::vector<Symbol> &symbols();

} // namespace quern::sim

// What lowered code calls is declared in Abi.h. Fixed primitives of codegen/gpu/Primitives.h are `qsim_<name
// with dots as underscores>` with the table's signature (pointers as pointers). The others:
// clang-format off
//   uint32_t qsim_tid_x(), qsim_ntid_x(), qsim_ctaid_x(), qsim_nctaid_x(), qsim_laneid(), qsim_cluster_ctarank()
//   void *qsim_smem_base()               dynamic shared memory: a host pointer in a 4 GiB aligned window, its low 32 bits are
//                                        the shared address; every CTA of a cluster has its own window
//   void *qsim_smem_static(uint32_t id, uint32_t bytes, uint32_t align)      a static shared variable of a .cu kernel
//   void qsim_syncthreads()
//   void qsim_syncwarp(uint32_t mask)    bar.warp.sync: the lanes of the mask meet, memory between them is ordered
//   uint32_t qsim_shfl_{idx,up,down,bfly}(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp)
//   uint32_t qsim_ballot(uint32_t mask, uint32_t predicate)
//   uint32_t qsim_prmt(uint32_t a, uint32_t b, uint32_t selector)
//   void qsim_wgmma(uint32_t isF16, uint32_t n, float *acc, const uint32_t *a, uint64_t desc)      acc: n/2, in and out
//   void qsim_wgmma_fence(float *acc, uint32_t nacc, const uint32_t *a, uint32_t na)
//   void qsim_wgmma_wait(uint32_t groups, float *acc, uint32_t nacc)
//   void qsim_setmaxnreg(uint32_t registers, uint32_t increase)
//   void qsim_cp_async_wait(uint32_t groups)
//   void qsim_global(void *p, uint32_t bytes, uint32_t store)     before each plain global load or store
//   void qsim_shared(void *p, uint32_t bytes, uint32_t store)     before each plain shared load or store
//   void qsim_atomic(void *p, uint32_t bytes, uint32_t space)     before each atomicrmw or cmpxchg (space 1 or 3), which then
//                                                                 runs natively: fibers switch only in calls
//   void qsim_store_f32(float value)                              before each plain f32 store: no accumulator token
// clang-format on
