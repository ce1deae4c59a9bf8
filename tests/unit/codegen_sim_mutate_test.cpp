// Automatic mutants: which there are, in which order, and that each is what it says.
#include "codegen/sim/Mutate.h"
#include "tests/unit/codegen_sim_support.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Support/raw_ostream.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

namespace quern::test {
namespace {
using testing::ElementsAre, testing::ElementsAreArray, testing::HasSubstr;

const char *kernel = R"(
@quern_smem = external addrspace(3) global [0 x i8], align 1024
declare void @q.mbarrier.wait(ptr addrspace(3), i32)
declare void @q.mbarrier.arrive(ptr addrspace(3))
declare void @q.cp.async.commit()
declare void @q.cp.async.wait.1()
declare void @q.tma.prefetch(ptr)
declare void @q.fence.proxy.async()
declare i32 @q.cvt.bf16x2(float, float)
declare { float, float, float, float } @q.wgmma.bf16.n8(float, float, float, float, i32, i32, i32, i32, i64)
declare { float, float, float, float } @q.wgmma.wait.0.n4(float, float, float, float)
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)
define ptx_kernel void @k(ptr addrspace(1) %out, ptr %map, i32 %n, float %f) {
  call void @q.tma.prefetch(ptr %map)
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  br label %body
body:
  %i = phi i32 [ 7, %0 ], [ %i1, %body ]
  %parity = and i32 %i, 1
  call void @q.mbarrier.wait(ptr addrspace(3) getelementptr (i8, ptr addrspace(3) @quern_smem, i64 64), i32 %parity)
  %a = call i32 @q.cvt.bf16x2(float %f, float %f)
  store i32 %a, ptr addrspace(3) @quern_smem
  call void @q.fence.proxy.async()
  %m = call { float, float, float, float } @q.wgmma.bf16.n8(float 0.0, float 0.0, float 0.0, float %f, i32 %a, i32 %a, i32 %a, i32 %a, i64 1152921504606846976)
  %m3 = extractvalue { float, float, float, float } %m, 3
  %w = call { float, float, float, float } @q.wgmma.wait.0.n4(float 0.0, float 0.0, float 0.0, float %m3)
  %w3 = extractvalue { float, float, float, float } %w, 3
  call void @q.cp.async.commit()
  call void @q.cp.async.wait.1()
  call void @q.mbarrier.arrive(ptr addrspace(3) @quern_smem)
  %p = getelementptr inbounds i8, ptr addrspace(1) %out, i64 4
  store float %w3, ptr addrspace(1) %p
  %i1 = add nuw i32 %i, 1
  %z = icmp slt i32 %i1, %n
  br i1 %z, label %body, label %exit
exit:
  ret void
})";

std::vector<std::string> all() {
  SimModuleText input = parseIr(kernel);
  return sim::mutants(*input.module);
}

std::string print(llvm::Module &module) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  module.print(stream, nullptr);
  return text;
}

/// The body of the mutant with this description.
std::string mutant(const std::string &description) {
  auto descriptions = all();
  size_t index = std::find(descriptions.begin(), descriptions.end(), description) - descriptions.begin();
  SimModuleText input = parseIr(kernel);
  auto applied = sim::applyMutant(*input.module, index);
  if (!applied) return applied.error().str();
  EXPECT_EQ(*applied, description);
  return bodyOf(print(*input.module), "k");
}

TEST(SimMutate, TheListIsFixed) {
  EXPECT_THAT(all(),
              ElementsAreArray({
                  "drop barrier.cta.sync.aligned.all #0",
                  "drop q.mbarrier.wait #0",
                  "drop q.cvt.bf16x2 #0",
                  "drop q.fence.proxy.async #0",
                  "drop q.wgmma.bf16.n8 #0",
                  "duplicate q.wgmma.bf16.n8 #0",
                  "drop q.wgmma.wait.0.n4 #0",
                  "q.wgmma.wait.0.n4 #0 -> q.wgmma.wait.1.n4",
                  "drop q.cp.async.commit #0",
                  "duplicate q.cp.async.commit #0",
                  "drop q.cp.async.wait.1 #0",
                  "q.cp.async.wait.1 #0 -> q.cp.async.wait.2",
                  "drop q.mbarrier.arrive #0",
                  "duplicate q.mbarrier.arrive #0",
                  "move q.tma.prefetch #0 behind barrier.cta.sync.aligned.all #0",
                  "move q.mbarrier.wait #0 behind q.fence.proxy.async #0",
                  "move q.fence.proxy.async #0 before q.mbarrier.wait #0",
                  "move q.fence.proxy.async #0 behind q.wgmma.bf16.n8 #0",

                  "move q.wgmma.wait.0.n4 #0 behind q.cp.async.commit #0",
                  "move q.cp.async.commit #0 behind q.cp.async.wait.1 #0",
                  "move q.cp.async.wait.1 #0 behind q.mbarrier.arrive #0",
                  "64 -> 65 in %1 = getelementptr i8, ptr addrspace(3) @quern_smem, i64 64, for operand 0 of "
                  "q.mbarrier.wait #0",
                  "64 -> 128 in %1 = getelementptr i8, ptr addrspace(3) @quern_smem, i64 64, for operand 0 "
                  "of q.mbarrier.wait #0",
                  "7 -> 8 in %i = phi i32 [ 7, %0 ], [ %i1, %body ], for operand 1 of q.mbarrier.wait #0",
                  "7 -> 14 in %i = phi i32 [ 7, %0 ], [ %i1, %body ], for operand 1 of q.mbarrier.wait #0",
                  "1 -> 2 in %i1 = add nuw i32 %i, 1, for operand 1 of q.mbarrier.wait #0",
                  "1 -> 2 in %parity = and i32 %i, 1, for operand 1 of q.mbarrier.wait #0",
                  "1152921504606846976 -> 1152921504606846977 in operand 8 of q.wgmma.bf16.n8 #0",
                  "4 -> 5 in %p = getelementptr inbounds i8, ptr addrspace(1) %out, i64 4, for the address "
                  "of a store",
                  "4 -> 8 in %p = getelementptr inbounds i8, ptr addrspace(1) %out, i64 4, for the address "
                  "of a store",
              }));
}

TEST(SimMutate, EveryMutantIsValidAndDiffers) {
  SimModuleText original = parseIr(kernel);
  size_t count = sim::mutantCount(*original.module);
  std::set<std::string> texts = {print(*original.module)};
  for (size_t i = 0; i < count; ++i) {
    SimModuleText input = parseIr(kernel);
    auto description = sim::applyMutant(*input.module, i);
    ASSERT_TRUE(description) << description.error().str();
    std::string errors;
    llvm::raw_string_ostream stream(errors);
    EXPECT_FALSE(llvm::verifyModule(*input.module, &stream)) << *description << "\n" << errors;
    EXPECT_TRUE(texts.insert(print(*input.module)).second) << *description << " changes nothing new";
    Status split = sim::lateSplit(*input.module);
    EXPECT_TRUE(split) << *description << ": " << split.error().str();
  }
  SimModuleText input = parseIr(kernel);
  auto beyond = sim::applyMutant(*input.module, count);
  ASSERT_FALSE(beyond);
}

TEST(SimMutate, DroppedCallsPassTheirOperandsThrough) {
  EXPECT_THAT(mutant("drop q.wgmma.wait.0.n4 #0"), testing::Not(HasSubstr("@q.wgmma.wait")));
  OneThread machine;
  SimModuleText input = parseIr(R"(
declare { float, float, float, float } @q.wgmma.wait.0.n4(float, float, float, float)
define ptx_kernel void @k(ptr addrspace(1) %out, float %f) {
  %w = call { float, float, float, float } @q.wgmma.wait.0.n4(float 1.0, float 2.0, float 3.0, float %f)
  %w3 = extractvalue { float, float, float, float } %w, 3
  store float %w3, ptr addrspace(1) %out
  ret void
})");
  ASSERT_EQ(*sim::applyMutant(*input.module, 0), "drop q.wgmma.wait.0.n4 #0");
  float out = 0, f = 5;
  void *to = &out;
  machine.run(std::move(input), "k", {&to, &f});
  EXPECT_EQ(out, 5); // the wait of this machine doubles its operands
}

TEST(SimMutate, ADuplicateTakesWhatTheFirstLeft) {
  OneThread machine;
  SimModuleText input = parseIr(R"(
declare { float, float, float, float } @q.wgmma.bf16.n8(float, float, float, float, i32, i32, i32, i32, i64)
define ptx_kernel void @k(ptr addrspace(1) %out) {
  %w = call { float, float, float, float } @q.wgmma.bf16.n8(float 1.0, float 2.0, float 3.0, float 4.0, i32 1, i32 2, i32 3, i32 4, i64 10)
  %w3 = extractvalue { float, float, float, float } %w, 3
  store float %w3, ptr addrspace(1) %out
  ret void
})");
  ASSERT_EQ(*sim::applyMutant(*input.module, 1), "duplicate q.wgmma.bf16.n8 #0");
  float out = 0;
  void *to = &out;
  machine.run(std::move(input), "k", {&to});
  EXPECT_EQ(out, 4 + 2 * (4 + 10));
}

TEST(SimMutate, MovesGoPastWhatIsBetween) {
  std::string later = mutant("move q.mbarrier.wait #0 behind q.fence.proxy.async #0");
  EXPECT_LT(later.find("@q.fence.proxy.async"), later.find("@q.mbarrier.wait")) << later;
  EXPECT_LT(later.find("store i32 %a"), later.find("@q.fence.proxy.async")) << later;
  std::string earlier = mutant("move q.fence.proxy.async #0 before q.mbarrier.wait #0");
  EXPECT_LT(earlier.find("@q.fence.proxy.async"), earlier.find("@q.mbarrier.wait")) << earlier;
  EXPECT_LT(earlier.find("@q.mbarrier.wait"), earlier.find("store i32 %a")) << earlier;
}

} // namespace
} // namespace quern::test
