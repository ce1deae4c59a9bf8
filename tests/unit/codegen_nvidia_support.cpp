#include "tests/unit/codegen_nvidia_support.h"
#include "codegen/gpu/OptimizeNvptx.h"
#include "codegen/gpu/Primitives.h"
#include "runtime/driver/Ptxas.h"
#include <gtest/gtest.h>

using namespace llvm;

namespace quern::test {

std::unique_ptr<TargetMachine> hopperTarget() {
  auto target = nvptx::createTarget();
  EXPECT_TRUE(target) << target.error().str();
  return std::move(*target);
}

static Type *typeOf(char letter, LLVMContext &context) {
  switch (letter) {
  case 'h': return Type::getInt16Ty(context);
  case 'l': return Type::getInt64Ty(context);
  case 'f': return Type::getFloatTy(context);
  case 'g': return PointerType::get(context, 1);
  case 'p': return PointerType::get(context, 0);
  default: return Type::getInt32Ty(context); // 'i', 's'
  }
}

KernelUnderTest::KernelUnderTest(TargetMachine &target, std::vector<char> letters)
    : module(std::make_unique<Module>("test", context)), letters(std::move(letters)) {
  nvptx::setTarget(*module, target);
  std::vector<Type *> types{PointerType::get(context, 1)};
  for (char letter : this->letters) types.push_back(typeOf(letter, context));
  function = Function::Create(FunctionType::get(Type::getVoidTy(context), types, false),
                              Function::ExternalLinkage, "kernel", *module);
  function->setCallingConv(CallingConv::PTX_Kernel);
  shared = new GlobalVariable(*module, ArrayType::get(Type::getInt8Ty(context), 0), false,
                              GlobalValue::ExternalLinkage, nullptr, "smem", nullptr,
                              GlobalValue::NotThreadLocal, 3);
  shared->setAlignment(Align(1024));
  builder = std::make_unique<IRBuilder<>>(BasicBlock::Create(context, "entry", function));
}

Value *KernelUnderTest::operand(unsigned i) {
  Value *argument = function->getArg(i + 1);
  return letters[i] == 's' ? builder->CreateGEP(builder->getInt8Ty(), shared, argument) : argument;
}

CallInst *KernelUnderTest::call(const std::string &name, std::vector<Value *> operands) {
  auto use = gpu::readPrimitive(name);
  EXPECT_TRUE(use) << use.error().str();
  return builder->CreateCall(module->getOrInsertFunction(name, gpu::primitiveType(*use, context)), operands);
}

Value *KernelUnderTest::load(Type *type, int64_t index) {
  Value *at = builder->CreateConstGEP1_64(type, function->getArg(0), index);
  return builder->CreateLoad(type, at);
}

void KernelUnderTest::store(Value *value, int64_t index) {
  builder->CreateStore(value, builder->CreateConstGEP1_64(value->getType(), function->getArg(0), index));
}

void KernelUnderTest::callWithLoads(const std::string &name) {
  auto use = gpu::readPrimitive(name);
  ASSERT_TRUE(use) << use.error().str();
  std::vector<Value *> operands;
  for (Type *type : gpu::primitiveType(*use, context)->params()) {
    if (type == PointerType::get(context, 3))
      operands.push_back(
          builder->CreateGEP(builder->getInt8Ty(), shared, load(builder->getInt32Ty(), operands.size())));
    else
      operands.push_back(load(type, operands.size()));
  }
  CallInst *result = call(name, operands);
  if (auto *tuple = dyn_cast<StructType>(result->getType())) {
    for (unsigned i = 0; i < tuple->getNumElements(); ++i) store(builder->CreateExtractValue(result, i), i);
  } else if (!result->getType()->isVoidTy()) {
    store(result, 0);
  }
}

std::optional<PtxasResult> runPtxas(const std::string &ptx) {
  if (driver::findPtxas().empty()) return std::nullopt;
  auto made = driver::assemble(ptx, "sm_90a");
  if (!made) return PtxasResult{false, made.error().str()};
  return PtxasResult{true, made->log};
}

} // namespace quern::test
