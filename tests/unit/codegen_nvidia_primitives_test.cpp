// Every GPU primitive through inline asm, LLVM's NVPTX back end and ptxas; what is refused and why.
#include "codegen/emit/Nvptx.h"
#include "codegen/gpu/Primitives.h"
#include "codegen/nvidia/RealizePrimitives.h"
#include "runtime/driver/Ptxas.h"
#include "tests/unit/codegen_nvidia_support.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/IntrinsicsNVPTX.h"
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <regex>

namespace quern::test {
namespace {
using testing::HasSubstr, testing::Not;

/// PTX of the kernel, or the failure.
Expected<std::string> ptxOf(KernelUnderTest &kernel, llvm::TargetMachine &target) {
  if (Status ok = gpu::setPrimitiveAttributes(*kernel.module); !ok) return ok.takeError();
  if (Status ok = nvidia::realizePrimitives(*kernel.module); !ok) return ok.takeError();
  return nvptx::emitPtx(*kernel.module, target);
}

/// ptxas takes it, without spills and without a word about wgmma (C75xx).
void expectAccepted(const std::string &ptx, const std::string &what) {
  auto result = runPtxas(ptx);
  ASSERT_TRUE(result) << noPtxas;
  EXPECT_TRUE(result->ok) << what << ":\n" << result->log << ptx;
  EXPECT_THAT(result->log, HasSubstr("0 bytes spill stores, 0 bytes spill loads")) << what;
  EXPECT_THAT(result->log, Not(HasSubstr("C75"))) << what;
}

class Nvidia : public testing::Test {
protected:
  void SetUp() override {
    if (driver::findPtxas().empty()) GTEST_SKIP() << noPtxas;
  }
  std::unique_ptr<llvm::TargetMachine> target = hopperTarget();
};

TEST_F(Nvidia, EveryRowOfTheTableIsOneAcceptedStatement) {
  for (const gpu::Primitive &row : gpu::primitives) {
    std::string name = "q." + std::string(row.name);
    KernelUnderTest kernel(*target);
    kernel.callWithLoads(name);
    kernel.callWithLoads(name); // twice: labels and registers of one copy must not meet the other's
    kernel.finish();
    auto ptx = ptxOf(kernel, *target);
    ASSERT_TRUE(ptx) << name << ": " << ptx.error().str();
    // An instruction of the row arrives in the PTX.
    std::smatch first;
    std::string body(row.ptx);
    ASSERT_TRUE(std::regex_search(body, first, std::regex(R"(([a-z][a-z0-9_]*\.[a-z][\w:.]*))"))) << name;
    EXPECT_THAT(*ptx, HasSubstr(first[1].str())) << name;
    EXPECT_THAT(*ptx, Not(HasSubstr("q."))) << name;
    if (row.effect == gpu::Effect::Mma) { // alone it draws ptxas's warnings: the loops below judge it
      auto result = runPtxas(*ptx);
      EXPECT_TRUE(result && result->ok) << name << ":\n" << result->log;
    } else {
      expectAccepted(*ptx, name);
    }
  }
}

TEST_F(Nvidia, EveryParametricNameIsAccepted) {
  for (const char *name :
       {"q.wgmma.fence.n4.a0", "q.wgmma.fence.n0.a4", "q.wgmma.fence.n2.a0", "q.wgmma.fence.n64.a16",
        "q.wgmma.fence.n128.a4", "q.wgmma.wait.0.n4", "q.wgmma.wait.2.n64", "q.wgmma.wait.1.n2",
        "q.cp.async.wait.0", "q.cp.async.wait.3", "q.wgmma.f16.n8", "q.wgmma.f16.n256"}) {
    KernelUnderTest kernel(*target);
    kernel.callWithLoads(name);
    kernel.finish();
    auto ptx = ptxOf(kernel, *target);
    ASSERT_TRUE(ptx) << name << ": " << ptx.error().str();
    auto result = runPtxas(*ptx); // lone fences and waits draw warnings: syntax only
    EXPECT_TRUE(result->ok) << name << ":\n" << result->log;
  }
}

/// fence, mma, commit, wait in a loop over K, as a kernel's main loop has them.
void mainLoop(KernelUnderTest &kernel, const std::string &type, int n) {
  auto &b = *kernel.builder;
  kernel.function->addFnAttr("nvvm.reqntid", "128");
  unsigned floats = n / 2, ints = 4;
  auto *f32 = b.getFloatTy();
  llvm::BasicBlock *entry = b.GetInsertBlock(),
                   *loop = llvm::BasicBlock::Create(kernel.context, "loop", kernel.function),
                   *exit = llvm::BasicBlock::Create(kernel.context, "exit", kernel.function);
  b.CreateBr(loop);
  b.SetInsertPoint(loop);
  auto *step = b.CreatePHI(b.getInt32Ty(), 2);
  std::vector<llvm::Value *> values;
  for (unsigned i = 0; i < floats; ++i) values.push_back(b.CreatePHI(f32, 2));
  std::vector<llvm::PHINode *> phis;
  for (llvm::Value *value : values) phis.push_back(llvm::cast<llvm::PHINode>(value));
  for (unsigned i = 0; i < ints; ++i) {
    auto *address = b.CreateGEP(b.getInt32Ty(), kernel.function->getArg(0), b.CreateAdd(step, b.getInt32(i)));
    values.push_back(b.CreateLoad(b.getInt32Ty(), address));
  }
  auto unpack = [&](llvm::Value *tuple, unsigned count) {
    for (unsigned i = 0; i < count; ++i) values[i] = b.CreateExtractValue(tuple, i);
  };
  unpack(kernel.call(fmt::format("q.wgmma.fence.n{}.a{}", floats, ints), values), floats + ints);
  values.push_back(kernel.operand(0)); // the descriptor
  unpack(kernel.call(fmt::format("q.wgmma.{}.n{}", type, n), values), floats);
  kernel.call("q.wgmma.commit", {});
  values.resize(floats);
  unpack(kernel.call(fmt::format("q.wgmma.wait.0.n{}", floats), values), floats);
  auto *next = b.CreateAdd(step, b.getInt32(4));
  step->addIncoming(b.getInt32(0), entry), step->addIncoming(next, loop);
  for (unsigned i = 0; i < floats; ++i)
    phis[i]->addIncoming(llvm::ConstantFP::get(f32, 0), entry), phis[i]->addIncoming(values[i], loop);
  b.CreateCondBr(b.CreateICmpULT(next, kernel.operand(1)), loop, exit);
  b.SetInsertPoint(exit);
  for (unsigned i = 0; i < floats; ++i) kernel.store(values[i], i);
  kernel.finish();
}

TEST_F(Nvidia, WgmmaOfEveryWidthRunsAsynchronously) {
  for (int n = 8; n <= 256; n += 8) {
    KernelUnderTest kernel(*target, {'l', 'i'});
    mainLoop(kernel, n % 16 ? "f16" : "bf16", n);
    auto ptx = ptxOf(kernel, *target);
    ASSERT_TRUE(ptx) << n << ": " << ptx.error().str();
    expectAccepted(*ptx, fmt::format("n={}", n));
  }
}

TEST_F(Nvidia, WgmmaText) {
  KernelUnderTest kernel(*target, {'l', 'i'});
  mainLoop(kernel, "bf16", 8);
  auto ptx = ptxOf(kernel, *target);
  ASSERT_TRUE(ptx);
  // Four accumulators, four A registers, a descriptor; accumulate, no negation, B is K-major.
  EXPECT_TRUE(std::regex_search(
      *ptx,
      std::regex(
          R"(wgmma\.mma_async\.sync\.aligned\.m64n8k16\.f32\.bf16\.bf16 \{(%r\d+), %r\d+, %r\d+, %r\d+\}, )"
          R"(\{%r\d+, %r\d+, %r\d+, %r\d+\}, %rd\d+, 1, 1, 1, 0;)")))
      << *ptx;
  EXPECT_THAT(*ptx, HasSubstr("wgmma.wait_group.sync.aligned 0;"));
  EXPECT_THAT(*ptx, HasSubstr(".reqntid 128"));
}

/// A producer warpgroup that gives registers up and a consumer that takes them.
std::string specialised(llvm::TargetMachine &target, bool blockSize) {
  KernelUnderTest kernel(target, {'i'});
  if (blockSize) kernel.function->addFnAttr("nvvm.reqntid", "384");
  kernel.function->addFnAttr("nvvm.minctasm", "1");
  auto &b = *kernel.builder;
  auto *producer = llvm::BasicBlock::Create(kernel.context, "producer", kernel.function),
       *consumer = llvm::BasicBlock::Create(kernel.context, "consumer", kernel.function);
  auto *thread = b.CreateIntrinsic(b.getInt32Ty(), llvm::Intrinsic::nvvm_read_ptx_sreg_tid_x, {});
  b.CreateCondBr(b.CreateICmpULT(thread, b.getInt32(128)), producer, consumer);
  b.SetInsertPoint(producer);
  kernel.call("q.setmaxnreg.dec.40", {});
  kernel.store(thread, 0);
  b.CreateRetVoid();
  b.SetInsertPoint(consumer);
  kernel.call("q.setmaxnreg.inc.232", {});
  kernel.store(thread, 1);
  b.CreateRetVoid();
  auto ptx = ptxOf(kernel, target);
  EXPECT_TRUE(ptx) << ptx.error().str();
  return ptx ? *ptx : "";
}

TEST_F(Nvidia, SetmaxnregIsHonouredOnlyWithTheBlockSize) {
  std::string ptx = specialised(*target, true);
  EXPECT_THAT(ptx, HasSubstr("setmaxnreg.dec.sync.aligned.u32 40;"));
  EXPECT_THAT(ptx, HasSubstr(".reqntid 384"));
  EXPECT_THAT(ptx, HasSubstr(".minnctapersm 1"));
  expectAccepted(ptx, "with .reqntid");
  auto without = runPtxas(specialised(*target, false));
  EXPECT_THAT(without->log, HasSubstr("setmaxnreg")) << "ptxas says that it ignores it";
}

TEST_F(Nvidia, ClusterSizeReachesThePtx) {
  KernelUnderTest kernel(*target);
  kernel.function->addFnAttr("nvvm.reqntid", "128");
  kernel.function->addFnAttr("nvvm.cluster_dim", "2");
  kernel.callWithLoads("q.cluster.arrive");
  kernel.callWithLoads("q.cluster.wait");
  kernel.finish();
  auto ptx = ptxOf(kernel, *target);
  ASSERT_TRUE(ptx);
  EXPECT_TRUE(std::regex_search(*ptx, std::regex(R"(\.reqnctapercluster 2)"))) << *ptx;
  expectAccepted(*ptx, "cluster");
}

TEST_F(Nvidia, SharedAddressesAreThirtyTwoBits) {
  KernelUnderTest kernel(*target, {'s', 'i'});
  kernel.call("q.mbarrier.init", {kernel.operand(0), kernel.operand(1)});
  kernel.finish();
  auto ptx = ptxOf(kernel, *target);
  ASSERT_TRUE(ptx);
  EXPECT_TRUE(std::regex_search(*ptx, std::regex(R"(mbarrier\.init\.shared::cta\.b64 \[%r\d+\], %r\d+;)")))
      << *ptx;
}

// Names and types, without ptxas.

TEST(Primitives, NamesAreReadExactly) {
  auto wgmma = gpu::readPrimitive("q.wgmma.bf16.n256");
  ASSERT_TRUE(wgmma);
  EXPECT_EQ(wgmma->kind, gpu::PrimitiveUse::Wgmma);
  EXPECT_EQ(wgmma->number, 256);
  EXPECT_EQ(wgmma->floats, 128);
  auto wait = gpu::readPrimitive("q.wgmma.wait.2.n64");
  ASSERT_TRUE(wait);
  EXPECT_EQ(wait->number, 2);
  EXPECT_EQ(wait->floats, 64);
  auto regs = gpu::readPrimitive("q.setmaxnreg.dec.40");
  ASSERT_TRUE(regs);
  EXPECT_EQ(regs->variant, "dec");
  for (const char *name : {"q.",
                           "wgmma.commit",
                           "q.mbarrier",
                           "q.mbarrier.init2",
                           "q.wgmma.bf16.n12",
                           "q.wgmma.bf16.n264",
                           "q.wgmma.bf16.n0",
                           "q.wgmma.bf16.n08",
                           "q.wgmma.bf16.n8x",
                           "q.wgmma.tf32.n8",
                           "q.wgmma.bf16.n-8",
                           "q.wgmma.fence.n0.a0",
                           "q.wgmma.fence.n0.a1",
                           "q.wgmma.fence.n4",
                           "q.wgmma.fence.n129.a0",
                           "q.wgmma.wait.0.n0",
                           "q.wgmma.wait.0.n1",
                           "q.wgmma.wait.n4",
                           "q.setmaxnreg.inc.33",
                           "q.setmaxnreg.inc.16",
                           "q.setmaxnreg.inc.264",
                           "q.setmaxnreg.set.40",
                           "q.cp.async.wait.",
                           "q.cp.async.wait.01",
                           "q.cp.async.wait.16",
                           "q.cp.async.wait"}) {
    auto use = gpu::readPrimitive(name);
    ASSERT_FALSE(use) << name;
    EXPECT_EQ(use.error().kind, ErrorKind::Internal);
    EXPECT_EQ(use.error().message, fmt::format("'{}' is not a GPU primitive", name));
  }
}

TEST(Primitives, AttributesFollowTheEffect) {
  auto target = hopperTarget();
  KernelUnderTest kernel(*target);
  auto declared = [&](const char *name) {
    auto use = gpu::readPrimitive(name);
    auto *f = llvm::cast<llvm::Function>(
        kernel.module->getOrInsertFunction(name, gpu::primitiveType(*use, kernel.context)).getCallee());
    EXPECT_TRUE(gpu::setPrimitiveAttributes(*f)) << name;
    EXPECT_TRUE(f->doesNotThrow()) << name;
    return f;
  };
  auto *sync = declared("q.mbarrier.wait");
  EXPECT_TRUE(sync->isConvergent());
  EXPECT_FALSE(sync->willReturn());
  EXPECT_FALSE(sync->hasFnAttribute(llvm::Attribute::NoCallback));
  EXPECT_EQ(sync->getMemoryEffects(), llvm::MemoryEffects::unknown());
  for (const char *name :
       {"q.wgmma.bf16.n64", "q.wgmma.fence.n32.a4", "q.wgmma.wait.0.n32", "q.wgmma.commit"}) {
    auto *mma = declared(name);
    EXPECT_TRUE(mma->isConvergent()) << name;
    EXPECT_TRUE(mma->willReturn()) << name;
    EXPECT_TRUE(mma->onlyAccessesInaccessibleMemory()) << name;
    EXPECT_FALSE(mma->onlyReadsMemory()) << name;
  }
  auto *pure = declared("q.mul.bf16x2");
  EXPECT_FALSE(pure->isConvergent());
  EXPECT_TRUE(pure->doesNotAccessMemory());
  EXPECT_TRUE(pure->hasFnAttribute(llvm::Attribute::Speculatable));
  for (const char *name : {"q.setmaxnreg.inc.232", "q.cp.async.wait.1", "q.ld.cluster.f32"})
    EXPECT_EQ(declared(name)->getMemoryEffects(), llvm::MemoryEffects::unknown()) << name;
}

TEST(Primitives, WhatCannotBeRealisedIsRefused) {
  auto target = hopperTarget();
  auto failure = [&](auto build) {
    KernelUnderTest kernel(*target);
    build(kernel);
    kernel.finish();
    Status status = nvidia::realizePrimitives(*kernel.module);
    EXPECT_FALSE(status);
    return status ? "" : status.error().place + ": " + status.error().message;
  };
  auto *voidType =
      +[](llvm::LLVMContext &c) { return llvm::FunctionType::get(llvm::Type::getVoidTy(c), false); };
  EXPECT_THAT(failure([&](KernelUnderTest &k) {
                k.builder->CreateCall(k.module->getOrInsertFunction("q.nonsense", voidType(k.context)));
              }),
              HasSubstr("'q.nonsense' is not a GPU primitive"));
  EXPECT_THAT(failure([&](KernelUnderTest &k) {
                k.builder->CreateCall(k.module->getOrInsertFunction("q.mbarrier.init", voidType(k.context)));
              }),
              HasSubstr("q.mbarrier.init: is declared with another type than the primitive's"));
  EXPECT_THAT(failure([&](KernelUnderTest &k) {
                auto f = k.module->getOrInsertFunction("q.wgmma.commit", voidType(k.context));
                k.builder->CreateStore(f.getCallee(), k.function->getArg(0));
              }),
              HasSubstr("q.wgmma.commit: is used otherwise than by a call"));
  KernelUnderTest kernel(*target);
  kernel.module->getOrInsertFunction("q.ex2", voidType(kernel.context));
  Status status = gpu::setPrimitiveAttributes(*kernel.module);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().place, "q.ex2");
  EXPECT_EQ(status.error().message,
            "expected a declaration of type float (float), found a declaration of void ()");
}

TEST(Nvptx, WhatTheCodeGeneratorRefusesIsAnError) {
  auto target = hopperTarget();
  KernelUnderTest kernel(*target);
  auto *type =
      llvm::FunctionType::get(llvm::Type::getVoidTy(kernel.context), {kernel.builder->getInt32Ty()}, false);
  kernel.builder->CreateCall(type, llvm::InlineAsm::get(type, "nop $0;", "Q", true),
                             {kernel.builder->getInt32(1)});
  kernel.finish();
  auto ptx = nvptx::emitPtx(*kernel.module, *target);
  ASSERT_FALSE(ptx);
  EXPECT_THAT(ptx.error().str(), HasSubstr("NVPTX code generator"));
  KernelUnderTest broken(*target); // no terminator
  auto bad = nvptx::emitPtx(*broken.module, *target);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().str(), HasSubstr("does not have terminator"));
}

} // namespace
} // namespace quern::test
