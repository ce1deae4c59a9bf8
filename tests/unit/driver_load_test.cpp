// Opening the driver and loading kernels, on the fake driver; then every call failing once, and for ever.
#include "driver_fake.h"
#include "kernels/DeviceSources.h"
#include "runtime/driver/DeviceCode.h"
#include "runtime/driver/Nvrtc.h"
#include "runtime/driver/Probe.h"
#include <algorithm>
#include <fmt/format.h>
#include <thread>

namespace quern::driver {
namespace {

using test::Environment;
using test::fakeImage;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class OpenDriver : public test::FakeDriver {
protected:
  Error refusal(const std::string &path = QUERN_FAKE_CUDA) {
    auto opened = Driver::open(path);
    EXPECT_FALSE(opened);
    return opened ? Error() : opened.takeError();
  }
};

TEST_F(OpenDriver, Works) {
  fake.devices = 2;
  auto opened = Driver::open(QUERN_FAKE_CUDA);
  ASSERT_TRUE(opened) << opened.error().str();
  EXPECT_EQ((*opened)->version, 13000);
  EXPECT_EQ((*opened)->deviceCount, 2);
  EXPECT_EQ(versionText(12040), "12.4");
  auto third = makeCudaBackend(**opened, 2);
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().str(), "cuda:2: there is no such device; this machine has 2");
}

TEST_F(OpenDriver, ThereIsNone) {
  Error error = refusal("/nonexistent/libcuda.so.1");
  EXPECT_EQ(error.kind, ErrorKind::User);
  EXPECT_THAT(error.str(), AllOf(StartsWith("cuda: no CUDA driver on this machine"),
                                 HasSubstr("/nonexistent/libcuda.so.1")));
}

TEST_F(OpenDriver, NotADriver) {
  EXPECT_THAT(refusal("libm.so.6").str(),
              StartsWith("libm.so.6: not a CUDA driver of 12.0 or newer; it lacks cuInit "));
}

TEST_F(OpenDriver, TooOld) {
  fake.version = 11080;
  EXPECT_EQ(refusal().str(), "cuda: the driver is for CUDA 11.8; Quern needs 12.0 (driver 525) or newer");
  EXPECT_THAT(fake.calls, ElementsAre("cuDriverGetVersion")) << "it is not initialised";
}

TEST_F(OpenDriver, NoDevice) {
  fake.initResult = cuda::errorNoDevice;
  EXPECT_EQ(refusal().str(), "cuda: the CUDA driver finds no device");
  fake.initResult = cuda::success, fake.devices = 0;
  EXPECT_EQ(refusal().str(), "cuda: the CUDA driver finds no device");
  fake.initResult = cuda::errorStubLibrary;
  EXPECT_THAT(refusal().str(), AllOf(StartsWith("cuda: cuInit failed: CUDA_ERROR_STUB_LIBRARY"),
                                     HasSubstr("LD_LIBRARY_PATH")));
}

TEST_F(OpenDriver, TheProcessHasOneBackendPerDevice) {
  Environment library("QUERN_CUDA_LIBRARY", "/nonexistent/libcuda.so.1");
  auto none = gpu::cudaBackend(0);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, StartsWith("no CUDA driver on this machine"));
  Environment right("QUERN_CUDA_LIBRARY", QUERN_FAKE_CUDA);
  auto first = gpu::cudaBackend(0), again = gpu::cudaBackend(0);
  ASSERT_TRUE(first && again) << first.error().str();
  EXPECT_EQ(*first, *again) << "a failure is not kept, a success is";
  EXPECT_EQ(std::ranges::count(fake.calls, "cuDevicePrimaryCtxRetain"), 1);
  EXPECT_FALSE(gpu::cudaBackend(1));
}

TEST_F(OpenDriver, AProbeDoesNotInitialise) {
  Environment library("QUERN_CUDA_LIBRARY", QUERN_FAKE_CUDA);
  DriverReport report = probe();
  EXPECT_THAT(fake.calls, ElementsAre("cuDriverGetVersion"));
  ASSERT_FALSE(report.items.empty());
  EXPECT_THAT(report.str(), AllOf(HasSubstr("CUDA driver"), HasSubstr("13.0"), HasSubstr(QUERN_FAKE_CUDA),
                                  HasSubstr("ptxas"), HasSubstr("NVRTC"), HasSubstr("disassembler")));
  Environment none("QUERN_PTXAS", "/nonexistent/ptxas");
  EXPECT_THAT(probe().str(), HasSubstr("/nonexistent/ptxas  (QUERN_PTXAS)  cannot be started: No such file"));
}

class LoadKernels : public test::FakeDriver {};

TEST_F(LoadKernels, EverythingIsDoneAtTheLoad) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  image.cluster = 16;
  ASSERT_TRUE(gpu->load(image));
  EXPECT_THAT(takeCalls(),
              ElementsAre("cuCtxGetCurrent", "cuCtxPushCurrent", "cuThreadExchangeStreamCaptureMode",
                          "cuModuleLoadDataEx", "cuModuleGetFunction", "cuFuncLoad", "cuFuncGetAttribute",
                          "cuFuncSetAttribute", "cuFuncSetAttribute", "cuThreadExchangeStreamCaptureMode",
                          "cuCtxPopCurrent"));
  auto kernel = gpu->load(image);
  EXPECT_THAT(takeCalls(), IsEmpty());
  ASSERT_TRUE(gpu->launch(*kernel, {.grid = 32, .cluster = 16, .smemBytes = 200000}, nullptr, {}, stream));
  EXPECT_EQ(fake.launches[0].function->dynamicSmem, 200000);
  EXPECT_TRUE(fake.launches[0].function->nonPortableCluster);
  EXPECT_FALSE(fake.launches[0].function->module->fromPtx);
}

TEST_F(LoadKernels, OnceAmongThreads) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  std::vector<std::thread> threads;
  std::vector<gpu::LoadedKernel *> kernels(8);
  fake.loadMs = 50;
  for (auto &kernel : kernels) threads.emplace_back([&] { kernel = *gpu->load(image); });
  for (auto &thread : threads) thread.join();
  EXPECT_THAT(kernels, testing::Each(kernels[0]));
  EXPECT_EQ(fake.liveModules, 1);
}

TEST_F(LoadKernels, AnotherImageAtTheSameAddress) {
  auto gpu = backend();
  auto image = std::make_unique<jit::GpuImage>(fakeImage());
  auto first = gpu->load(*image);
  *image = fakeImage("down");
  auto second = gpu->load(*image);
  ASSERT_TRUE(first && second);
  EXPECT_NE(*first, *second);
  ASSERT_TRUE(gpu->launch(*second, {}, nullptr, {}, stream));
  EXPECT_EQ(fake.launches[0].function->name, "down");
}

TEST_F(LoadKernels, FromPtx) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  image.cubin.clear();
  auto kernel = gpu->load(image);
  ASSERT_TRUE(kernel) << kernel.error().str();
  ASSERT_TRUE(gpu->launch(*kernel, {}, nullptr, {}, stream));
  EXPECT_TRUE(fake.launches[0].function->module->fromPtx);

  jit::GpuImage refused = fakeImage("down"); // its cubin is refused, its PTX taken
  fake.cubinResult = cuda::errorNoBinaryForGpu;
  kernel = gpu->load(refused);
  ASSERT_TRUE(kernel) << kernel.error().str();
  ASSERT_TRUE(gpu->launch(*kernel, {}, nullptr, {}, stream));
  EXPECT_TRUE(fake.launches[1].function->module->fromPtx);
}

TEST_F(LoadKernels, BothRefused) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  fake.cubinResult = cuda::errorNoBinaryForGpu;
  fake.ptxLog = "ptxas application ptx input, line 3; error   : Unknown symbol 'x'";
  auto kernel = gpu->load(image);
  ASSERT_FALSE(kernel);
  EXPECT_EQ(
      kernel.error().str(),
      "kernel 'gate_up' on cuda:0: cuModuleLoadDataEx failed: CUDA_ERROR_INVALID_PTX (a PTX JIT compilation "
      "failed); "
      "its cubin: CUDA_ERROR_NO_BINARY_FOR_GPU (no kernel image is available for execution on the device)\n"
      "ptxas application ptx input, line 3; error   : Unknown symbol 'x'");
  image.ptx.clear();
  auto cubinOnly = gpu->load(image);
  ASSERT_FALSE(cubinOnly);
  EXPECT_THAT(cubinOnly.error().message,
              StartsWith("cuModuleLoadDataEx failed: CUDA_ERROR_NO_BINARY_FOR_GPU"));
  EXPECT_EQ(cubinOnly.error().rule, "");
  EXPECT_EQ(fake.liveModules, 0);
}

TEST_F(LoadKernels, RefusedBeforeTheDriverIsAsked) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  image.arch = "sm_80";
  auto kernel = gpu->load(image);
  ASSERT_FALSE(kernel);
  EXPECT_EQ(kernel.error().str(),
            "kernel 'gate_up' on cuda:0: the kernel is for sm_80, and cuda:0 is sm_90a (Fake H100)");
  jit::GpuImage empty = fakeImage();
  empty.cubin.clear(), empty.ptx.clear();
  EXPECT_EQ(gpu->load(empty).error().message, "an image without cubin and PTX");
  EXPECT_THAT(fake.calls, Not(Contains("cuModuleLoadDataEx")));
}

TEST_F(LoadKernels, RefusedKernelsLeaveNoModule) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  image.smemBytes = 232448;
  fake.staticSmem = 16;
  auto large = gpu->load(image);
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().message,
            "the kernel needs 232464 bytes of shared memory per block, and cuda:0 (Fake H100) has 232448");
  fake.staticSmem = 0;
  image.entry = "other"; // not in the cubin
  auto missing = gpu->load(image);
  ASSERT_FALSE(missing);
  EXPECT_EQ(
      missing.error().str(),
      "kernel 'other' on cuda:0: cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND (named symbol not found)");
  fake.clusters = false;
  auto plain = backend();
  jit::GpuImage clustered = fakeImage();
  clustered.cluster = 2;
  auto refused = plain->load(clustered);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "the kernel uses clusters, and cuda:0 (Fake H100) has none");
  EXPECT_EQ(fake.liveModules, 0);
}

/// The device code changes, so the test takes what is there: a file of kernels/ with at least two kernels,
/// the shortest.
const DeviceSource *fileOfKernels() {
  const DeviceSource *found = nullptr;
  for (const DeviceSource *source = deviceSources; source->name; ++source) {
    std::string_view text = source->text, mark = "extern \"C\" __global__";
    size_t first = text.find(mark);
    if (!std::string_view(source->name).ends_with(".cu") || first == text.npos ||
        text.find(mark, first + 1) == text.npos)
      continue;
    if (!found || text.size() < std::string_view(found->text).size()) found = source;
  }
  return found;
}

TEST_F(LoadKernels, DeviceCode) {
  auto gpu = backend();
  auto unknown = gpu->loadDevice("no_such_kernel", stream);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().message, "no file of kernels/ defines this kernel");
  if (auto found = findNvrtc(); !found) GTEST_SKIP() << "no NVRTC: " << found.error().str();
  const DeviceSource *file = fileOfKernels();
  ASSERT_TRUE(file);
  auto compiled = compiledDeviceFile(file->name, "sm_90a", 13000);
  ASSERT_TRUE(compiled) << compiled.error().str();
  auto &kernels = (*compiled)->report.kernels;
  ASSERT_GE(kernels.size(), 2u) << (*compiled)->log;

  for (auto &kernel : kernels) { // NVRTC's names
    EXPECT_EQ(deviceFileOf(kernel.name), file->name) << kernel.name;
    auto loaded = gpu->loadDevice(kernel.name, stream);
    ASSERT_TRUE(loaded) << loaded.error().str();
    EXPECT_EQ(fake.liveModules, 1) << "a file is loaded once";
    takeCalls();
    auto again = gpu->loadDevice(kernel.name, stream);
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, *loaded);
    EXPECT_THAT(takeCalls(), IsEmpty());
    ASSERT_TRUE(gpu->launch(*loaded, {.grid = 4, .block = 256}, nullptr, {}, stream));
    EXPECT_EQ(fake.launches.back().function->name, kernel.name);
  }
  auto other = backend();
  ASSERT_TRUE(other->loadDevice(kernels[0].name, stream));
  EXPECT_EQ(*compiledDeviceFile(file->name, "sm_90a", 13000), *compiled) << "compiled once per process";
}

TEST_F(LoadKernels, FilesOfTheDeviceCode) {
  EXPECT_EQ(deviceFileOf("no_such_kernel"), "");
  EXPECT_EQ(deviceFileOf("__launch_bounds__"), "");
  EXPECT_EQ(deviceFileOf(""), "");
  auto missing = compiledDeviceFile("missing.cu", "sm_90a", 0);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().place, "missing.cu");
  EXPECT_EQ(missing.error().message, "no such device code");
}

/// All that a launcher does, on a thread without a context. Returns the first error.
Status everything(const Driver &driver, cuda::Stream stream, const jit::GpuImage &image) {
  auto made = makeCudaBackend(driver, 0);
  if (!made) return made.takeError();
  gpu::Backend &gpu = **made;
  auto kernel = gpu.load(image);
  if (!kernel) return kernel.takeError();
  auto memory = gpu.allocate(64, stream);
  if (!memory) return memory.takeError();
  alignas(16) char data[64] = {};
  char map[128];
  Status status = gpu.encodeTensorMap(map, data, DType::BF16, 8, 1, 8, 1);
  if (status) status = gpu.upload(*memory, data, 64, stream);
  if (status) status = gpu.launch(*kernel, {.grid = 4, .cluster = 2, .smemBytes = 1000}, nullptr, {}, stream);
  if (status) status = gpu.download(data, *memory, 64, stream);
  if (status) status = gpu.synchronize(stream);
  gpu.release(*memory, stream);
  if (status) status = gpu.synchronize(stream); // tells of a failed release
  return status;
}

/// SQLite's loop: fail the n-th call, for n = 1, 2, ... until the run is clean; once, and then for ever.
TEST_F(LoadKernels, EveryCallFails) {
  jit::GpuImage image = fakeImage();
  for (bool forever : {false, true}) {
    int n = 1;
    for (bool clean = false; !clean && n < 100; ++n) {
      SCOPED_TRACE(fmt::format("call {} fails {}", n, forever ? "for ever" : "once"));
      fake.reset();
      fake.failAt = n, fake.failForever = forever;
      auto opened = Driver::open(QUERN_FAKE_CUDA);
      Status status = opened ? everything(**opened, stream, image) : Status(opened.takeError());
      clean = static_cast<int>(fake.calls.size()) < n;
      EXPECT_FALSE(fake.misuse);
      if (clean) {
        EXPECT_TRUE(status) << status.error().str();
        break;
      }
      std::string failed = fake.calls[n - 1];
      // What may fail without harm: the version (0 = unknown), leaving a scope, and the relaxing of captures.
      auto harmless = [](const std::string &call) {
        return call == "cuDriverGetVersion" || call == "cuThreadExchangeStreamCaptureMode" ||
               call == "cuCtxPopCurrent";
      };
      auto after = fake.calls.begin() + (n - 1);
      if (forever ? !std::all_of(after, fake.calls.end(), harmless) : !harmless(failed)) {
        ASSERT_FALSE(status) << failed;
        EXPECT_THAT(status.error().message, HasSubstr("failed: CUDA_ERROR_OUT_OF_MEMORY (out of memory)"))
            << failed;
        if (!harmless(failed)) EXPECT_THAT(status.error().message, HasSubstr(failed)) << status.error().str();
      }
      if (!forever) {
        // Memory stays only where its release itself is what fails.
        bool releasing = std::count(fake.calls.begin(), after, "cuStreamSynchronize") == 1;
        if (!releasing) EXPECT_THAT(fake.live, IsEmpty()) << failed;
        if (failed != "cuCtxPopCurrent") EXPECT_THAT(fake.contextStack(), IsEmpty()) << failed;
      }
    }
    EXPECT_GT(n, 40) << "the loop has seen the whole run";
    EXPECT_LT(n, 100);
  }
}

} // namespace
} // namespace quern::driver
