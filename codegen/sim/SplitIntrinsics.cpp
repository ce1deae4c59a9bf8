// NVVM intrinsics -> `qsim_` calls, and the refusal of every call that is left.
#include "codegen/gpu/Primitives.h"
#include "codegen/sim/Split.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/IntrinsicInst.h"
#include <fmt/format.h>

using namespace llvm;

namespace quern::sim {
namespace {

/// What an intrinsic becomes. Operands pass as they are.
struct Row {
  StringRef intrinsic; // without "llvm.nvvm."
  StringRef function;
  bool pure = false;
};
constexpr Row rows[] = {
    {"read.ptx.sreg.tid.x", "qsim_tid_x", true},
    {"read.ptx.sreg.ntid.x", "qsim_ntid_x", true},
    {"read.ptx.sreg.ctaid.x", "qsim_ctaid_x", true},
    {"read.ptx.sreg.nctaid.x", "qsim_nctaid_x", true},
    {"read.ptx.sreg.laneid", "qsim_laneid", true},
    {"read.ptx.sreg.cluster.ctarank", "qsim_cluster_ctarank", true},
    {"barrier.cta.sync.aligned.count", "qsim_barrier_sync"},
    {"barrier.cluster.arrive.aligned", "qsim_cluster_arrive"},
    {"barrier.cluster.wait.aligned", "qsim_cluster_wait"},
    {"bar.warp.sync", "qsim_syncwarp"},
    {"shfl.sync.idx.i32", "qsim_shfl_idx"},
    {"shfl.sync.up.i32", "qsim_shfl_up"},
    {"shfl.sync.down.i32", "qsim_shfl_down"},
    {"shfl.sync.bfly.i32", "qsim_shfl_bfly"},
    {"prmt", "qsim_prmt", true},
    {"griddepcontrol.wait", "qsim_grid_wait"},
    {"griddepcontrol.launch.dependents", "qsim_grid_launch"},
    {"ex2.approx.ftz.f", "qsim_ex2", true},
    {"ex2.approx.ftz.f32", "qsim_ex2", true},
    {"rcp.approx.ftz.f", "qsim_rcp", true},
};

/// Grids and blocks have one dimension.
struct Constant {
  StringRef intrinsic;
  unsigned value;
};
constexpr Constant constants[] = {
    {"read.ptx.sreg.tid.y", 0},    {"read.ptx.sreg.tid.z", 0},    {"read.ptx.sreg.ntid.y", 1},
    {"read.ptx.sreg.ntid.z", 1},   {"read.ptx.sreg.ctaid.y", 0},  {"read.ptx.sreg.ctaid.z", 0},
    {"read.ptx.sreg.nctaid.y", 1}, {"read.ptx.sreg.nctaid.z", 1}, {"read.ptx.sreg.warpsize", 32},
};

/// The value that replaces the call; null: the intrinsic is unknown. A void call gives any value.
Value *lowerNvvm(CallInst &call, StringRef name, const Runtime &runtime) {
  IRBuilder<> b(&call);
  SmallVector<Value *> operands(call.args());
  for (const Constant &constant : constants)
    if (name == constant.intrinsic) return b.getInt32(constant.value);
  for (const Row &row : rows)
    if (name == row.intrinsic)
      return row.pure ? runtime.pure(b, row.function, call.getType(), operands)
                      : runtime.call(b, row.function, call.getType(), operands);
  if (name == "barrier.cta.sync.aligned.all") {
    auto *id = dyn_cast<ConstantInt>(operands[0]);
    return id && id->isZero() ? runtime.call(b, "qsim_syncthreads", runtime.voidType, {}) : nullptr;
  }
  auto ballot = [&](Value *predicate) {
    return runtime.call(b, "qsim_ballot", runtime.i32, {operands[0], b.CreateZExt(predicate, runtime.i32)});
  };
  if (name == "vote.ballot.sync") return ballot(operands[1]);
  if (name == "vote.any.sync") return b.CreateIsNotNull(ballot(operands[1]));
  if (name == "vote.all.sync") return b.CreateIsNull(ballot(b.CreateNot(operands[1])));
  if (name.consume_front("shfl.sync.") && name.consume_back(".f32")) {
    operands[1] = b.CreateBitCast(operands[1], runtime.i32);
    Value *bits = runtime.call(b, ("qsim_shfl_" + name).str(), runtime.i32, operands);
    return b.CreateBitCast(bits, runtime.f32);
  }
  // A fence alone orders nothing that the detector sees: it pairs with a barrier or an atomic, which are
  // modelled; and one thread's accesses are never reordered here.
  if (name == "membar.cta" || name == "membar.gl" || name == "membar.sys") return b.getInt32(0);
  return nullptr;
}

/// Intrinsics of the optimiser alone.
bool isHint(Intrinsic::ID id) {
  return id == Intrinsic::assume || id == Intrinsic::experimental_noalias_scope_decl ||
         id == Intrinsic::sideeffect || id == Intrinsic::donothing;
}

quern::Error refuse(const Function &kernel, StringRef what, StringRef name) {
  return quern::Error::internal(fmt::format("the simulator knows no {} '{}'", what, name),
                                kernel.getName().str());
}

} // namespace

Status splitIntrinsics(Function &kernel, const Runtime &runtime) {
  SmallVector<CallBase *> calls;
  for (BasicBlock &block : kernel)
    for (Instruction &instruction : block)
      if (auto *call = dyn_cast<CallBase>(&instruction)) calls.push_back(call);
  for (CallBase *base : calls) {
    auto *call = dyn_cast<CallInst>(base);
    if (!call) return refuse(kernel, "call like", text(*base));
    if (auto *assembly = dyn_cast<InlineAsm>(call->getCalledOperand()))
      return refuse(kernel, "inline asm", assembly->getAsmString());
    Function *callee = call->getCalledFunction();
    if (!callee) return refuse(kernel, "call through a pointer like", text(*call));
    StringRef name = callee->getName();
    if (gpu::isPrimitiveName(std::string_view(name))) continue; // splitPrimitives
    if (!callee->isIntrinsic()) return refuse(kernel, "function", name);
    if (isHint(callee->getIntrinsicID())) {
      call->eraseFromParent();
    } else if (StringRef rest = name; rest.consume_front("llvm.nvvm.")) {
      Value *result = lowerNvvm(*call, rest, runtime);
      if (!result)
        return refuse(kernel, "intrinsic",
                      name == "llvm.nvvm.barrier.cta.sync.aligned.all" ? text(*call) : name.str());
      if (!call->getType()->isVoidTy()) call->replaceAllUsesWith(result);
      call->eraseFromParent();
    } else if (!isa<MemIntrinsic>(call) && !isa<LifetimeIntrinsic>(call) && !call->doesNotAccessMemory()) {
      return refuse(kernel, "intrinsic", name); // it may touch memory that checkMemory has not seen
    }
  }
  return {};
}

} // namespace quern::sim
