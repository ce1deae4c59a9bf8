// The device interface on the fake driver: which calls a launch makes, contexts, captures, errors.
#include "driver_fake.h"
#include "tests/support/private_cache.h"
#include <sys/wait.h>
#include <thread>

namespace quern::driver {
namespace {

using test::Environment;
using test::fakeImage;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class CudaBackend : public test::FakeDriver {};

TEST_F(CudaBackend, Facts) {
  auto gpu = backend();
  ASSERT_TRUE(gpu);
  EXPECT_EQ(gpu->name(), "Fake H100 (sm_90a)");
  EXPECT_EQ(gpu->arch(), "sm_90a");
  EXPECT_EQ(gpu->multiprocessors(), 132);
  EXPECT_THAT(takeCalls(), IsEmpty()) << "known from the start";
  ASSERT_EQ(fake.livePools.size(), 1u);
  EXPECT_EQ(fake.livePools[0]->releaseThreshold, 1ull << 30);
  fake.minor = 6, fake.major = 8;
  EXPECT_EQ(backend()->arch(), "sm_86");
}

TEST_F(CudaBackend, AWarmCallMakesFewCallsAndNoneThatWaits) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  ASSERT_TRUE(gpu->load(image));
  takeCalls();
  fake.contextStack().push_back(fake.contextOf(0)); // as under PyTorch
  auto kernel = gpu->load(image);
  EXPECT_THAT(takeCalls(), IsEmpty());
  auto memory = gpu->allocate(4096, stream);
  EXPECT_THAT(takeCalls(), ElementsAre("cuCtxGetCurrent", "cuMemAllocFromPoolAsync"));
  ASSERT_TRUE(gpu->launch(*kernel, {.grid = 132, .block = 384, .smemBytes = 200000}, nullptr, {}, stream));
  EXPECT_THAT(takeCalls(), ElementsAre("cuCtxGetCurrent", "cuLaunchKernelEx"));
  gpu->release(*memory, stream);
  EXPECT_THAT(takeCalls(), ElementsAre("cuCtxGetCurrent", "cuMemFreeAsync"));
  EXPECT_THAT(fake.contextStack(), ElementsAre(fake.contextOf(0)));
  fake.contextStack().clear();
}

TEST_F(CudaBackend, AThreadWithoutAContext) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  std::thread([&] {
    auto kernel = gpu->load(image);
    ASSERT_TRUE(kernel) << kernel.error().str();
    auto memory = gpu->allocate(100, stream);
    ASSERT_TRUE(memory) << memory.error().str();
    Status launched = gpu->launch(*kernel, {}, nullptr, {}, stream);
    EXPECT_TRUE(launched) << launched.error().str();
    gpu->release(*memory, stream);
    EXPECT_TRUE(gpu->synchronize(stream));
    EXPECT_THAT(fake.contextStack(), IsEmpty()) << "the thread is left as it was";
  }).join();
  EXPECT_EQ(fake.launches.size(), 1u);
  EXPECT_THAT(fake.live, IsEmpty());
}

TEST_F(CudaBackend, TheCallersContextIsRestored) {
  fake.devices = 2;
  auto first = backend(0), second = backend(1);
  jit::GpuImage image = fakeImage();
  fake.contextStack() = {fake.contextOf(0)};
  auto kernel = second->load(image);
  ASSERT_TRUE(kernel) << kernel.error().str();
  EXPECT_TRUE(second->launch(*kernel, {}, nullptr, {}, stream)) << "the fake refuses another device's kernel";
  auto onFirst = first->load(image);
  ASSERT_TRUE(onFirst);
  EXPECT_NE(*onFirst, *kernel) << "modules belong to a device";
  EXPECT_TRUE(first->launch(*onFirst, {}, nullptr, {}, stream));
  EXPECT_THAT(fake.contextStack(), ElementsAre(fake.contextOf(0)));
  ASSERT_EQ(fake.launches.size(), 2u);
  EXPECT_EQ(fake.launches[0].function->module->device, 1);
  EXPECT_EQ(fake.launches[1].function->module->device, 0);
  fake.contextStack().clear();
}

TEST_F(CudaBackend, LaunchConfiguration) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  auto kernel = gpu->load(image);
  ASSERT_TRUE(kernel);
  int value = 7;
  void *params[] = {&value};
  gpu::LaunchConfig config{.grid = 132, .block = 384, .cluster = 2, .smemBytes = 199000, .dependent = true};
  Status ok = gpu->launch(*kernel, config, params, {}, stream);
  ASSERT_TRUE(ok) << ok.error().str();
  ASSERT_EQ(fake.launches.size(), 1u);
  const test::FakeLaunch &launch = fake.launches[0];
  EXPECT_EQ(launch.function->name, "gate_up");
  EXPECT_EQ(launch.config.gridDimX, 132u);
  EXPECT_EQ(launch.config.blockDimX, 384u);
  EXPECT_EQ(launch.config.sharedMemBytes, 199000u);
  EXPECT_EQ(launch.config.stream, stream);
  EXPECT_EQ(launch.cluster, 2u);
  EXPECT_TRUE(launch.dependent);
  EXPECT_EQ(launch.parameters, params);
  ASSERT_TRUE(gpu->launch(*kernel, {.grid = 3}, params, {}, stream));
  EXPECT_EQ(fake.launches[1].config.numAttributes, 0u);
}

TEST_F(CudaBackend, LaunchesThatTheDriverIsNotAskedFor) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  auto kernel = gpu->load(image);
  takeCalls();
  EXPECT_TRUE(gpu->launch(*kernel, {.grid = 0}, nullptr, {}, stream)) << "no rows";
  Status cluster = gpu->launch(*kernel, {.grid = 3, .cluster = 2}, nullptr, {}, stream);
  ASSERT_FALSE(cluster);
  EXPECT_THAT(cluster.error().str(),
              testing::StartsWith("kernel 'gate_up' on cuda:0: internal error: a grid of 3 is "
                                  "not whole clusters of 2\n"));
  Status smem = gpu->launch(*kernel, {.smemBytes = 200001}, nullptr, {}, stream);
  ASSERT_FALSE(smem);
  EXPECT_EQ(smem.error().message,
            "200001 bytes of shared memory asked for, the kernel was loaded with 200000");
  EXPECT_THAT(takeCalls(), IsEmpty());
}

TEST_F(CudaBackend, ErrorsHaveNameTextAndPlace) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage();
  auto kernel = gpu->load(image);
  ASSERT_TRUE(kernel);
  Status launch = gpu->launch(*kernel, {.grid = 5, .block = 2048}, nullptr, {}, stream);
  ASSERT_FALSE(launch);
  EXPECT_EQ(launch.error().kind, ErrorKind::System);
  EXPECT_EQ(
      launch.error().str(),
      "kernel 'gate_up' on cuda:0: cuLaunchKernelEx failed: CUDA_ERROR_INVALID_VALUE (invalid argument)\n"
      "grid 5, 2048 threads, cluster 1, 0 bytes of shared memory");
  auto memory = gpu->allocate(2ull << 30, stream);
  ASSERT_FALSE(memory);
  EXPECT_EQ(memory.error().str(),
            "cuda:0: cuMemAllocFromPoolAsync failed: CUDA_ERROR_OUT_OF_MEMORY (out of memory)\n"
            "2147483648 bytes were asked for");
  fake.failAt = static_cast<int>(fake.calls.size()) + 3; // after asking for the context and the capture
  fake.failWith = 700;
  fake.contextStack() = {fake.contextOf(0)};
  Status wait = gpu->synchronize(stream);
  fake.contextStack().clear();
  ASSERT_FALSE(wait);
  EXPECT_EQ(wait.error().str(),
            "cuda:0: cuStreamSynchronize failed: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory "
            "access was encountered)\n"
            "this may stem from an earlier launch; the process cannot use this device any more");
  for (cuda::Result code : {214, 220, 226, 700, 702, 710, 715, 716, 717, 718, 719, 721})
    EXPECT_THAT(driver->error("cuMemFreeAsync", code, "").detail,
                HasSubstr("may stem from an earlier launch"))
        << code;
  for (cuda::Result code : {1, 2, 200, 701, 720, 801})
    EXPECT_EQ(driver->error("cuMemFreeAsync", code, "").detail, "") << code;
  EXPECT_EQ(driver->error("cuModuleLoadDataEx", cuda::errorUnsupportedPtxVersion, "cuda:0").str(),
            "cuda:0: cuModuleLoadDataEx failed: CUDA error 222\nthis driver is for CUDA 13.0, and the PTX is "
            "newer: update "
            "the driver, or install ptxas with pip install 'nvidia-cuda-nvcc==13.0.*'");
  EXPECT_THAT(driver->error("cuLaunchKernelEx", cuda::errorStreamCaptureUnsupported, "").detail,
              HasSubstr("run the same call once before the capture"));
  EXPECT_THAT(driver->error("cuLaunchKernelEx", cuda::errorInvalidHandle, "").detail,
              HasSubstr("the stream may be of another device"));
  fake.errorTexts = false;
  EXPECT_EQ(driver->describe(12345), "CUDA error 12345");
}

TEST_F(CudaBackend, MemoryAndCopies) {
  auto gpu = backend();
  std::vector<int> values{1, 2, 3, 4}, back(4);
  auto memory = gpu->allocate(16, stream);
  ASSERT_TRUE(memory);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(*memory) % 256, 0u);
  EXPECT_TRUE(gpu->upload(*memory, values.data(), 16, stream));
  EXPECT_TRUE(gpu->download(back.data(), *memory, 16, stream));
  EXPECT_TRUE(gpu->synchronize(stream));
  EXPECT_EQ(back, values);
  EXPECT_FALSE(gpu->upload(*memory, values.data(), 1000, stream)) << "the fake knows its memory";
  takeCalls();
  EXPECT_TRUE(gpu->upload(nullptr, nullptr, 0, stream));
  EXPECT_THAT(takeCalls(), Not(Contains("cuMemcpyHtoDAsync")));
  auto nothing = gpu->allocate(0, stream);
  ASSERT_TRUE(nothing) << nothing.error().str();
  EXPECT_NE(*nothing, nullptr);
  gpu->release(*nothing, stream);
  gpu->release(*memory, stream);
  gpu->release(nullptr, stream);
  EXPECT_THAT(fake.live, IsEmpty());
}

TEST_F(CudaBackend, AFailedReleaseIsReportedByTheNextCall) {
  auto gpu = backend();
  auto memory = gpu->allocate(16, stream);
  fake.contextStack() = {fake.contextOf(0)};
  fake.failAt = static_cast<int>(fake.calls.size()) + 2, fake.failWith = 700;
  gpu->release(*memory, stream);
  Status next = gpu->synchronize(stream);
  ASSERT_FALSE(next);
  EXPECT_THAT(next.error().message, HasSubstr("cuMemFreeAsync failed: CUDA_ERROR_ILLEGAL_ADDRESS"));
  EXPECT_TRUE(gpu->synchronize(stream)) << "once";
  fake.contextStack().clear();
}

TEST_F(CudaBackend, WithoutMemoryPools) {
  fake.pools = false;
  auto gpu = backend();
  auto memory = gpu->allocate(0, stream);
  ASSERT_TRUE(memory) << memory.error().str();
  EXPECT_THAT(fake.calls, AllOf(Contains("cuMemAlloc"), Not(Contains("cuMemAllocFromPoolAsync"))));
  gpu->release(*memory, stream);
  EXPECT_THAT(fake.calls, Contains("cuMemFree"));
  EXPECT_THAT(fake.live, IsEmpty());
  fake.captures[stream] = cuda::CaptureStatus::Active;
  auto captured = gpu->allocate(16, stream);
  ASSERT_FALSE(captured);
  EXPECT_EQ(captured.error().message,
            "memory cannot be allocated (this device has no memory pools) while a CUDA graph "
            "is being captured; make this call once before the capture");
  EXPECT_TRUE(fake.captureSurvives());
  auto other = gpu->allocate(16, reinterpret_cast<cuda::Stream>(0x77));
  ASSERT_TRUE(other) << other.error().str(); // beside another stream's capture
  gpu->release(*other, stream);
  EXPECT_TRUE(fake.captureSurvives());
}

TEST_F(CudaBackend, AFailedStartLeavesNothing) {
  for (const char *call : {"cuMemPoolCreate", "cuMemPoolSetAttribute"}) {
    fake.reset();
    ASSERT_TRUE(backend());
    auto made = makeCudaBackend(*driver, 0); // to see which of its calls this is
    ASSERT_TRUE(made);
    auto at = std::ranges::find(fake.calls, call);
    ASSERT_NE(at, fake.calls.end());
    fake.failAt = static_cast<int>(at - fake.calls.begin()) + 1;
    fake.calls.clear();
    int retained = fake.retained[0];
    size_t pools = fake.livePools.size();
    auto failed = makeCudaBackend(*driver, 0);
    ASSERT_FALSE(failed) << call;
    EXPECT_THAT(failed.error().message,
                testing::StartsWith(std::string(call) + " failed: CUDA_ERROR_OUT_OF_MEMORY"));
    EXPECT_EQ(fake.retained[0], retained) << call;
    EXPECT_EQ(fake.livePools.size(), pools) << call;

    fake.calls.clear();
    fake.failWith = cuda::errorNotSupported;
    auto without = makeCudaBackend(*driver, 0);
    EXPECT_EQ(bool(without), std::string_view(call) == "cuMemPoolCreate") << "goes on without a pool";
  }
}

TEST_F(CudaBackend, CaptureOfAGraph) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage(), cold = fakeImage("down");
  auto kernel = gpu->load(image);
  int value = 0;
  fake.captures[stream] = cuda::CaptureStatus::Active;
  fake.contextStack() = {fake.contextOf(0)};

  auto memory = gpu->allocate(64, stream);
  ASSERT_TRUE(memory) << memory.error().str();
  EXPECT_TRUE(gpu->launch(*kernel, {.grid = 2}, nullptr, {}, stream));
  gpu->release(*memory, stream);
  EXPECT_TRUE(fake.captureSurvives());

  for (const Status &refused : {gpu->synchronize(stream), gpu->upload(*memory, &value, 4, stream),
                                gpu->download(&value, *memory, 4, stream), gpu->synchronize(nullptr)}) {
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::User);
    EXPECT_THAT(refused.error().message,
                HasSubstr("while a CUDA graph is being captured; make this call once before"));
  }
  EXPECT_TRUE(fake.captureSurvives());
  EXPECT_TRUE(gpu->load(cold)) << "a load beside a capture";
  EXPECT_TRUE(fake.captureSurvives());
  EXPECT_TRUE(gpu->synchronize(reinterpret_cast<cuda::Stream>(0x77))) << "another stream";
  fake.contextStack().clear();
}

TEST_F(CudaBackend, OtherThreadsLoadBesideACapture) {
  auto gpu = backend();
  fake.captures[stream] = cuda::CaptureStatus::Active;
  std::vector<jit::GpuImage> images(100, fakeImage());
  std::thread([&] {
    for (auto &image : images) EXPECT_TRUE(gpu->load(image));
    auto other = backend();
    EXPECT_TRUE(other);
  }).join();
  EXPECT_TRUE(fake.captureSurvives());
}

TEST_F(CudaBackend, TensorMap) {
  auto gpu = backend();
  alignas(16) static char data[256];
  uint8_t map[129];
  memset(map, 1, sizeof map);
  // The caller's 128 bytes need no alignment.
  Status ok = gpu->encodeTensorMap(map + 1, data, DType::BF16, 2880, 77, 2888, 128);
  ASSERT_TRUE(ok) << ok.error().str();
  EXPECT_THAT(std::vector<uint8_t>(map + 1, map + 129), Each(0x5a));
  EXPECT_EQ(map[0], 1);
  ASSERT_EQ(fake.tensorMaps.size(), 1u);
  const test::FakeTensorMap &made = fake.tensorMaps[0];
  EXPECT_EQ(made.type, cuda::TensorType::BFloat16);
  EXPECT_EQ(made.base, data);
  EXPECT_THAT(made.dims, ElementsAre(2880, 77)) << "the inner dimension first";
  EXPECT_THAT(made.byteStrides, ElementsAre(5776));
  EXPECT_THAT(made.box, ElementsAre(64, 128));
  EXPECT_THAT(made.elementStrides, ElementsAre(1, 1));
  EXPECT_EQ(made.swizzle, cuda::TensorSwizzle::Bytes128);
  ASSERT_TRUE(gpu->encodeTensorMap(map + 1, data, DType::F16, 64, 1, 64, 1));
  EXPECT_EQ(fake.tensorMaps[1].type, cuda::TensorType::Float16);

  auto refusal = [&](const void *base, DType dtype, int64_t columns, int64_t rows, int64_t stride,
                     int64_t box) {
    Status status = gpu->encodeTensorMap(map, base, dtype, columns, rows, stride, box);
    EXPECT_FALSE(status);
    return status ? "" : status.error().message;
  };
  EXPECT_EQ(refusal(data, DType::F32, 64, 1, 64, 8), "dtype f32, expected bf16 or f16");
  EXPECT_THAT(refusal(data + 8, DType::BF16, 64, 1, 64, 8), HasSubstr("must be multiples of 16 bytes"));
  EXPECT_THAT(refusal(data, DType::BF16, 60, 1, 60, 8),
              HasSubstr("row stride 120 must be multiples of 16 bytes"));
  for (auto [columns, rows, stride, box] :
       {std::array<int64_t, 4>{64, 0, 64, 8}, {64, 1, 56, 8}, {64, 1, 64, 257}, {64, 1, 64, 0}})
    EXPECT_THAT(refusal(data, DType::BF16, columns, rows, stride, box),
                HasSubstr("rows and columns must be 1..2^32"));
  EXPECT_EQ(fake.tensorMaps.size(), 2u);
}

TEST_F(CudaBackend, AForkedChild) {
  auto gpu = backend();
  jit::GpuImage image = fakeImage(), other = fakeImage("down");
  auto kernel = gpu->load(image);
  ASSERT_TRUE(kernel);
  auto memory = gpu->allocate(16, stream);
  pid_t child = fork();
  if (child == 0) {
    auto says = [](const Error &error) {
      return error.message.starts_with("CUDA was in use before this process was forked");
    };
    bool good = true;
    Status launched = gpu->launch(*kernel, {}, nullptr, {}, stream);
    good = good && !launched && says(launched.error());
    auto loaded = gpu->load(other);
    good = good && !loaded && says(loaded.error());
    auto again = Driver::get();
    good = good && !again && says(again.error());
    gpu->release(*memory, stream);
    _exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(gpu->launch(*kernel, {}, nullptr, {}, stream)) << "the parent goes on";
}

} // namespace
} // namespace quern::driver
