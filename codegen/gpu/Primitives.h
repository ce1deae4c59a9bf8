// The GPU primitives that generated kernels use: one row = one PTX instruction (or one fixed sequence).
//
// A primitive travels through MLIR and LLVM's optimiser as a call of a declared function `q.<name>` with
// exact attributes. After the NVPTX optimisation pipeline the module is split (DESIGN 5):
//   * for a GPU, codegen/nvidia replaces each call by its inline asm (the `ptx` and `constraints` columns);
//   * for the simulator, codegen/sim replaces each call by a call of the C function `qsim_<name>` (dots
//   become
//     underscores) of runtime/sim.
// A call of an unknown `q.` function is a hard error in both. What LLVM already has as an intrinsic is used
// as that intrinsic and also understood by both sides: sreg tid.x ntid.x ctaid.x nctaid.x laneid
// cluster.ctarank, barrier.cta.sync.aligned.all (id 0), shfl.sync.*.i32, vote.ballot.sync, prmt.
//
// Signature letters: v void, i i32, h i16, l i64, f f32, s ptr addrspace(3), g ptr addrspace(1), p ptr.
//
// Parametric primitives (no row in the table; names carry their numbers):
//   q.wgmma.{bf16|f16}.n<N>   {float x N/2}(float x N/2, i32 x 4, i64 desc)
//       wgmma.mma_async.sync.aligned.m64n<N>k16.f32.T.T, A in four registers, B by descriptor, K-major,
//       scale-d = 1 (accumulates). N = 8..256 in steps of 8. PTX ISA 9.7.15.
//   q.wgmma.fence.n<F>.a<A>   {float x F, i32 x A}(float x F, i32 x A)
//       wgmma.fence.sync.aligned with all its operands tied through it, so that no definition of an
//       accumulator or an A register can move below it (ptxas C7519). F or A may be 0; F + A >= 2.
//   q.wgmma.wait.<G>.n<F>     {float x F}(float x F)
//       wgmma.wait_group.sync.aligned G with the accumulators tied through it.
//   q.setmaxnreg.inc.<R>, q.setmaxnreg.dec.<R>   void()
//   q.cp.async.wait.<G>       void()     cp.async.wait_group G
#pragma once
#include "compiler/support/Error.h"
#include <cstdint>
#include <string_view>

namespace llvm {
class Function;
class FunctionType;
class LLVMContext;
class Module;
} // namespace llvm

namespace quern::gpu {

/// What LLVM may assume about a call.
enum class Effect : uint8_t {
  Sync, // may read and write any memory, convergent: nothing moves across
  Mma,  // touches inaccessible memory only, convergent: keeps its order among primitives, loads may pass
  Read, // reads the memory its pointer names, returns, no other effect
  Pure, // a function of its operands, may be speculated
};

struct Primitive {
  std::string_view name, signature;
  Effect effect;
  std::string_view ptx, constraints; // LLVM inline asm; a shared address is passed as 32 bits ("r")
};

// clang-format off
inline constexpr Primitive primitives[] = {
  // mbarriers of this CTA; counts are arrivals per phase (PTX ISA 9.7.13.15)
  {"mbarrier.init", "v(si)", Effect::Sync, "mbarrier.init.shared::cta.b64 [$0], $1;", "r,r,~{memory}"},
  {"fence.mbarrier.init", "v()", Effect::Sync, "fence.mbarrier_init.release.cluster;", "~{memory}"},
  {"mbarrier.expect_tx", "v(si)", Effect::Sync, "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "r,r,~{memory}"},
  {"mbarrier.arrive", "v(s)", Effect::Sync, "mbarrier.arrive.shared::cta.b64 _, [$0];", "r,~{memory}"},
  // the barrier at the same offset in CTA `rank` of the cluster
  {"mbarrier.arrive.cluster", "v(si)", Effect::Sync,
   "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, $0, $1;\nmbarrier.arrive.shared::cluster.b64 _, [remote];\n}", "r,r,~{memory}"},
  // the same, and what this thread wrote or read before is done for whoever waits by mbarrier.wait.cluster
  {"mbarrier.arrive.release.cluster", "v(si)", Effect::Sync,
   "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, $0, $1;\nmbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n}", "r,r,~{memory}"},
  // blocks until the phase with this parity has completed. CTA scope: what is waited for are async copies (ordered by
  // the barrier's transactions) and reads that are done; a wider scope costs a cache invalidation or a membar each
  {"mbarrier.wait", "v(si)", Effect::Sync,
   "{\n.reg .pred done;\nWAIT_${:uid}:\nmbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1, 0x989680;\n@done bra DONE_${:uid};\nbra WAIT_${:uid};\nDONE_${:uid}:\n}", "r,r,~{memory}"},
  // the same with cluster scope: for plain data in the shared memory of a peer
  {"mbarrier.wait.cluster", "v(si)", Effect::Sync,
   "{\n.reg .pred done;\nWAIT_${:uid}:\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [$0], $1, 0x989680;\n@done bra DONE_${:uid};\nbra WAIT_${:uid};\nDONE_${:uid}:\n}", "r,r,~{memory}"},
  // async copies global -> shared; bytes a multiple of 16, addresses 16-byte aligned; completion on the mbarrier
  {"cp.bulk", "v(sgis)", Effect::Sync,
   "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];", "r,l,r,r,~{memory}"},
  {"tma.load2d", "v(spiis)", Effect::Sync,
   "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1, {$2, $3}], [$4];", "r,l,r,r,r,~{memory}"},
  // the same offset in every CTA of the mask receives the box, and its barrier the bytes
  {"tma.load2d.multicast", "v(spiish)", Effect::Sync,
   "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [$0], [$1, {$2, $3}], [$4], $5;", "r,l,r,r,r,h,~{memory}"},
  {"tma.prefetch", "v(p)", Effect::Sync, "prefetch.tensormap [$0];", "l,~{memory}"},
  // 16 bytes global -> shared; only the first `srcBytes` (0..16) are read, the rest is zero
  {"cp.async16", "v(sgi)", Effect::Sync, "cp.async.cg.shared.global.L2::128B [$0], [$1], 16, $2;", "r,l,r,~{memory}"},
  {"cp.async.commit", "v()", Effect::Sync, "cp.async.commit_group;", "~{memory}"},
  // makes generic-proxy writes to shared memory visible to the async proxy (wgmma, TMA)
  {"fence.proxy.async", "v()", Effect::Sync, "fence.proxy.async.shared::cta;", "~{memory}"},
  {"wgmma.commit", "v()", Effect::Mma, "wgmma.commit_group.sync.aligned;", ""},
  // named barrier `id` (1..15) of `threads` threads
  {"barrier.sync", "v(ii)", Effect::Sync, "bar.sync $0, $1;", "r,r,~{memory}"},
  {"cluster.arrive", "v()", Effect::Sync, "barrier.cluster.arrive.release.aligned;", "~{memory}"},
  {"cluster.wait", "v()", Effect::Sync, "barrier.cluster.wait.acquire.aligned;", "~{memory}"},
  // loads f32 at the same offset in the shared memory of CTA `rank` of the cluster
  {"ld.cluster.f32", "f(si)", Effect::Sync,
   "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, $1, $2;\nld.shared::cluster.f32 $0, [remote];\n}", "=f,r,r,~{memory}"},
  // the same for 8 bytes
  {"ld.cluster.b64", "l(si)", Effect::Sync,
   "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, $1, $2;\nld.shared::cluster.b64 $0, [remote];\n}", "=l,r,r,~{memory}"},
  // programmatic dependent launch
  {"grid.wait", "v()", Effect::Sync, "griddepcontrol.wait;", "~{memory}"},
  {"grid.launch", "v()", Effect::Sync, "griddepcontrol.launch_dependents;", "~{memory}"},
  // arithmetic: low half of an i32 is element 0
  {"mul.bf16x2", "i(ii)", Effect::Pure, "mul.rn.bf16x2 $0, $1, $2;", "=r,r,r"},
  {"mul.f16x2", "i(ii)", Effect::Pure, "mul.rn.f16x2 $0, $1, $2;", "=r,r,r"},
  // cvt.bf16x2(hi, lo): round to nearest even, hi in the upper half
  {"cvt.bf16x2", "i(ff)", Effect::Pure, "cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f"},
  {"cvt.f16x2", "i(ff)", Effect::Pure, "cvt.rn.f16x2.f32 $0, $1, $2;", "=r,f,f"},
  {"ex2", "f(f)", Effect::Pure, "ex2.approx.ftz.f32 $0, $1;", "=f,f"},
  {"rcp", "f(f)", Effect::Pure, "rcp.approx.ftz.f32 $0, $1;", "=f,f"},
};
// clang-format on

/// A `q.` function by its name: a row of the table, or a parametric name with its numbers read.
struct PrimitiveUse {
  enum Kind : uint8_t { Row, Wgmma, WgmmaFence, WgmmaWait, SetMaxRegs, CpAsyncWait } kind = Row;
  Effect effect = Effect::Sync;
  const Primitive *row = nullptr; // Row only
  std::string_view variant;       // Wgmma: "bf16" or "f16"; SetMaxRegs: "inc" or "dec"
  int64_t number = 0;             // Wgmma: N; WgmmaWait, CpAsyncWait: G; SetMaxRegs: R
  int64_t floats = 0, ints = 0;   // accumulators and A registers that pass through
};

/// Names the compiler reserves for primitives.
inline bool isPrimitiveName(std::string_view name) { return name.starts_with("q."); }
/// The row called `name` (without "q."), or null.
const Primitive *findPrimitive(std::string_view name);
/// Reads a function's name ("q.mbarrier.init", "q.wgmma.bf16.n256"); an unknown one is an internal error.
Expected<PrimitiveUse> readPrimitive(std::string_view functionName);
/// The type that the declaration must have: several results are a struct.
llvm::FunctionType *primitiveType(const PrimitiveUse &use, llvm::LLVMContext &context);

/// Sets what the optimiser may assume about a declared primitive, and nothing else: the one place of that
/// policy. To be called after translation to LLVM IR and before the first LLVM pass. An unknown name or
/// another type than the primitive's is an internal error.
Status setPrimitiveAttributes(llvm::Function &function);
/// The same for every `q.` declaration of a module.
Status setPrimitiveAttributes(llvm::Module &module);

} // namespace quern::gpu
