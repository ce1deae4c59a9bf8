// NVRTC: finding it, compiling without a GPU, its errors. The device code itself is proven on the simulator;
// here it must compile for the GPU, without spills.
#include "driver_support.h"
#include "kernels/DeviceSources.h"
#include "runtime/driver/Nvrtc.h"
#include <gmock/gmock.h>
#include <thread>

namespace quern::driver {
namespace {

using test::Environment;
using test::Folder;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class Nvrtc : public testing::Test {
protected:
  void SetUp() override {
    if (auto found = findNvrtc(); !found) GTEST_SKIP() << "no NVRTC: " << found.error().str();
  }
};

TEST_F(Nvrtc, CompilesWithAHeader) {
  auto compiled = compileCuda({"twice.cu", "#include \"kernels/factor.cuh\"\nextern \"C\" __global__ void "
                                           "twice(float *p) { p[threadIdx.x] *= factor; }\n"},
                              {{"kernels/factor.cuh", "constexpr float factor = 2;\n"}}, "sm_90a");
  ASSERT_TRUE(compiled) << compiled.error().str();
  EXPECT_THAT(compiled->cubin, StartsWith("\x7f"
                                          "ELF"));
  ASSERT_TRUE(compiled->report.find("twice")) << compiled->log;
  EXPECT_GT(compiled->report.find("twice")->registers, 0);
  EXPECT_EQ(compiled->report.spillBytes(), 0);
}

TEST_F(Nvrtc, DoesNotContract) {
  // a * b + c with these values differs between fma and two roundings: the compiler may not fold it into one.
  auto compiled =
      compileCuda({"sum.cu", "extern \"C\" __global__ void sum(float *p) { p[0] = p[1] * p[2] + p[3]; }\n"},
                  {}, "sm_90a");
  ASSERT_TRUE(compiled) << compiled.error().str();
  auto text = disassemble(compiled->cubin);
  if (!text) GTEST_SKIP() << text.error().message;
  EXPECT_THAT(*text, AllOf(HasSubstr("FMUL"), HasSubstr("FADD"), Not(HasSubstr("FFMA"))));
}

TEST_F(Nvrtc, RefusedSourceShowsTheLog) {
  auto compiled = compileCuda({"bad.cu", "extern \"C\" __global__ void bad(float *p) { p[0] = missing; }\n"},
                              {}, "sm_90a");
  ASSERT_FALSE(compiled);
  EXPECT_EQ(compiled.error().kind, ErrorKind::Internal);
  EXPECT_EQ(compiled.error().place, "bad.cu");
  EXPECT_THAT(compiled.error().message,
              AllOf(StartsWith("NVRTC 1"), HasSubstr("for sm_90a: NVRTC_ERROR_COMPILATION")));
  EXPECT_THAT(compiled.error().detail,
              AllOf(HasSubstr("bad.cu(1)"), HasSubstr("identifier \"missing\" is undefined")));
}

TEST_F(Nvrtc, UnknownArchitecture) {
  auto compiled = compileCuda({"empty.cu", ""}, {}, "sm_12");
  ASSERT_FALSE(compiled);
  EXPECT_THAT(compiled.error().message, HasSubstr("for sm_12: NVRTC_ERROR_INVALID_OPTION"));
}

TEST_F(Nvrtc, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  std::vector<std::string> cubins(4);
  for (auto &cubin : cubins)
    threads.emplace_back([&cubin] {
      if (auto c = compileCuda({"k.cu", "extern \"C\" __global__ void k(int *p) { *p = 1; }"}, {}, "sm_90a"))
        cubin = c->cubin;
    });
  for (auto &thread : threads) thread.join();
  EXPECT_THAT(cubins[0], Not(IsEmpty()));
  EXPECT_THAT(cubins, testing::Each(cubins[0]));
}

TEST_F(Nvrtc, ANewerOneThanTheDriverIsLeftOut) {
  auto found = findNvrtc();
  ASSERT_TRUE(found);
  EXPECT_TRUE(findNvrtc(found->version)) << "the same version";
  auto older = findNvrtc(11080);
  ASSERT_FALSE(older);
  EXPECT_THAT(older.error().detail, HasSubstr("is newer than the driver's CUDA 11.8"));
}

/// Quern's own device code for the GPU of the issue: each file compiles, has kernels, and spills nothing.
TEST_F(Nvrtc, ShippedDeviceCode) {
  std::vector<SourceText> headers;
  int files = 0;
  for (const DeviceSource *source = deviceSources; source->name; ++source)
    if (std::string_view(source->name).ends_with(".cuh"))
      headers.push_back({std::string("kernels/") + source->name, source->text});
  for (const DeviceSource *source = deviceSources; source->name; ++source) {
    if (!std::string_view(source->name).ends_with(".cu")) continue;
    ++files;
    auto compiled = compileCuda({std::string("kernels/") + source->name, source->text}, headers, "sm_90a");
    ASSERT_TRUE(compiled) << compiled.error().str();
    EXPECT_FALSE(compiled->report.kernels.empty()) << source->name;
    for (auto &kernel : compiled->report.kernels)
      std::printf("  %-16s %-28s %3d registers, %lld bytes of shared memory, %.0f ms\n", source->name,
                  kernel.name.c_str(), kernel.registers, static_cast<long long>(kernel.smemBytes),
                  compiled->seconds * 1e3);
    EXPECT_EQ(compiled->report.spillBytes(), 0) << source->name << "\n" << compiled->log;
    EXPECT_THAT(compiled->report.warnings, IsEmpty()) << source->name;
  }
  EXPECT_GT(files, 0) << "no device code is embedded";
}

TEST(NvrtcSearch, NotALibrary) {
  Folder folder;
  Environment own("QUERN_NVRTC", folder.file("libnvrtc.so.13", "no ELF"));
  auto found = findNvrtc();
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().kind, ErrorKind::System);
  EXPECT_THAT(found.error().message, HasSubstr("pip install 'nvidia-cuda-nvrtc==13.0.*'"));
  EXPECT_THAT(found.error().detail, AllOf(HasSubstr("libnvrtc.so.13: "), Not(HasSubstr("looked at"))));
}

TEST(NvrtcSearch, AnotherLibrary) {
  Environment own("QUERN_NVRTC", "libm.so.6");
  auto found = findNvrtc();
  ASSERT_FALSE(found);
  EXPECT_THAT(found.error().detail, HasSubstr("libm.so.6: not NVRTC"));
}

TEST(Disassembler, ReadsACubin) {
  if (findPtxas().empty()) GTEST_SKIP() << missingPtxas().message;
  auto assembled = assemble(test::tinyPtx(), "sm_90a");
  ASSERT_TRUE(assembled) << assembled.error().str();
  auto text = disassemble(assembled->cubin);
  if (!text && findDisassemblers().empty()) GTEST_SKIP() << text.error().message;
  ASSERT_TRUE(text) << text.error().str();
  EXPECT_THAT(*text, AllOf(HasSubstr("twice"), HasSubstr("FADD"), HasSubstr("STG"), HasSubstr("EXIT")));
}

TEST(Disassembler, FailsAndIsMissing) {
  Folder folder;
  {
    Environment own("QUERN_DISASSEMBLER", folder.tool("nvdisasm", "echo no >&2; exit 2"));
    auto text = disassemble("x");
    ASSERT_FALSE(text);
    EXPECT_EQ(text.error().message, "the disassembler ended with status 2");
    EXPECT_EQ(text.error().detail, "no\n");
  }
  Environment own("QUERN_DISASSEMBLER", folder.tool("my-cuobjdump", "echo \"$@\""));
  auto text = disassemble("x");
  ASSERT_TRUE(text) << text.error().str();
  EXPECT_THAT(*text, StartsWith("-sass "));
}

} // namespace
} // namespace quern::driver
