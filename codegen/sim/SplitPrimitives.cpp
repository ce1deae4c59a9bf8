// `q.` calls -> `qsim_` calls. A fragment (up to 128 accumulators and the A registers) crosses through a
// scratch array of the thread.
#include "codegen/gpu/Primitives.h"
#include "codegen/sim/Split.h"
#include "llvm/IR/Instructions.h"
#include <algorithm>

using namespace llvm;

namespace quern::sim {
namespace {

/// Registers in memory. Nothing but the calls emitted here touches that memory, so within a block a slot that
/// already holds a value is not stored again: of a chain of MMAs only the first and the last move registers.
class Registers {
  AllocaInst *memory;
  SmallVector<Value *, 128> held;
  SmallVector<LoadInst *> loads;

public:
  Registers(Function &f, Type *type, unsigned count) : held(count, nullptr) {
    IRBuilder<> b(&*f.getEntryBlock().getFirstInsertionPt());
    memory = b.CreateAlloca(ArrayType::get(type, count));
    memory->setAlignment(Align(64));
  }

  void startBlock() { std::fill(held.begin(), held.end(), nullptr); }

  Value *put(IRBuilder<> &b, ArrayRef<Value *> values) {
    for (auto [i, value] : enumerate(values)) {
      if (held[i] == value) continue;
      b.CreateStore(value, slot(b, i));
      held[i] = value;
    }
    return memory;
  }

  SmallVector<Value *> get(IRBuilder<> &b, unsigned count) {
    Type *type = cast<ArrayType>(memory->getAllocatedType())->getElementType();
    SmallVector<Value *> values;
    for (unsigned i = 0; i < count; ++i) {
      loads.push_back(b.CreateLoad(type, slot(b, i)));
      values.push_back(held[i] = loads.back());
    }
    return values;
  }

  void eraseUnused() {
    for (LoadInst *load : loads)
      if (load->use_empty()) load->eraseFromParent();
    if (memory->use_empty()) memory->eraseFromParent();
  }

private:
  Value *slot(IRBuilder<> &b, unsigned i) {
    return b.CreateConstInBoundsGEP2_32(memory->getAllocatedType(), memory, 0, i);
  }
};

/// Gives the users of a struct result its elements.
void replaceElements(CallInst &call, ArrayRef<Value *> values) {
  for (User *user : make_early_inc_range(call.users()))
    if (auto *extract = dyn_cast<ExtractValueInst>(user)) {
      extract->replaceAllUsesWith(values[extract->getIndices()[0]]);
      extract->eraseFromParent();
    }
  if (call.use_empty()) return;
  IRBuilder<> b(&call);
  Value *all = PoisonValue::get(call.getType());
  for (auto [i, value] : enumerate(values)) all = b.CreateInsertValue(all, value, unsigned(i));
  call.replaceAllUsesWith(all);
}

std::string functionName(std::string_view row) {
  std::string name = "qsim_" + std::string(row);
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

struct Lowering {
  const Runtime &runtime;
  Registers accumulators, fragment;

  void lower(CallInst &call, const gpu::PrimitiveUse &use) {
    using Kind = gpu::PrimitiveUse;
    IRBuilder<> b(&call);
    SmallVector<Value *> operands(call.args());
    ArrayRef<Value *> all(operands), floats = all.take_front(use.floats),
                                     ints = all.drop_front(use.floats).take_front(use.ints);
    auto emit = [&](StringRef name, ArrayRef<Value *> values) {
      runtime.call(b, name, runtime.voidType, values);
    };
    switch (use.kind) {
    case Kind::Row: {
      bool pure = use.row->effect == gpu::Effect::Pure;
      std::string name = functionName(use.row->name);
      CallInst *result =
          pure ? runtime.pure(b, name, call.getType(), all) : runtime.call(b, name, call.getType(), all);
      call.replaceAllUsesWith(result);
      return;
    }
    case Kind::SetMaxRegs:
      return emit("qsim_setmaxnreg", {b.getInt32(use.number), b.getInt32(use.variant == "inc")});
    case Kind::CpAsyncWait: return emit("qsim_cp_async_wait", {b.getInt32(use.number)});
    case Kind::Wgmma:
      emit("qsim_wgmma", {b.getInt32(use.variant == "f16"), b.getInt32(use.number),
                          accumulators.put(b, floats), fragment.put(b, ints), operands.back()});
      break;
    case Kind::WgmmaFence:
      emit("qsim_wgmma_fence", {accumulators.put(b, floats), b.getInt32(use.floats), fragment.put(b, ints),
                                b.getInt32(use.ints)});
      break;
    case Kind::WgmmaWait:
      emit("qsim_wgmma_wait", {b.getInt32(use.number), accumulators.put(b, floats), b.getInt32(use.floats)});
      break;
    }
    SmallVector<Value *> results = accumulators.get(b, use.floats);
    if (use.kind == Kind::WgmmaFence) results.append(ints.begin(), ints.end());
    replaceElements(call, results);
  }
};

} // namespace

Status splitPrimitives(Function &kernel, const Runtime &runtime) {
  Lowering lowering{runtime, {kernel, runtime.f32, 128}, {kernel, runtime.i32, 64}};
  for (BasicBlock &block : kernel) {
    lowering.accumulators.startBlock();
    lowering.fragment.startBlock();
    SmallVector<CallInst *> calls;
    for (Instruction &instruction : block)
      if (auto *call = dyn_cast<CallInst>(&instruction); call && call->getCalledFunction())
        if (gpu::isPrimitiveName(std::string_view(call->getCalledFunction()->getName())))
          calls.push_back(call);
    for (CallInst *call : calls) {
      auto use = gpu::readPrimitive(std::string_view(call->getCalledFunction()->getName()));
      if (!use) return use.takeError();
      if (call->getFunctionType() != gpu::primitiveType(*use, kernel.getContext()))
        return quern::Error::internal("a primitive is called with another type than its own: " + text(*call),
                                      kernel.getName().str());
      lowering.lower(*call, *use);
      call->eraseFromParent();
    }
  }
  lowering.accumulators.eraseUnused();
  lowering.fragment.eraseUnused();
  return {};
}

} // namespace quern::sim
