// See RealizePrimitives.h.
#include "codegen/nvidia/RealizePrimitives.h"
#include "codegen/gpu/Primitives.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/Module.h"
#include <fmt/format.h>

using namespace llvm;

namespace quern::nvidia {
using gpu::Effect;
using gpu::PrimitiveUse;

namespace {

struct Asm {
  std::string text, constraints;
};

std::string repeat(std::string_view item, int64_t count) {
  std::string out;
  for (int64_t i = 0; i < count; ++i) out += item;
  return out;
}

/// "=f,=f,=r,0,1,2": values that enter and leave in the same registers.
std::string tied(int64_t floats, int64_t ints) {
  std::string out = repeat("=f,", floats) + repeat("=r,", ints);
  for (int64_t i = 0; i < floats + ints; ++i) out += fmt::format("{}{}", i ? "," : "", i);
  return out;
}

/// wgmma.mma_async with A in registers (PTX ISA 9.7.15.5.2): operands are the accumulators, their tied
/// inputs, four A registers and B's descriptor; then scale-d, negate A, negate B, and B as stored (K-major).
Asm wgmma(const PrimitiveUse &use) {
  std::string accumulators;
  for (int64_t i = 0; i < use.floats; ++i) accumulators += fmt::format("{}${}", i ? ", " : "", i);
  int64_t a = 2 * use.floats;
  return {fmt::format("wgmma.mma_async.sync.aligned.m64n{0}k16.f32.{1}.{1} {{{2}}}, {{${3}, ${4}, ${5}, "
                      "${6}}}, ${7}, 1, 1, 1, 0;",
                      use.number, use.variant, accumulators, a, a + 1, a + 2, a + 3, a + 4),
          tied(use.floats, 0) + ",r,r,r,r,l"};
}

Asm asmOf(const PrimitiveUse &use) {
  switch (use.kind) {
  case PrimitiveUse::Row: return {std::string(use.row->ptx), std::string(use.row->constraints)};
  case PrimitiveUse::Wgmma: return wgmma(use);
  case PrimitiveUse::WgmmaFence: return {"wgmma.fence.sync.aligned;", tied(use.floats, use.ints)};
  case PrimitiveUse::WgmmaWait:
    return {fmt::format("wgmma.wait_group.sync.aligned {};", use.number), tied(use.floats, 0)};
  case PrimitiveUse::SetMaxRegs:
    return {fmt::format("setmaxnreg.{}.sync.aligned.u32 {};", use.variant, use.number), "~{memory}"};
  case PrimitiveUse::CpAsyncWait: return {fmt::format("cp.async.wait_group {};", use.number), "~{memory}"};
  }
  return {};
}

void realize(CallInst &call, const PrimitiveUse &use) {
  IRBuilder<> builder(&call);
  SmallVector<Value *> operands;
  SmallVector<Type *> types;
  for (Value *operand : call.args()) {
    // A shared address has 32 significant bits, whatever the pointer's width.
    if (operand->getType()->isPointerTy() && operand->getType()->getPointerAddressSpace() == 3)
      operand = builder.CreatePtrToInt(operand, builder.getInt32Ty());
    operands.push_back(operand), types.push_back(operand->getType());
  }
  Asm text = asmOf(use);
  bool pure = use.effect == Effect::Pure;
  FunctionType *type = FunctionType::get(call.getType(), types, false);
  CallInst *statement = builder.CreateCall(
      type, InlineAsm::get(type, text.text, text.constraints, /*hasSideEffects=*/!pure), operands);
  statement->setDoesNotThrow();
  if (pure)
    statement->setDoesNotAccessMemory();
  else
    statement->setConvergent();
  statement->setDebugLoc(call.getDebugLoc());
  call.replaceAllUsesWith(statement);
  call.eraseFromParent();
}

} // namespace

Status realizePrimitives(Module &module) {
  for (Function &function : llvm::make_early_inc_range(module)) {
    std::string name = function.getName().str();
    if (!gpu::isPrimitiveName(name)) continue;
    auto use = gpu::readPrimitive(name);
    if (!use) return use.takeError();
    if (function.getFunctionType() != gpu::primitiveType(*use, module.getContext()))
      return Error::internal("is declared with another type than the primitive's", name);
    for (User *user : llvm::make_early_inc_range(function.users())) {
      auto *call = dyn_cast<CallInst>(user);
      if (!call || call->getCalledFunction() != &function)
        return Error::internal("is used otherwise than by a call", name);
      realize(*call, *use);
    }
    function.eraseFromParent();
  }
  return {};
}

} // namespace quern::nvidia
