// From LLVM IR to code that runs, without a JIT linker; and the half conversions that come with it.
#include "codegen/emit/SharedObject.h"
#include "codegen/emit/X86.h"
#include "compiler/support/DType.h"
#include "runtime/launch/CpuFeatures.h"
#include "runtime/launch/LoadCode.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/TargetParser/Host.h"
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <thread>

namespace quern::x86 {
namespace {

constexpr const char *source = R"(
define void @narrow(ptr %from, ptr %to) {
  %v = load float, ptr %from
  %h = fptrunc float %v to half
  store half %h, ptr %to
  ret void
}
define void @widen(ptr %from, ptr %to) {
  %h = load half, ptr %from
  %v = fpext half %h to float
  store float %v, ptr %to
  ret void
})";

Expected<std::string> sharedObject(const std::string &features) {
  llvm::LLVMContext context;
  llvm::SMDiagnostic diagnostic;
  auto module = llvm::parseAssemblyString(source, diagnostic, context);
  if (!module) return Error::internal(diagnostic.getMessage().str());
  auto target = createTarget(features);
  if (!target) return target.takeError();
  optimize(*module, **target, features);
  auto bytes = object(*module, **target);
  if (!bytes) return bytes.takeError();
  return linkShared(*bytes);
}

TEST(X86, HalvesConvertWithoutF16c) {
  auto elf = sharedObject(cpuFeatures("-avx"));
  ASSERT_TRUE(elf) << elf.error().str();
  auto code = loadCode(*elf);
  ASSERT_TRUE(code) << code.error().str();
  auto narrow = reinterpret_cast<void (*)(const float *, uint16_t *)>(code->find("narrow"));
  auto widen = reinterpret_cast<void (*)(const uint16_t *, float *)>(code->find("widen"));
  ASSERT_TRUE(narrow && widen);
  EXPECT_EQ(code->find("__truncsfhf2"), nullptr) << "its helpers are nobody else's";
  auto check = [&](float value) {
    uint16_t found = 0, want = toF16(value);
    narrow(&value, &found);
    if (std::isnan(value))
      ASSERT_TRUE((found & 0x7c00) == 0x7c00 && (found & 0x3ff)) << found;
    else
      ASSERT_EQ(found, want) << value;
  };
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    uint16_t half = uint16_t(bits);
    float found = 0, want = fromF16(half);
    widen(&half, &found);
    if (std::isnan(want))
      ASSERT_TRUE(std::isnan(found)) << bits;
    else
      ASSERT_EQ(std::bit_cast<uint32_t>(found), std::bit_cast<uint32_t>(want)) << bits;
    // The value, its neighbours, and the ties above it with theirs.
    uint32_t word = std::bit_cast<uint32_t>(want);
    for (uint32_t offset : {0u, 1u, ~0u, 0xfffu, 0x1000u, 0x1001u})
      check(std::bit_cast<float>(word + offset));
  }
  std::mt19937 random(5);
  for (int i = 0; i < 1000000; ++i) check(std::bit_cast<float>(uint32_t(random())));
}

TEST(X86, EqualInputsGiveEqualBytesInAnyThread) {
  std::string features = cpuFeatures();
  auto first = sharedObject(features);
  ASSERT_TRUE(first) << first.error().str();
  std::vector<std::thread> threads;
  std::vector<std::string> found(8);
  for (auto &each : found)
    threads.emplace_back([&] {
      auto elf = sharedObject(features);
      if (elf) each = *elf;
    });
  for (auto &thread : threads) thread.join();
  for (auto &each : found) EXPECT_TRUE(each == *first);
}

TEST(X86, WhatIsNoObjectIsAnErrorAndTheLinkerGoesOn) {
  auto elf = linkShared("garbage");
  ASSERT_FALSE(elf);
  EXPECT_NE(elf.error().detail.find("error:"), std::string::npos) << elf.error().str();
  EXPECT_TRUE(sharedObject(cpuFeatures()));
}

TEST(X86, TheTunedProcessorComesFromTheFeatures) {
  EXPECT_EQ(tunedFor("+avx2"), "haswell");
  EXPECT_EQ(tunedFor("+avx2,+sse4a"), "znver3");
  EXPECT_EQ(tunedFor("+avx2,+avx512f"), "icelake-server");
  EXPECT_EQ(tunedFor("+avx2,+avx512f,+sse4a"), "znver4");
  EXPECT_EQ(tunedFor("+amx-tile,+avx512f"), "sapphirerapids");
  EXPECT_EQ(tunedFor("-avx2,-avx512f,-amx-tile,-sse4a"), "x86-64");
}

/// LLVM's own list has more names; those that both know must agree.
TEST(X86, FeaturesAreWhatLlvmFinds) {
  std::string ours = "," + cpuFeatures("") + ",";
  auto theirs = llvm::sys::getHostCPUFeatures();
  int compared = 0;
  for (auto &entry : theirs) {
    std::string name = entry.getKey().str();
    if (name.starts_with("amx")) continue; // the system grants them on request
    bool on = ours.find(",+" + name + ",") != ours.npos, off = ours.find(",-" + name + ",") != ours.npos;
    if (!on && !off) continue;
    EXPECT_EQ(on, entry.getValue()) << name;
    ++compared;
  }
  EXPECT_GT(compared, 35);
}

} // namespace
} // namespace quern::x86
