// The late split: what primitives, intrinsics and accesses become, seen in text and by running one thread.
#include "codegen/gpu/OptimizeNvptx.h"
#include "codegen/gpu/Primitives.h"
#include "tests/unit/codegen_sim_support.h"
#include <bit>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <regex>

namespace quern::test {
namespace {
using testing::ElementsAre, testing::HasSubstr, testing::IsEmpty, testing::Not, testing::StartsWith;

size_t countOf(const std::string &text, const std::string &pattern) {
  std::regex expression(pattern);
  return std::distance(std::sregex_iterator(text.begin(), text.end(), expression), {});
}

const char *irType(char letter) {
  switch (letter) {
  case 'v': return "void";
  case 'i': return "i32";
  case 'h': return "i16";
  case 'l': return "i64";
  case 'f': return "float";
  case 's': return "ptr addrspace(3)";
  case 'g': return "ptr addrspace(1)";
  default: return "ptr";
  }
}

TEST(SimSplit, EveryRowBecomesACallOfItsFunction) {
  for (const gpu::Primitive &row : gpu::primitives) {
    std::string types, params, expected;
    for (char letter : row.signature.substr(2, row.signature.size() - 3)) {
      std::string type = irType(letter), separator = types.empty() ? "" : ", ";
      params += fmt::format("{}{} %p{}", separator, type, types.size());
      types += separator + type;
      std::string host = type.starts_with("ptr") ? "ptr" : type == "i16" ? "i16 zeroext" : type;
      expected += (expected.empty() ? "" : ", ") + host + R"( %\w+)";
    }
    std::string result = irType(row.signature[0]), name = "qsim_" + std::string(row.name);
    std::replace(name.begin(), name.end(), '.', '_');
    std::string split =
        splitText(fmt::format("declare {0} @q.{1}({2})\ndefine ptx_kernel void @k({3}) {{\n"
                              "  {4}call {0} @q.{1}({3})\n  ret void\n}}\n",
                              result, row.name, types, params, result == "void" ? "" : "%r = "));
    EXPECT_EQ(countOf(bodyOf(split, "k"), "call " + result + " @" + name + R"(\()" + expected + R"(\))"), 1u)
        << row.name << "\n"
        << split;
    EXPECT_THAT(split, Not(HasSubstr("@q."))) << row.name;
  }
}

/// Two MMAs in a row on a fragment of four accumulators.
const char *mmaKernel = R"(
declare { float, float, float, float, i32, i32, i32, i32 } @q.wgmma.fence.n4.a4(float, float, float, float, i32, i32, i32, i32)
declare { float, float, float, float } @q.wgmma.f16.n8(float, float, float, float, i32, i32, i32, i32, i64)
declare { float, float, float, float } @q.wgmma.wait.1.n4(float, float, float, float)
declare void @q.wgmma.commit()
define ptx_kernel void @k(ptr addrspace(1) %out, float %c, i32 %a, i64 %desc) {
  %f = call { float, float, float, float, i32, i32, i32, i32 } @q.wgmma.fence.n4.a4(float 1.0, float 2.0, float 3.0, float %c, i32 10, i32 20, i32 30, i32 %a)
  %f0 = extractvalue { float, float, float, float, i32, i32, i32, i32 } %f, 0
  %f1 = extractvalue { float, float, float, float, i32, i32, i32, i32 } %f, 1
  %f2 = extractvalue { float, float, float, float, i32, i32, i32, i32 } %f, 2
  %f3 = extractvalue { float, float, float, float, i32, i32, i32, i32 } %f, 3
  %a3 = extractvalue { float, float, float, float, i32, i32, i32, i32 } %f, 7
  %m = call { float, float, float, float } @q.wgmma.f16.n8(float %f0, float %f1, float %f2, float %f3, i32 10, i32 20, i32 30, i32 %a3, i64 %desc)
  %m0 = extractvalue { float, float, float, float } %m, 0
  %m1 = extractvalue { float, float, float, float } %m, 1
  %m2 = extractvalue { float, float, float, float } %m, 2
  %m3 = extractvalue { float, float, float, float } %m, 3
  %n = call { float, float, float, float } @q.wgmma.f16.n8(float %m0, float %m1, float %m2, float %m3, i32 10, i32 20, i32 30, i32 %a3, i64 7)
  call void @q.wgmma.commit()
  %n0 = extractvalue { float, float, float, float } %n, 0
  %n1 = extractvalue { float, float, float, float } %n, 1
  %n2 = extractvalue { float, float, float, float } %n, 2
  %n3 = extractvalue { float, float, float, float } %n, 3
  %w = call { float, float, float, float } @q.wgmma.wait.1.n4(float %n0, float %n1, float %n2, float %n3)
  %w0 = extractvalue { float, float, float, float } %w, 0
  %w3 = extractvalue { float, float, float, float } %w, 3
  store float %w0, ptr addrspace(1) %out
  %p = getelementptr float, ptr addrspace(1) %out, i32 1
  store float %w3, ptr addrspace(1) %p
  ret void
})";

void runMmaKernel(SimModuleText input) {
  OneThread machine;
  float out[2] = {}, c = 4;
  void *to = out;
  uint32_t a = 40;
  uint64_t desc = 100;
  machine.run(std::move(input), "k", {&to, &c, &a, &desc});
  EXPECT_THAT(machine.calls, ElementsAre("qsim_wgmma_fence 4 4 4 40", "qsim_wgmma f16 8 100",
                                         "qsim_wgmma f16 8 7", "qsim_wgmma_commit", "qsim_wgmma_wait 1 4",
                                         "qsim_global outside 4 store", "qsim_global outside 4 store"));
  EXPECT_EQ(out[0], 2 * (1.f + 10 + 100 + 10 + 7));
  EXPECT_EQ(out[1], 2 * (4.f + 40 + 100 + 40 + 7));
  EXPECT_THAT(machine.storedFloats, ElementsAre(out[0], out[1]));
}

TEST(SimSplit, FragmentsCrossThroughMemory) { runMmaKernel(parseIr(mmaKernel)); }

TEST(SimSplit, FragmentsCrossThroughMemoryAfterO3) {
  SimModuleText input = parseIr(mmaKernel);
  auto target = nvptx::createTarget();
  ASSERT_TRUE(target) << target.error().str();
  Status status = nvptx::optimize(*input.module, **target);
  ASSERT_TRUE(status) << status.error().str();
  runMmaKernel(std::move(input));
}

TEST(SimSplit, AChainOfMmasMovesItsAccumulatorsOnce) {
  std::string body = bodyOf(splitText(std::string(mmaKernel)), "k");
  EXPECT_EQ(countOf(body, "store float [^,]*, ptr %"), 4u) << body; // before the first call
  EXPECT_EQ(countOf(body, "= load float, ptr %"), 2u) << body;      // the two that are stored to `out`
}

TEST(SimSplit, WhatMemoryHoldsIsForgottenBetweenBlocks) {
  OneThread machine;
  float out[4] = {};
  void *to = out;
  int n = 3;
  machine.run(parseIr(R"(
declare { float, float, float, float } @q.wgmma.bf16.n8(float, float, float, float, i32, i32, i32, i32, i64)
define ptx_kernel void @k(ptr addrspace(1) %out, i32 %n) {
entry:
  %m = call { float, float, float, float } @q.wgmma.bf16.n8(float 1.0, float 2.0, float 3.0, float 4.0, i32 0, i32 0, i32 0, i32 0, i64 0)
  %m0 = extractvalue { float, float, float, float } %m, 0
  %m1 = extractvalue { float, float, float, float } %m, 1
  %m2 = extractvalue { float, float, float, float } %m, 2
  %m3 = extractvalue { float, float, float, float } %m, 3
  br label %loop
loop: ; the same operands each time
  %i = phi i32 [ 0, %entry ], [ %i1, %loop ]
  %r = call { float, float, float, float } @q.wgmma.bf16.n8(float %m0, float %m1, float %m2, float %m3, i32 1, i32 1, i32 1, i32 1, i64 10)
  %i1 = add i32 %i, 1
  %z = icmp slt i32 %i1, %n
  br i1 %z, label %loop, label %exit
exit:
  %r0 = extractvalue { float, float, float, float } %r, 0
  %r3 = extractvalue { float, float, float, float } %r, 3
  store float %r0, ptr addrspace(1) %out
  %p = getelementptr i8, ptr addrspace(1) %out, i64 4
  store float %r3, ptr addrspace(1) %p
  ret void
})"),
              "k", {&to, &n});
  EXPECT_EQ(out[0], 12);
  EXPECT_EQ(out[1], 15);
}

TEST(SimSplit, NumbersInNamesBecomeOperands) {
  std::string split = splitText(R"(
declare void @q.setmaxnreg.inc.232()
declare void @q.setmaxnreg.dec.40()
declare void @q.cp.async.wait.2()
define ptx_kernel void @k() {
  call void @q.setmaxnreg.inc.232()
  call void @q.setmaxnreg.dec.40()
  call void @q.cp.async.wait.2()
  ret void
})");
  EXPECT_THAT(split, HasSubstr("call void @qsim_setmaxnreg(i32 232, i32 1)"));
  EXPECT_THAT(split, HasSubstr("call void @qsim_setmaxnreg(i32 40, i32 0)"));
  EXPECT_THAT(split, HasSubstr("call void @qsim_cp_async_wait(i32 2)"));
}

TEST(SimSplit, SmallIntegersReachTheFunctionWhole) {
  OneThread machine;
  uint16_t mask = 0x8003;
  int map = 77;
  void *descriptor = &map;
  machine.run(parseIr(R"(
@quern_smem = external addrspace(3) global [0 x i8], align 1024
declare void @q.tma.load2d.multicast(ptr addrspace(3), ptr, i32, i32, ptr addrspace(3), i16)
define ptx_kernel void @k(ptr %map, i16 %mask) {
  %to = getelementptr i8, ptr addrspace(3) @quern_smem, i32 2048
  call void @q.tma.load2d.multicast(ptr addrspace(3) %to, ptr %map, i32 -5, i32 6, ptr addrspace(3) @quern_smem, i16 %mask)
  ret void
})"),
              "k", {&descriptor, &mask});
  EXPECT_THAT(machine.calls, ElementsAre("qsim_tma_load2d_multicast +2048 77 -5 6 +0 8003"));
}

TEST(SimSplit, Intrinsics) {
  OneThread machine;
  machine.thread = 5;
  alignas(32) uint32_t out[8] = {};
  void *to = out;
  machine.run(parseIr(R"(
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.tid.y()
declare i32 @llvm.nvvm.read.ptx.sreg.ntid.z()
declare i32 @llvm.nvvm.read.ptx.sreg.warpsize()
declare float @llvm.nvvm.shfl.sync.bfly.f32(i32, float, i32, i32)
declare i32 @llvm.nvvm.vote.ballot.sync(i32, i1)
declare i1 @llvm.nvvm.vote.all.sync(i32, i1)
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)
declare float @llvm.nvvm.ex2.approx.ftz.f32(float)
declare void @llvm.nvvm.membar.gl()
define ptx_kernel void @k(ptr addrspace(1) %out) {
  %x = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %y = call i32 @llvm.nvvm.read.ptx.sreg.tid.y()
  %z = call i32 @llvm.nvvm.read.ptx.sreg.ntid.z()
  %w = call i32 @llvm.nvvm.read.ptx.sreg.warpsize()
  %s = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float 1.0, i32 16, i32 31)
  %p = icmp eq i32 %x, 5
  %b = call i32 @llvm.nvvm.vote.ballot.sync(i32 -1, i1 %p)
  %all = call i1 @llvm.nvvm.vote.all.sync(i32 255, i1 %p)
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  call void @llvm.nvvm.membar.gl()
  %e = call float @llvm.nvvm.ex2.approx.ftz.f32(float 8.0)
  %sb = bitcast float %s to i32
  %eb = bitcast float %e to i32
  %az = zext i1 %all to i32
  %v0 = insertelement <8 x i32> poison, i32 %x, i32 0
  %v1 = insertelement <8 x i32> %v0, i32 %y, i32 1
  %v2 = insertelement <8 x i32> %v1, i32 %z, i32 2
  %v3 = insertelement <8 x i32> %v2, i32 %w, i32 3
  %v4 = insertelement <8 x i32> %v3, i32 %sb, i32 4
  %v5 = insertelement <8 x i32> %v4, i32 %b, i32 5
  %v6 = insertelement <8 x i32> %v5, i32 %az, i32 6
  %v7 = insertelement <8 x i32> %v6, i32 %eb, i32 7
  store <8 x i32> %v7, ptr addrspace(1) %out, align 32
  ret void
})"),
              "k", {&to});
  EXPECT_THAT(machine.calls,
              ElementsAre("qsim_shfl_bfly ffffffff 3f800000 16 31", "qsim_ballot ffffffff 1",
                          "qsim_ballot ff 0", "qsim_syncthreads", "qsim_global outside 32 store"));
  EXPECT_THAT(out, ElementsAre(5, 0, 1, 32, 0x3f800001, 1, 1, std::bit_cast<uint32_t>(16.f)));
}

TEST(SimSplit, TheEntryTakesParametersAsCuLaunchKernelDoes) {
  OneThread machine;
  struct {
    int64_t a, b;
  } bytes{3, 4}, constant{50, 60};
  int64_t out[2] = {};
  void *to = out;
  int32_t n = -7;
  machine.run(parseIr(R"(
%pair = type { i64, i64 }
define ptx_kernel void @k(ptr addrspace(1) %out, i32 %n, ptr byval(%pair) align 8 %copied, ptr byval(%pair) align 8 "nvvm.grid_constant" %same) {
  %wide = sext i32 %n to i64
  %a = load i64, ptr %copied
  %sum = add i64 %a, %wide
  store i64 0, ptr %copied
  store i64 %sum, ptr addrspace(1) %out
  %second = getelementptr i64, ptr addrspace(1) %out, i32 1
  %address = ptrtoint ptr %same to i64
  store i64 %address, ptr addrspace(1) %second
  ret void
})"),
              "k", {&to, &n, &bytes, &constant});
  EXPECT_EQ(out[0], -4);
  EXPECT_EQ(out[1], reinterpret_cast<int64_t>(&constant)); // a tensor map's address is its identity
  EXPECT_EQ(bytes.a, 3) << "a kernel's copy of a by-value parameter is its own";
  EXPECT_THAT(machine.calls, ElementsAre("qsim_global outside 8 store", "qsim_global outside 8 store"));
}

TEST(SimSplit, ConversionsRoundAsOnAGpu) {
  OneThread machine;
  struct {
    uint16_t bf16[4], f16[4];
    float fma, wide;
  } out;
  void *to = &out;
  float in[4] = {1e-40f, 1.00390625f, 65520.f, -6e-8f}; // subnormal; a tie; overflow of f16; subnormal f16
  void *from = in;
  machine.run(parseIr(R"(
declare float @llvm.fma.f32(float, float, float)
define ptx_kernel void @k(ptr addrspace(1) %in, ptr addrspace(1) %out) {
  %v = load <4 x float>, ptr addrspace(1) %in, align 4
  %b = fptrunc <4 x float> %v to <4 x bfloat>
  %h = fptrunc <4 x float> %v to <4 x half>
  store <4 x bfloat> %b, ptr addrspace(1) %out, align 2
  %p = getelementptr i8, ptr addrspace(1) %out, i32 8
  store <4 x half> %h, ptr addrspace(1) %p, align 2
  %x = extractelement <4 x float> %v, i32 1
  %f = call float @llvm.fma.f32(float %x, float %x, float -1.0)
  %q = getelementptr i8, ptr addrspace(1) %out, i32 16
  store float %f, ptr addrspace(1) %q
  %hb = extractelement <4 x half> %h, i32 3
  %w = fpext half %hb to float
  %r = getelementptr i8, ptr addrspace(1) %out, i32 20
  store float %w, ptr addrspace(1) %r
  ret void
})"),
              "k", {&from, &to});
  EXPECT_THAT(out.bf16, ElementsAre(0x0001, 0x3f80, 0x4780, 0xb381));
  EXPECT_THAT(out.f16, ElementsAre(0x0000, 0x3c04, 0x7c00, 0x8001));
  EXPECT_EQ(out.fma, 0.0078277587890625f);
  EXPECT_EQ(out.wide, -5.9604644775390625e-8f);
}

TEST(SimSplit, KernelsShareAModule) {
  SimModuleText input = parseIr(R"(
define internal i32 @twice(i32 %x) noinline {
  %y = shl i32 %x, 1
  ret i32 %y
}
define ptx_kernel void @one(ptr addrspace(1) %out) {
  %v = call i32 @twice(i32 21)
  store i32 %v, ptr addrspace(1) %out
  ret void
}
define ptx_kernel void @two(ptr addrspace(1) %out) {
  store i32 2, ptr addrspace(1) %out
  ret void
})");
  auto symbols = OneThread::symbols();
  auto module = sim::SimModule::load(std::move(input.module), std::move(input.context), symbols);
  ASSERT_TRUE(module) << module.error().str();
  OneThread machine;
  int out = 0;
  void *to = &out, *params[] = {&to};
  for (auto [kernel, expected] : {std::pair("one", 42), std::pair("two", 2)}) {
    auto entry = (*module)->entry(kernel);
    ASSERT_TRUE(entry) << entry.error().str();
    (*entry)(params);
    EXPECT_EQ(out, expected);
  }
  auto missing = (*module)->entry("three");
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("three_entry"));
}

} // namespace
} // namespace quern::test
