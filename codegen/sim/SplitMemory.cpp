// Checks before accesses of memory, and where shared variables live.
#include "codegen/sim/Split.h"
#include "llvm/Analysis/ValueTracking.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/IntrinsicInst.h"
#include "llvm/IR/ReplaceConstant.h"
#include <fmt/format.h>
#include <optional>

using namespace llvm;

namespace quern::sim {
namespace {

constexpr unsigned globalSpace = 1, sharedSpace = 3, constantSpace = 4;

/// Where an access goes. Private: locals, by-value parameters, constants of the module: no check.
enum class Space : uint8_t { Global, Shared, Private, Unknown, Refused };

Space spaceOfObject(const Value &object) {
  switch (object.getType()->getPointerAddressSpace()) {
  case sharedSpace: return Space::Shared;
  case 0:
  case globalSpace:
  case constantSpace: break;
  default: return Space::Refused;
  }
  if (auto *variable = dyn_cast<GlobalVariable>(&object))
    return variable->isConstant() ? Space::Private
                                  : Space::Refused; // a __device__ variable outlives a launch
  if (isa<AllocaInst>(object)) return Space::Private;
  if (auto *argument = dyn_cast<Argument>(&object)) // the host passes no shared pointer to a kernel
    return argument->hasByValAttr() ? Space::Private : Space::Global;
  return object.getType()->getPointerAddressSpace() == globalSpace ? Space::Global : Space::Unknown;
}

Space spaceOf(const Value *address) {
  SmallVector<const Value *> objects;
  getUnderlyingObjects(address, objects, nullptr, 0);
  std::optional<Space> all;
  for (const Value *object : objects) {
    Space space = spaceOfObject(*object);
    if (all && *all != space) {
      bool unchecked = space == Space::Private || *all == Space::Private;
      space = unchecked || space == Space::Refused ? Space::Refused : Space::Unknown;
    }
    all = space;
  }
  if (address->getType()->getPointerAddressSpace() == globalSpace && all == Space::Unknown)
    return Space::Global;
  return all.value_or(Space::Refused);
}

/// Emits the checks of one kernel.
class Checks {
  Function &kernel;
  const Runtime &runtime;

public:
  Checks(Function &kernel, const Runtime &runtime) : kernel(kernel), runtime(runtime) {}

  /// An access that is less aligned than its size asks for is made in pieces on a GPU, and checked in pieces.
  Status plain(Instruction &at, Value *address, uint64_t bytes, Align align, bool store) {
    Space space = spaceOf(address);
    if (space == Space::Refused) return refuse(at);
    if (space == Space::Private) return {};
    if (!bytes) return {};
    uint64_t piece = align.value() < (bytes & -bytes) ? align.value() : bytes;
    if (bytes / piece > 256) return refuse(at);
    IRBuilder<> b(&at);
    Value *pointer = generic(b, address);
    for (uint64_t offset = 0; offset < bytes; offset += piece)
      check(b, space, offset ? b.CreateConstGEP1_64(b.getInt8Ty(), pointer, offset) : pointer, piece, store);
    return {};
  }

  Status atomic(Instruction &at, Value *address, Type *type) {
    Space space = spaceOf(address);
    if (space == Space::Refused) return refuse(at);
    if (space == Space::Private) return {};
    IRBuilder<> b(&at);
    Value *pointer = generic(b, address);
    Value *number = space != Space::Unknown
                        ? b32(space == Space::Shared ? sharedSpace : globalSpace)
                        : b.CreateSelect(inWindow(b, pointer), b32(sharedSpace), b32(globalSpace));
    Value *bytes = b32(at.getDataLayout().getTypeStoreSize(type));
    runtime.call(b, "qsim_atomic", runtime.voidType, {pointer, bytes, number});
    return {};
  }

  /// Stored floats must not be accumulators in flight.
  void floats(Instruction &at, Value *address, Value *value) {
    if (!value->getType()->getScalarType()->isFloatTy() || spaceOf(address) == Space::Private) return;
    IRBuilder<> b(&at);
    auto *vector = dyn_cast<FixedVectorType>(value->getType());
    for (unsigned i = 0, n = vector ? vector->getNumElements() : 1; i < n; ++i)
      runtime.call(b, "qsim_store_f32", runtime.voidType,
                   {vector ? b.CreateExtractElement(value, i) : value});
  }

  Status refuse(const Instruction &at) {
    return quern::Error::internal("the simulator cannot tell what memory this touches: " + text(at),
                                  kernel.getName().str());
  }

private:
  void check(IRBuilder<> &b, Space space, Value *pointer, uint64_t bytes, bool store) {
    Value *operands[] = {pointer, b32(bytes), b32(store)};
    if (space != Space::Unknown) {
      runtime.call(b, space == Space::Shared ? "qsim_shared" : "qsim_global", runtime.voidType, operands);
      return;
    }
    auto *type = FunctionType::get(runtime.voidType, {runtime.pointer, runtime.i32, runtime.i32}, false);
    Module &module = *kernel.getParent();
    Value *function =
        b.CreateSelect(inWindow(b, pointer), module.getOrInsertFunction("qsim_shared", type).getCallee(),
                       module.getOrInsertFunction("qsim_global", type).getCallee());
    b.CreateCall(type, function, operands);
  }

  Value *b32(uint64_t value) { return ConstantInt::get(runtime.i32, value); }
  Value *generic(IRBuilder<> &b, Value *address) { return b.CreateAddrSpaceCast(address, runtime.pointer); }

  /// A shared window is 4 GiB, aligned to that.
  Value *inWindow(IRBuilder<> &b, Value *pointer) {
    auto high = [&](Value *p) { return b.CreateLShr(b.CreatePtrToInt(p, b.getInt64Ty()), 32); };
    return b.CreateICmpEQ(high(pointer), high(runtime.sharedBase(b)));
  }
};

Status checkInstruction(Checks &checks, Instruction &i) {
  auto bytesOf = [&](Type *type) { return i.getDataLayout().getTypeStoreSize(type).getFixedValue(); };
  if (auto *load = dyn_cast<LoadInst>(&i)) {
    Value *address = load->getPointerOperand();
    return load->isAtomic() ? checks.atomic(i, address, load->getType())
                            : checks.plain(i, address, bytesOf(load->getType()), load->getAlign(), false);
  }
  if (auto *store = dyn_cast<StoreInst>(&i)) {
    Value *value = store->getValueOperand(), *address = store->getPointerOperand();
    if (store->isAtomic()) return checks.atomic(i, address, value->getType());
    Status status = checks.plain(i, address, bytesOf(value->getType()), store->getAlign(), true);
    if (status) checks.floats(i, address, value);
    return status;
  }
  if (auto *update = dyn_cast<AtomicRMWInst>(&i))
    return checks.atomic(i, update->getPointerOperand(), update->getType());
  if (auto *exchange = dyn_cast<AtomicCmpXchgInst>(&i))
    return checks.atomic(i, exchange->getPointerOperand(), exchange->getNewValOperand()->getType());
  if (auto *memory = dyn_cast<MemIntrinsic>(&i)) {
    auto *bytes = dyn_cast<ConstantInt>(memory->getLength());
    if (!bytes) return checks.refuse(i);
    uint64_t length = bytes->getZExtValue();
    if (auto *copy = dyn_cast<MemTransferInst>(memory))
      if (Status status =
              checks.plain(i, copy->getRawSource(), length, copy->getSourceAlign().valueOrOne(), false);
          !status)
        return status;
    return checks.plain(i, memory->getRawDest(), length, memory->getDestAlign().valueOrOne(), true);
  }
  return {};
}

} // namespace

Status checkMemory(Function &kernel, const Runtime &runtime) {
  SmallVector<Instruction *> touching;
  for (BasicBlock &block : kernel)
    for (Instruction &i : block)
      if (i.mayReadOrWriteMemory()) touching.push_back(&i);
  Checks checks(kernel, runtime);
  for (Instruction *i : touching) {
    if (Status status = checkInstruction(checks, *i); !status) return status;
    // What the GPU's optimiser knew (invariant loads, aliasing) must not move an access before its check.
    if (!isa<CallBase>(i)) i->dropUnknownNonDebugMetadata();
  }
  return {};
}

Status placeShared(Module &module, const Runtime &runtime) {
  SmallVector<GlobalVariable *> variables;
  for (GlobalVariable &variable : module.globals())
    if (variable.getAddressSpace() == sharedSpace) variables.push_back(&variable);
  SmallVector<Constant *> constants(variables.begin(), variables.end());
  convertUsersOfConstantsToInstructions(constants);
  for (auto [id, variable] : enumerate(variables)) {
    uint64_t bytes = module.getDataLayout().getTypeAllocSize(variable->getValueType());
    DenseMap<Function *, Value *> places;
    for (Use &use : make_early_inc_range(variable->uses())) {
      auto *user = dyn_cast<Instruction>(use.getUser());
      if (!user)
        return quern::Error::internal("a shared variable's address in a constant", variable->getName().str());
      Value *&place = places[user->getFunction()];
      if (!place) {
        IRBuilder<> b(&*user->getFunction()->getEntryBlock().getFirstInsertionPt());
        uint64_t align = variable->getAlign().valueOrOne().value();
        place = variable->isDeclaration()
                    ? runtime.sharedBase(b)
                    : runtime.call(b, "qsim_smem_static", runtime.pointer,
                                   {b.getInt32(id), b.getInt32(bytes), b.getInt32(align)});
        place = b.CreateAddrSpaceCast(place, variable->getType());
      }
      use.set(place);
    }
    variable->eraseFromParent();
  }
  // A shared address is the low half of a pointer into the window.
  for (Function &f : module)
    for (BasicBlock &block : f)
      for (Instruction &i : make_early_inc_range(block))
        if (auto *cast = dyn_cast<IntToPtrInst>(&i); cast && cast->getAddressSpace() == sharedSpace) {
          IRBuilder<> b(cast);
          Value *base = b.CreatePtrToInt(runtime.sharedBase(b), b.getInt64Ty());
          Value *low = b.CreateZExt(b.CreateZExtOrTrunc(cast->getOperand(0), runtime.i32), b.getInt64Ty());
          Value *full = b.CreateOr(b.CreateAnd(base, ~uint64_t(0xffffffff)), low);
          cast->replaceAllUsesWith(
              b.CreateAddrSpaceCast(b.CreateIntToPtr(full, runtime.pointer), cast->getType()));
          cast->eraseFromParent();
        }
  return {};
}

} // namespace quern::sim
