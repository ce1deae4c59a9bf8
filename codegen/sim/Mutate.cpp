// See Mutate.h: which mutants there are, and how one is made.
#include "codegen/sim/Mutate.h"
#include "codegen/gpu/Primitives.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/IR/GetElementPtrTypeIterator.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/ModuleSlotTracker.h"
#include "llvm/IR/ReplaceConstant.h"
#include "llvm/Support/raw_ostream.h"
#include <algorithm>
#include <fmt/format.h>
#include <functional>

using namespace llvm;

namespace quern::sim {
namespace {

struct Mutant {
  std::string description;
  std::function<void()> apply;
};

/// By its intrinsic: operands are an id and a count that the ISA fixes here.
bool isBarrier(StringRef name) { return name.starts_with("barrier.") || name.starts_with("bar."); }

/// "q.wgmma.commit" or "barrier.cta.sync.aligned.all"; empty for what is no primitive.
StringRef primitiveName(const Instruction &i) {
  auto *call = dyn_cast<CallInst>(&i);
  Function *callee = call ? call->getCalledFunction() : nullptr;
  StringRef name = callee ? callee->getName() : "";
  if (gpu::isPrimitiveName(std::string_view(name))) return name;
  if (!name.consume_front("llvm.nvvm.")) return "";
  return isBarrier(name) || name.starts_with("shfl.") ? name : "";
}

bool isPure(const CallInst &call) { return call.doesNotAccessMemory(); }

/// Nothing changes when it is not there.
bool isHint(StringRef name) { return name == "q.tma.prefetch" || name == "q.grid.launch"; }

/// Nothing changes when it is there twice.
bool isIdempotent(const CallInst &call, StringRef name) {
  if (isPure(call) || isHint(name) || !name.starts_with("q.")) return true;
  for (StringRef prefix : {"q.fence.", "q.wgmma.fence.", "q.wgmma.wait.", "q.cp.async.wait.", "q.setmaxnreg.",
                           "q.ld.", "q.grid."})
    if (name.starts_with(prefix)) return true;
  return name == "q.mbarrier.wait" || name == "q.barrier.sync";
}

/// Gives the users of a call other values for its results (elements of a struct, or one value).
void replaceResults(CallInst &call, const std::function<Value *(unsigned, Type *)> &result) {
  if (call.use_empty()) return;
  auto *type = dyn_cast<StructType>(call.getType());
  if (!type) return call.replaceAllUsesWith(result(0, call.getType()));
  IRBuilder<> b(call.getNextNode());
  Value *all = PoisonValue::get(type);
  for (unsigned i = 0; i < type->getNumElements(); ++i)
    all = b.CreateInsertValue(all, result(i, type->getElementType(i)), i);
  call.replaceAllUsesWith(all);
}

void drop(CallInst &call) {
  unsigned first = primitiveName(call).starts_with("shfl.") ? 1 : 0; // after the mask
  replaceResults(call, [&](unsigned i, Type *type) -> Value * {
    bool passes = i + first < call.arg_size() && call.getArgOperand(i + first)->getType() == type;
    return passes ? call.getArgOperand(i + first) : Constant::getNullValue(type);
  });
  call.eraseFromParent();
}

void duplicate(CallInst &call) {
  auto *copy = cast<CallInst>(call.clone());
  copy->insertAfter(call.getIterator());
  call.replaceAllUsesWith(copy);
  auto *type = dyn_cast<StructType>(call.getType());
  IRBuilder<> b(copy);
  for (unsigned i = 0, n = type ? type->getNumElements() : 0; i < n && i < copy->arg_size(); ++i)
    if (copy->getArgOperand(i)->getType() == type->getElementType(i))
      copy->setArgOperand(i, b.CreateExtractValue(&call, i));
}

/// `call` and the elements taken from its results, if nothing up to `end` needs them.
std::optional<SmallVector<Instruction *>> unneededUntil(CallInst &call, const Instruction &end) {
  SmallVector<Instruction *> moved = {&call};
  for (unsigned i = 0; i < moved.size(); ++i)
    for (User *user : moved[i]->users()) {
      auto *needs = cast<Instruction>(user);
      if (needs->getParent() != call.getParent() || isa<PHINode>(needs) || end.comesBefore(needs)) continue;
      if (!isa<ExtractValueInst>(needs)) return std::nullopt;
      moved.push_back(needs);
    }
  return moved;
}

/// Instructions of `at`'s block behind `at` that `call` needs, in order; nullopt when one cannot move up.
std::optional<SmallVector<Instruction *>> neededBehind(const Instruction &at, CallInst &call) {
  SetVector<Instruction *> needed;
  needed.insert(&call);
  for (unsigned i = 0; i < needed.size(); ++i)
    for (Value *operand : needed[i]->operands())
      if (auto *defined = dyn_cast<Instruction>(operand);
          defined && defined->getParent() == at.getParent() && !defined->comesBefore(&at)) {
        if (defined == &at || defined->mayReadOrWriteMemory() || isa<PHINode>(defined)) return std::nullopt;
        needed.insert(defined);
      }
  SmallVector<Instruction *> order(needed.begin(), needed.end());
  llvm::sort(order, [](Instruction *a, Instruction *b) { return a->comesBefore(b); });
  return order;
}

class Enumeration {
  std::vector<Mutant> &found;
  ModuleSlotTracker slots; // numbers of values, counted once
  StringMap<unsigned> ordinals;
  DenseMap<const Instruction *, std::string> labels; // "q.wgmma.commit #2"
  DenseSet<std::pair<Instruction *, unsigned>> seen; // constants

public:
  Enumeration(std::vector<Mutant> &found, Module &module) : found(found), slots(&module) {}

  void kernel(Function &f) {
    slots.incorporateFunction(f);
    SmallVector<CallInst *> all;
    for (BasicBlock &block : f)
      for (Instruction &i : block)
        if (StringRef name = primitiveName(i); !name.empty()) {
          labels[&i] = fmt::format("{} #{}", std::string_view(name), ordinals[name]++);
          all.push_back(cast<CallInst>(&i));
        }
    for (CallInst *call : all) one(*call);
    for (BasicBlock &block : f) {
      CallInst *last = nullptr;
      for (Instruction &i : block)
        if (labels.count(&i) && !isPure(cast<CallInst>(i))) {
          if (last) pair(*last, cast<CallInst>(i));
          last = cast<CallInst>(&i);
        }
    }
    for (BasicBlock &block : f)
      for (Instruction &i : block) {
        if (auto *call = dyn_cast<CallInst>(&i);
            call && labels.count(call) && !isBarrier(primitiveName(*call)))
          for (unsigned o = 0; o < call->arg_size(); ++o)
            constants(*call, o, fmt::format("operand {} of {}", o, labels[call]));
        if (auto *store = dyn_cast<StoreInst>(&i))
          constants(*store, StoreInst::getPointerOperandIndex(), "the address of a store");
        if (auto *branch = dyn_cast<BranchInst>(&i); branch && branch->isConditional())
          constants(*branch, 0, "a branch");
      }
  }

private:
  void add(std::string description, std::function<void()> apply) {
    found.push_back({std::move(description), std::move(apply)});
  }

  std::string textOf(const Instruction &i) {
    std::string out;
    raw_string_ostream stream(out);
    i.print(stream, slots);
    return StringRef(out).trim().str();
  }

  void one(CallInst &call) {
    StringRef name = primitiveName(call);
    const std::string &label = labels[&call];
    if (!isHint(name)) add("drop " + label, [&call] { drop(call); });
    if (!isIdempotent(call, name)) add("duplicate " + label, [&call] { duplicate(call); });
    auto use = name.starts_with("q.") ? gpu::readPrimitive(std::string_view(name))
                                      : quern::Expected<gpu::PrimitiveUse>(gpu::PrimitiveUse());
    using Kind = gpu::PrimitiveUse;
    if (!use || use->kind == Kind::Row || use->kind == Kind::Wgmma || use->kind == Kind::WgmmaFence) return;
    int64_t other = use->number + (use->kind == Kind::SetMaxRegs ? 8 : 1);
    std::string from = fmt::format(".{}", use->number), changed = name.str();
    changed.replace(changed.find(from), from.size(), fmt::format(".{}", other));
    if (!gpu::readPrimitive(changed)) return; // out of the ISA's range
    add(fmt::format("{} -> {}", label, changed), [&call, changed] {
      Module &module = *call.getModule();
      call.setCalledFunction(module.getOrInsertFunction(changed, call.getFunctionType()));
      (void)gpu::setPrimitiveAttributes(*call.getCalledFunction());
    });
  }

  void pair(CallInst &first, CallInst &second) {
    if (first.isIdenticalTo(&second)) return;
    auto moved = unneededUntil(first, second);
    if (moved)
      add(fmt::format("move {} behind {}", labels[&first], labels[&second]), [&second, moved] {
        for (Instruction *i : reverse(*moved)) i->moveAfter(&second);
      });
    bool accesses = std::any_of(std::next(first.getIterator()), second.getIterator(),
                                [](Instruction &i) { return i.mayReadOrWriteMemory(); });
    if (moved && !accesses) return; // the same order
    if (auto needed = neededBehind(first, second))
      add(fmt::format("move {} before {}", labels[&second], labels[&first]), [&first, needed] {
        for (Instruction *i : *needed) i->moveBefore(first.getIterator());
      });
  }

  /// Constants in the arithmetic that leads to operand `index` of `user`.
  void constants(Instruction &user, unsigned index, const std::string &root) {
    if (!seen.insert({&user, index}).second) return;
    Value *operand = user.getOperand(index);
    if (auto *constant = dyn_cast<ConstantInt>(operand)) return constantMutants(user, index, *constant, root);
    auto *from = dyn_cast<Instruction>(operand);
    if (!from ||
        !(isa<BinaryOperator, CastInst, GetElementPtrInst, CmpInst, SelectInst, PHINode, LoadInst>(from)))
      return;
    SmallVector<bool> fixed(from->getNumOperands(), false);
    if (auto *gep = dyn_cast<GetElementPtrInst>(from)) { // a struct's fields are numbered
      unsigned at = 1;
      for (auto it = gep_type_begin(gep), end = gep_type_end(gep); it != end; ++it)
        fixed[at++] = it.isStruct();
    }
    if (auto *phi = dyn_cast<PHINode>(from)) // a switch may come twice, with one value
      for (unsigned i = 0; i < fixed.size(); ++i)
        fixed[i] = count(phi->blocks(), phi->getIncomingBlock(i)) > 1;
    for (unsigned i = 0; i < from->getNumOperands(); ++i)
      if (!fixed[i]) constants(*from, i, root);
  }

  void constantMutants(Instruction &user, unsigned index, ConstantInt &constant, const std::string &root) {
    unsigned bits = constant.getBitWidth();
    auto *call = dyn_cast<CallInst>(&user);
    if (bits == 1 || bits > 64 || (call && call->paramHasAttr(index, Attribute::ImmArg))) return;
    constexpr int64_t small = 1 << 20;
    int64_t value = constant.getSExtValue();
    SmallVector<int64_t> others = {value + 1};
    if (value && value != 1 && value < small && value > -small) others.push_back(value * 2);
    for (int64_t other : others) {
      if (user.isShift() && index == 1 && (other < 0 || other >= int64_t(bits))) continue;
      std::string where = user.getType()->isVoidTy() || labels.count(&user) ? "" : textOf(user) + ", for ";
      add(fmt::format("{} -> {} in {}{}", value, other, where, root), [&user, index, &constant, other] {
        user.dropPoisonGeneratingFlags();
        user.setOperand(index, ConstantInt::getSigned(constant.getType(), other, true));
      });
    }
  }
};

std::vector<Mutant> enumerateMutants(Module &module) {
  (void)gpu::setPrimitiveAttributes(module); // an unknown primitive is the late split's to refuse
  SmallVector<Constant *> shared;
  for (GlobalVariable &variable : module.globals())
    if (variable.getAddressSpace() == 3) shared.push_back(&variable);
  convertUsersOfConstantsToInstructions(shared);
  std::vector<Mutant> found;
  Enumeration enumeration(found, module);
  for (Function &f : module)
    if (!f.isDeclaration()) enumeration.kernel(f);
  return found;
}

} // namespace

std::vector<std::string> mutants(Module &module) {
  std::vector<std::string> descriptions;
  for (Mutant &mutant : enumerateMutants(module)) descriptions.push_back(std::move(mutant.description));
  return descriptions;
}

size_t mutantCount(Module &module) { return enumerateMutants(module).size(); }

quern::Expected<std::string> applyMutant(Module &module, size_t index) {
  std::vector<Mutant> found = enumerateMutants(module);
  if (index >= found.size())
    return quern::Error::internal(fmt::format("mutant {} of {}", index, found.size()),
                                  "codegen/sim/Mutate.h");
  found[index].apply();
  return found[index].description;
}

} // namespace quern::sim
