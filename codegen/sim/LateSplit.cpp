// See LateSplit.h. The steps, in order, and the host function around each kernel.
#include "codegen/sim/LateSplit.h"
#include "codegen/sim/Split.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Transforms/IPO/AlwaysInliner.h"
#include <fmt/format.h>

using namespace llvm;

namespace quern::sim {

Runtime::Runtime(Module &module)
    : module(module), voidType(Type::getVoidTy(module.getContext())),
      i32(Type::getInt32Ty(module.getContext())), f32(Type::getFloatTy(module.getContext())),
      pointer(PointerType::get(module.getContext(), 0)) {}

CallInst *Runtime::call(IRBuilder<> &b, StringRef name, Type *result, ArrayRef<Value *> operands) const {
  SmallVector<Value *> values;
  SmallVector<Type *> types;
  for (Value *value : operands) {
    values.push_back(value->getType()->isPointerTy() ? b.CreateAddrSpaceCast(value, pointer) : value);
    types.push_back(values.back()->getType());
  }
  auto *function =
      cast<Function>(module.getOrInsertFunction(name, FunctionType::get(result, types, false)).getCallee());
  function->setDoesNotThrow();
  CallInst *call = b.CreateCall(function, values);
  for (unsigned i = 0; i < types.size(); ++i) // C callees take small integers extended to 32 bits
    if (types[i]->isIntegerTy() && types[i]->getIntegerBitWidth() < 32) {
      function->addParamAttr(i, Attribute::ZExt);
      call->addParamAttr(i, Attribute::ZExt);
    }
  return call;
}

CallInst *Runtime::pure(IRBuilder<> &b, StringRef name, Type *result, ArrayRef<Value *> operands) const {
  CallInst *made = call(b, name, result, operands);
  made->getCalledFunction()->setDoesNotAccessMemory();
  made->getCalledFunction()->setWillReturn();
  return made;
}

Value *Runtime::sharedBase(IRBuilder<> &b) const { return pure(b, "qsim_smem_base", pointer, {}); }

std::string text(const Value &value) {
  std::string out;
  raw_string_ostream stream(out);
  value.print(stream);
  return StringRef(out).trim().str();
}

namespace {

/// The steps read one function at a time: addresses are traced to the kernel's own parameters and variables.
Status inlineDeviceFunctions(Module &module) {
  bool any = false;
  for (Function &f : module) {
    if (f.isDeclaration() || f.getCallingConv() == CallingConv::PTX_Kernel) continue;
    any = true;
    f.setLinkage(GlobalValue::InternalLinkage);
    f.setComdat(nullptr);
    f.removeFnAttr(Attribute::NoInline);
    f.removeFnAttr(Attribute::OptimizeNone);
    f.addFnAttr(Attribute::AlwaysInline);
  }
  if (!any) return {};
  for (Function &f : module)
    for (BasicBlock &block : f)
      for (Instruction &i : block)
        if (auto *call = dyn_cast<CallBase>(&i)) call->removeFnAttr(Attribute::NoInline);
  PassBuilder passes;
  LoopAnalysisManager loops;
  FunctionAnalysisManager functions;
  CGSCCAnalysisManager sccs;
  ModuleAnalysisManager modules;
  passes.registerModuleAnalyses(modules);
  passes.registerCGSCCAnalyses(sccs);
  passes.registerFunctionAnalyses(functions);
  passes.registerLoopAnalyses(loops);
  passes.crossRegisterProxies(loops, functions, sccs, modules);
  AlwaysInlinerPass().run(module, modules);
  for (Function &f : module)
    if (!f.isDeclaration() && f.getCallingConv() != CallingConv::PTX_Kernel)
      return quern::Error::internal(
          "a device function that cannot be inlined (recursion, or its address taken)", f.getName().str());
  return {};
}

/// Facts about the GPU that mean nothing, or something else, to the host's code generator.
void makeHostFunction(Function &f) {
  f.setCallingConv(CallingConv::C);
  f.setAttributes({});
  f.setDoesNotThrow();
  for (BasicBlock &block : f)
    for (Instruction &i : block) {
      if (auto *update = dyn_cast<AtomicRMWInst>(&i)) update->setSyncScopeID(SyncScope::System);
      if (auto *exchange = dyn_cast<AtomicCmpXchgInst>(&i)) exchange->setSyncScopeID(SyncScope::System);
      if (auto *load = dyn_cast<LoadInst>(&i)) load->setSyncScopeID(SyncScope::System);
      if (auto *store = dyn_cast<StoreInst>(&i)) store->setSyncScopeID(SyncScope::System);
      if (auto *fence = dyn_cast<FenceInst>(&i)) fence->setSyncScopeID(SyncScope::System);
    }
}

/// A by-value parameter arrives as a pointer. The kernel gets the caller's bytes if it cannot change them
/// (grid_constant: a tensor map's address is its identity), else a copy.
void addEntry(Function &kernel, const Runtime &runtime) {
  Module &module = *kernel.getParent();
  auto *type = FunctionType::get(runtime.voidType, {runtime.pointer}, false);
  auto *entry = Function::Create(type, GlobalValue::ExternalLinkage, kernel.getName() + "_entry", module);
  entry->setDoesNotThrow();
  IRBuilder<> b(BasicBlock::Create(module.getContext(), "", entry));
  SmallVector<Value *> arguments;
  for (Argument &parameter : kernel.args()) {
    Value *slot = b.CreateConstGEP1_32(runtime.pointer, entry->getArg(0), parameter.getArgNo());
    Value *bytes = b.CreateLoad(runtime.pointer, slot);
    if (!parameter.hasByValAttr()) {
      arguments.push_back(b.CreateLoad(parameter.getType(), bytes));
    } else if (parameter.hasAttribute("nvvm.grid_constant")) {
      arguments.push_back(b.CreateAddrSpaceCast(bytes, parameter.getType()));
    } else {
      AllocaInst *copy = b.CreateAlloca(parameter.getParamByValType());
      copy->setAlignment(std::max(copy->getAlign(), parameter.getParamAlign().valueOrOne()));
      uint64_t size = module.getDataLayout().getTypeAllocSize(parameter.getParamByValType());
      b.CreateMemCpy(copy, copy->getAlign(), bytes, Align(1), size);
      arguments.push_back(b.CreateAddrSpaceCast(copy, parameter.getType()));
    }
  }
  b.CreateCall(&kernel, arguments);
  b.CreateRetVoid();
}

} // namespace

Status lateSplit(Module &module) {
  if (Status status = inlineDeviceFunctions(module); !status) return status;
  SmallVector<Function *> kernels;
  for (Function &f : module)
    if (!f.isDeclaration()) kernels.push_back(&f);
  if (kernels.empty()) return quern::Error::internal("no function of the module is a kernel", "late split");
  Runtime runtime(module);
  for (Function *kernel : kernels) {
    if (Status status = splitIntrinsics(*kernel, runtime); !status) return status;
    if (Status status = checkMemory(*kernel, runtime); !status) return status;
    if (Status status = splitPrimitives(*kernel, runtime); !status) return status;
  }
  if (Status status = placeShared(module, runtime); !status) return status;
  for (Function *kernel : kernels) {
    addEntry(*kernel, runtime);
    makeHostFunction(*kernel);
    kernel->setLinkage(GlobalValue::InternalLinkage);
  }
  for (Function &f : make_early_inc_range(module))
    if (f.isDeclaration() && f.use_empty()) f.eraseFromParent();
  std::string errors;
  raw_string_ostream stream(errors);
  if (verifyModule(module, &stream))
    return quern::Error::internal(errors, "LLVM's verifier, after the late split");
  return {};
}

} // namespace quern::sim
