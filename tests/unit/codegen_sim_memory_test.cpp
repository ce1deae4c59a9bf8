// The late split: which check comes before which access, where shared variables live, and what is refused.
#include "tests/unit/codegen_sim_support.h"
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern::test {
namespace {
using testing::ElementsAre, testing::HasSubstr, testing::Not;

/// One instruction in a kernel that has everything around it.
std::string around(const std::string &instructions) {
  return R"(
%pair = type { i64, i64 }
@quern_smem = external addrspace(3) global [0 x i8], align 1024
@counts = internal addrspace(3) global [33 x i32] undef, align 4
@table = internal addrspace(4) constant [4 x float] [float 1.0, float 2.0, float 3.0, float 4.0]
@words = internal addrspace(1) constant [2 x i32] [i32 1, i32 2]
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p3.i32(ptr addrspace(3), i8, i32, i1)
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
define ptx_kernel void @k(ptr addrspace(1) %g, ptr %p, ptr byval(%pair) align 8 %b, i32 %n, float %f) {
  %local = alloca [8 x i32]
)" + instructions +
         "\n  ret void\n}\n";
}

struct Case {
  const char *instruction, *call; // the check's start; "" for none
};

TEST(SimMemory, EachAccessHasItsCheck) {
  const Case cases[] = {
      {"%v = load i32, ptr addrspace(1) %g", "@qsim_global(ptr %1, i32 4, i32 0)"},
      {"%v = load <4 x i32>, ptr addrspace(1) %g", "@qsim_global(ptr %1, i32 16, i32 0)"},
      {"%v = load <3 x i16>, ptr addrspace(1) %g, align 2", "@qsim_global(ptr %1, i32 6, i32 0)"},
      {"%v = load volatile i8, ptr addrspace(1) %g", "@qsim_global(ptr %1, i32 1, i32 0)"},
      {"store i64 1, ptr addrspace(1) %g", "@qsim_global(ptr %1, i32 8, i32 1)"},
      {"store i16 1, ptr addrspace(3) @quern_smem", "@qsim_shared(ptr %3, i32 2, i32 1)"},
      {"%v = load ptr, ptr addrspace(3) @counts", "@qsim_shared(ptr %3, i32 8, i32 0)"},
      {"store i32 1, ptr addrspacecast (ptr addrspace(3) @counts to ptr)",
       "@qsim_shared(ptr %3, i32 4, i32 1)"},
      {"%v = load i32, ptr %p", "@qsim_global(ptr %p, i32 4, i32 0)"}, // a kernel's parameter is global
      {"%v = load i64, ptr %b", ""},
      {"%v = load i32, ptr %local", ""},
      {"store float %f, ptr %local", ""},
      {"%v = load float, ptr addrspace(4) @table", ""},
      {"%v = load float, ptr addrspacecast (ptr addrspace(4) @table to ptr)", ""},
      {"%v = load i32, ptr addrspace(1) @words", ""},
      {"%v = atomicrmw add ptr addrspace(1) %g, i32 1 monotonic", "@qsim_atomic(ptr %1, i32 4, i32 1)"},
      {"%v = atomicrmw max ptr addrspace(3) @counts, i32 1 syncscope(\"block\") seq_cst",
       "@qsim_atomic(ptr %3, i32 4, i32 3)"},
      {"%v = cmpxchg ptr addrspace(1) %g, i64 1, i64 2 monotonic monotonic",
       "@qsim_atomic(ptr %1, i32 8, i32 1)"},
      {"%v = load atomic i32, ptr addrspace(1) %g acquire, align 4", "@qsim_atomic(ptr %1, i32 4, i32 1)"},
      {"call void @llvm.memset.p3.i32(ptr addrspace(3) align 4 @counts, i8 0, i32 12, i1 false)",
       "@qsim_shared(ptr %3, i32 12, i32 1)"},
      {"call void @llvm.memcpy.p0.p0.i64(ptr %local, ptr align 16 %p, i64 16, i1 false)",
       "@qsim_global(ptr %p, i32 16, i32 0)"},
      {"call void @llvm.memcpy.p0.p0.i64(ptr align 32 %p, ptr %b, i64 16, i1 false)",
       "@qsim_global(ptr %p, i32 16, i32 1)"},
  };
  for (const Case &c : cases) {
    std::string body = bodyOf(splitText(around(c.instruction)), "k");
    std::vector<std::string> checks;
    for (size_t at = body.find("call void @qsim_"); at != std::string::npos;
         at = body.find("call void @qsim_", at + 1))
      checks.push_back(body.substr(at + 10, body.find('\n', at) - at - 10));
    if (*c.call)
      EXPECT_THAT(checks, ElementsAre(c.call)) << c.instruction << "\n" << body;
    else
      EXPECT_TRUE(!body.empty() && checks.empty()) << c.instruction << "\n" << body;
  }
}

TEST(SimMemory, AnUnderalignedAccessIsCheckedInPieces) {
  OneThread machine;
  char data[64] = {}, bytes[16] = {};
  void *g = data, *p = data;
  int n = 0;
  float f = 0;
  machine.run(parseIr(around(R"(
  store <4 x i16> zeroinitializer, ptr addrspace(3) @quern_smem, align 2
  call void @llvm.memset.p3.i32(ptr addrspace(3) align 4 @quern_smem, i8 1, i32 8, i1 false)
  %v = load <3 x i32>, ptr addrspace(1) %g, align 4
)")),
              "k", {&g, &p, bytes, &n, &f});
  EXPECT_THAT(machine.calls,
              ElementsAre("qsim_shared +0 2 store", "qsim_shared +2 2 store", "qsim_shared +4 2 store",
                          "qsim_shared +6 2 store", "qsim_shared +0 4 store", "qsim_shared +4 4 store",
                          "qsim_global outside 12 load"));
}

TEST(SimMemory, StoredFloatsAreSeen) {
  OneThread machine;
  float out[8] = {}, f = 9;
  void *g = out, *p = out;
  char bytes[16] = {};
  int n = 0;
  machine.run(parseIr(around(R"(
  store <2 x float> <float 1.0, float 2.0>, ptr addrspace(1) %g, align 4
  store float %f, ptr addrspace(3) @quern_smem
  store float 7.0, ptr %local
  store double 8.0, ptr addrspace(1) %g
)")),
              "k", {&g, &p, bytes, &n, &f});
  EXPECT_THAT(machine.storedFloats, ElementsAre(1, 2, 9));
}

TEST(SimMemory, APointerOfUnknownOriginIsWhatItPointsTo) {
  OneThread machine;
  int data[4] = {11, 22, 33, 44};
  void *g = data, *p = nullptr;
  char bytes[16] = {};
  float f = 0;
  for (int n : {0, 1}) {
    machine.calls.clear();
    machine.run(parseIr(around(R"(
  %odd = icmp eq i32 %n, 1
  %global = addrspacecast ptr addrspace(1) %g to ptr
  %shared = addrspacecast ptr addrspace(3) @quern_smem to ptr
  %where = select i1 %odd, ptr %shared, ptr %global
  %at = getelementptr i32, ptr %where, i32 3
  store i32 5, ptr %at
  %old = atomicrmw add ptr %at, i32 1 seq_cst
)")),
                "k", {&g, &p, bytes, &n, &f});
    if (n)
      EXPECT_THAT(machine.calls, ElementsAre("qsim_shared +12 4 store", "qsim_atomic +12 4 space 3"));
    else
      EXPECT_THAT(machine.calls, ElementsAre("qsim_global outside 4 store", "qsim_atomic outside 4 space 1"));
    EXPECT_EQ(*reinterpret_cast<int *>(n ? machine.base + 12 : reinterpret_cast<char *>(data + 3)), 6);
  }
}

TEST(SimMemory, ASharedAddressIsTheLowHalf) {
  OneThread machine;
  uint32_t out[3] = {}, wide[2] = {};
  void *g = out, *p = wide;
  char bytes[16] = {};
  int n = 1048; // carries into the base's bits
  float f = 0;
  machine.run(parseIr(around(R"(
  %at = getelementptr i8, ptr addrspace(3) @quern_smem, i32 %n
  %low = ptrtoint ptr addrspace(3) %at to i32
  store i32 %low, ptr addrspace(1) %g
  %next = add i32 %low, 8
  %back = inttoptr i32 %next to ptr addrspace(3)
  store i32 123, ptr addrspace(3) %back
)")),
              "k", {&g, &p, bytes, &n, &f});
  EXPECT_EQ(out[0], uint32_t(reinterpret_cast<uint64_t>(machine.base)) + 1048);
  EXPECT_EQ(out[0], 1024u + 1048);
  EXPECT_EQ(*reinterpret_cast<int *>(machine.base + 1056), 123);
  EXPECT_THAT(machine.calls, ElementsAre("qsim_global outside 4 store", "qsim_shared +1056 4 store"));
}

TEST(SimMemory, StaticSharedVariablesHaveNumbers) {
  OneThread machine;
  int out = 0, n = 2;
  void *to = &out;
  machine.run(compileCuda(R"(
extern "C" __global__ void k(int *out, int n) {
  __shared__ int first[10];
  __shared__ Vector16 second[3];
  first[n] = n + 3;
  second[n].words[3] = n + 4;
  syncBlock();
  *out = first[threadIndex() + 2] * 10 + second[threadIndex() + 2].words[3];
})"),
              "k", {&to, &n});
  EXPECT_EQ(out, 56);
  EXPECT_THAT(machine.calls,
              testing::UnorderedElementsAre("qsim_smem_static 0 40 4", "qsim_smem_static 1 48 16",
                                            "qsim_shared +4104 4 store", "qsim_shared +8236 4 store",
                                            "qsim_syncthreads", "qsim_shared +4104 4 load",
                                            "qsim_shared +8236 4 load", "qsim_global outside 4 store"));
}

struct Refusal {
  const char *kernel, *message;
};

TEST(SimMemory, WhatIsNotKnownIsRefusedByName) {
  const Refusal refusals[] = {
      {"declare void @q.mbarrier.typo()\ndefine ptx_kernel void @k() {\n  call void @q.mbarrier.typo()\n  "
       "ret void\n}",
       "codegen/gpu/Primitives.h: internal error: 'q.mbarrier.typo' is not a GPU primitive"},
      {"declare void @q.mbarrier.arrive(i32)\ndefine ptx_kernel void @k() {\n  call void "
       "@q.mbarrier.arrive(i32 1)\n"
       "  ret void\n}",
       "k: internal error: a primitive is called with another type than its own: call void "
       "@q.mbarrier.arrive(i32 1)"},
      {"declare i64 @llvm.nvvm.read.ptx.sreg.clock64()\ndefine ptx_kernel void @k() {\n"
       "  %t = call i64 @llvm.nvvm.read.ptx.sreg.clock64()\n  ret void\n}",
       "k: internal error: the simulator knows no intrinsic 'llvm.nvvm.read.ptx.sreg.clock64'"},
      {"declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)\ndefine ptx_kernel void @k() {\n"
       "  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 3)\n  ret void\n}",
       "k: internal error: the simulator knows no intrinsic 'call void "
       "@llvm.nvvm.barrier.cta.sync.aligned.all(i32 3)'"},
      {"define ptx_kernel void @k() {\n  call void asm sideeffect \"bar.sync 1;\", \"\"()\n  ret void\n}",
       "k: internal error: the simulator knows no inline asm 'bar.sync 1;'"},
      {"declare i32 @vprintf(ptr, ptr)\ndefine ptx_kernel void @k(ptr %p) {\n"
       "  %n = call i32 @vprintf(ptr %p, ptr %p)\n  ret void\n}",
       "k: internal error: the simulator knows no function 'vprintf'"},
      {"define ptx_kernel void @k(ptr %p) {\n  call void %p()\n  ret void\n}",
       "k: internal error: the simulator knows no call through a pointer like 'call void %p()'"},
      {"declare <4 x i32> @llvm.masked.load.v4i32.p1(ptr addrspace(1), <4 x i1>, <4 x i32>)\n"
       "define ptx_kernel void @k(ptr addrspace(1) %p, <4 x i1> %m) {\n  %v = call <4 x i32> "
       "@llvm.masked.load.v4i32.p1(ptr addrspace(1) %p, <4 x i1> %m, <4 x i32> zeroinitializer)\n  ret "
       "void\n}",
       "k: internal error: the simulator knows no intrinsic 'llvm.masked.load.v4i32.p1'"},
      {"@state = addrspace(1) global i32 0\ndefine ptx_kernel void @k() {\n"
       "  store i32 1, ptr addrspace(1) @state\n  ret void\n}",
       "k: internal error: the simulator cannot tell what memory this touches: store i32 1, ptr addrspace(1) "
       "@state, align 4"},
      {"define ptx_kernel void @k(ptr %p, i1 %c) {\n  %l = alloca i32\n  %w = select i1 %c, ptr %p, ptr %l\n"
       "  store i32 1, ptr %w\n  ret void\n}",
       "k: internal error: the simulator cannot tell what memory this touches: store i32 1, ptr %w, align 4"},
      {"define ptx_kernel void @k(ptr addrspace(7) %p) {\n  store i32 1, ptr addrspace(7) %p\n  ret void\n}",
       "k: internal error: the simulator cannot tell what memory this touches: store i32 1, ptr addrspace(7) "
       "%p, align 4"},
      {"define internal void @f(i32 %n) {\n  call void @f(i32 %n)\n  ret void\n}\ndefine ptx_kernel void "
       "@k() {\n"
       "  call void @f(i32 1)\n  ret void\n}",
       "f: internal error: a device function that cannot be inlined (recursion, or its address taken)"},
      {"declare void @llvm.memset.p1.i64(ptr addrspace(1), i8, i64, i1)\n"
       "define ptx_kernel void @k(ptr addrspace(1) %p, i64 %n) {\n"
       "  call void @llvm.memset.p1.i64(ptr addrspace(1) %p, i8 0, i64 %n, i1 false)\n  ret void\n}",
       "k: internal error: the simulator cannot tell what memory this touches: call void "
       "@llvm.memset.p1.i64(ptr addrspace(1) %p, i8 0, i64 %n, i1 false)"},
      {"declare void @f()", "late split: internal error: no function of the module is a kernel"},
  };
  for (const Refusal &refusal : refusals) {
    std::string text = splitText(std::string(refusal.kernel));
    EXPECT_EQ(text.substr(0, text.find('\n')), refusal.message) << refusal.kernel;
  }
}

TEST(SimMemory, TheProcessIsNotVisible) {
  SimModuleText input = parseIr("declare void @q.grid.wait()\ndefine ptx_kernel void @k() {\n"
                                "  call void @q.grid.wait()\n  ret void\n}");
  auto code = sim::loadSim(std::move(input.module), std::move(input.context), "k", OneThread::symbols());
  ASSERT_FALSE(code); // this machine of one thread has no qsim_grid_wait
  EXPECT_EQ(code.error().message, "the simulator has no function 'qsim_grid_wait'");
}

} // namespace
} // namespace quern::test
