// The launch path of every shipped kernel on the fake driver: which calls it may make, contexts and devices.
#include "driver_calls.h"
#include "runtime/driver/Ptxas.h"
#include "runtime/gpu/DeviceCode.h"
#include <algorithm>
#include <functional>
#include <thread>

extern char **environ;

namespace quern::test {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// All that a warm call may ask of the driver: nothing of it waits, loads, or is forbidden in a capture.
const std::set<std::string, std::less<>> launchCalls{"cuCtxGetCurrent", "cuMemAllocFromPoolAsync",
                                                     "cuMemFreeAsync", "cuTensorMapEncodeTiled",
                                                     "cuLaunchKernelEx"};

/// Row 40.
TEST_F(LaunchPath, AWarmCallOfAnyKernelMakesOnlyTheseCalls) {
  gpu::Backend &gpu = shared();
  std::vector<ShippedCall> calls = everyCall();
  ASSERT_GE(calls.size(), 10u);
  for (auto &call : calls) {
    SCOPED_TRACE(call.module->program().fileName + " " + call.kernel->name);
    Status cold = call.run(gpu, stream);
    ASSERT_TRUE(cold) << cold.error().str();
    size_t live = fake.live.size();
    fake.contextStack() = {fake.contextOf(0)}; // as under PyTorch
    fake.allowed = launchCalls;
    takeCalls();
    Status warm = call.run(gpu, stream);
    EXPECT_TRUE(warm) << warm.error().str();
    EXPECT_THAT(fake.forbidden, IsEmpty());
    EXPECT_GE(std::ranges::count(fake.calls, "cuLaunchKernelEx"), 1);
    EXPECT_EQ(fake.live.size(), live) << "a workspace was not given back";

    // A thread without a context pushes and pops the device's own, and nothing else.
    fake.allowed.insert({"cuCtxPushCurrent", "cuCtxPopCurrent"});
    std::thread([&] {
      Status other = call.run(gpu, stream);
      EXPECT_TRUE(other) << other.error().str();
      EXPECT_THAT(fake.contextStack(), IsEmpty()) << "the thread is left as it was";
    }).join();
    EXPECT_THAT(fake.forbidden, IsEmpty());

    // The same calls may be captured.
    fake.captures[stream] = cuda::CaptureStatus::Active;
    Status captured = call.run(gpu, stream);
    EXPECT_TRUE(captured) << captured.error().str();
    EXPECT_EQ(fake.endCapture(stream), cuda::success);
    fake.contextStack().clear(), fake.allowed.clear();
  }
}

/// Routing, re-tiling and decoding: launches too.
TEST_F(LaunchPath, WarmDeviceCodeMakesOnlyTheseCalls) {
  gpu::Backend &gpu = shared();
  ShippedCall down = call("gpt_oss", "down");
  auto packed = std::get<PackedView>(down.data->args[2]);
  packed.layout = Layout::Bnb;
  std::vector<int64_t> ids(3000 * 2);
  std::vector<float> scores(3000 * 4), out(size_t(packed.shape.n * packed.shape.k));
  std::vector<int32_t> routing(4 * 6001);
  DeviceRouting to{routing.data(), routing.data() + 6001, reinterpret_cast<float *>(routing.data() + 12002),
                   routing.data() + 18003};
  std::vector<std::pair<std::string, std::function<Status()>>> all{
      {"few ids",
       [&] {
         return gpu::routeFromIds(gpu, stream, {ids.data(), 8, {2, 1}, nullptr, DType::F32, {2, 1}, 8, 2, 4},
                                  to);
       }},
      {"many ids",
       [&] {
         return gpu::routeFromIds(gpu, stream,
                                  {ids.data(), 8, {2, 1}, nullptr, DType::F32, {2, 1}, 3000, 2, 4}, to);
       }},
      {"scores",
       [&] {
         return gpu::routeFromScores(gpu, stream, {scores.data(), DType::F32, {4, 1}, 3000, 2, 4}, to);
       }},
      {"re-tiling", [&] { return gpu::retileInPlace(gpu, stream, packed, Layout::Gpu); }},
      {"decoding", [&] { return gpu::dequantize(gpu, stream, packed, 0, DType::F32, out.data()); }}};
  for (auto &[name, work] : all) {
    SCOPED_TRACE(name);
    Status cold = work();
    ASSERT_TRUE(cold) << cold.error().str();
    fake.contextStack() = {fake.contextOf(0)};
    fake.allowed = launchCalls;
    Status warm = work();
    EXPECT_TRUE(warm) << warm.error().str();
    EXPECT_THAT(fake.forbidden, IsEmpty());
    fake.contextStack().clear(), fake.allowed.clear();
  }
}

/// Row 41: many new threads, each with a context of its own choosing.
TEST_F(LaunchPath, FreshThreads) {
  gpu::Backend &gpu = shared();
  ShippedCall down = call("gpt_oss", "down");
  ASSERT_TRUE(down.run(gpu, stream));
  fake.devices = 2;
  std::vector<std::thread> threads;
  for (int i = 0; i < 12; ++i)
    threads.emplace_back([&, i] {
      std::vector<cuda::Context> mine;
      if (i % 3) mine.push_back(fake.contextOf(i % 3 - 1)); // none, this device's, the other one's
      fake.contextStack() = mine;
      for (int repeat = 0; repeat < 20; ++repeat) {
        Status ok = down.run(gpu, stream);
        EXPECT_TRUE(ok) << ok.error().str();
        EXPECT_EQ(fake.contextStack(), mine);
      }
    });
  for (auto &thread : threads) thread.join();
}

/// Rows 41 and 42: modules belong to a device, and the device comes from the call, not from the thread.
TEST_F(LaunchPath, TwoDevices) {
  fake.devices = 2;
  gpu::Backend &first = fresh(0);
  fake.devices = 2;
  gpu::Backend &second = fresh(1);
  ShippedCall down = call("gpt_oss", "down");
  auto other = reinterpret_cast<gpu::Stream>(0x5101);
  fake.streamDevices = {{stream, 0}, {other, 1}};
  fake.contextStack() = {fake.contextOf(0)};
  for (int repeat = 0; repeat < 2; ++repeat) {
    Status onFirst = down.runImage(first, stream), onSecond = down.runImage(second, other);
    EXPECT_TRUE(onFirst) << onFirst.error().str();
    EXPECT_TRUE(onSecond) << onSecond.error().str();
    EXPECT_THAT(fake.contextStack(), ElementsAre(fake.contextOf(0))) << "the thread's own";
  }
  for (auto &launch : fake.launches)
    EXPECT_EQ(launch.function->module->device, launch.config.stream == stream ? 0 : 1);

  // A stream of another device than the operands': the driver's refusal names device and kernel.
  Status mixed = down.runImage(second, stream);
  ASSERT_FALSE(mixed);
  EXPECT_THAT(mixed.error().str(), AllOf(HasSubstr("cuda:1"), HasSubstr("CUDA_ERROR_INVALID_HANDLE"),
                                         HasSubstr("the stream may be of another device")));
  fake.contextStack().clear();
}

/// Row 44: from a cold start, the function is there with its attributes before the first launch.
TEST_F(LaunchPath, NothingIsLoadedAtTheFirstLaunch) {
  gpu::Backend &gpu = fresh();
  ShippedCall down = call("gpt_oss", "down");
  fake.calls.clear();
  ASSERT_TRUE(down.runImage(gpu, stream));
  auto at = [&](const char *name, size_t from = 0) {
    return std::find(fake.calls.begin() + long(from), fake.calls.end(), name) - fake.calls.begin();
  };
  // The kernel's own load comes first.
  EXPECT_LT(at("cuModuleLoadDataEx"), at("cuModuleGetFunction"));
  EXPECT_LT(at("cuModuleGetFunction"), at("cuFuncLoad"));
  EXPECT_LT(at("cuFuncLoad"), at("cuFuncGetAttribute"));
  EXPECT_LT(at("cuFuncGetAttribute"), at("cuFuncSetAttribute"));
  EXPECT_LT(at("cuFuncSetAttribute"), at("cuLaunchKernelEx"));
  for (auto &launch : fake.launches) EXPECT_TRUE(launch.function->loaded) << launch.function->name;
}

/// The same on a driver without cuFuncLoad (before CUDA 12.4): asking an attribute loads the code.
TEST_F(LaunchPath, OlderDriversLoadEarlyToo) {
  auto opened = driver::Driver::open(QUERN_FAKE_CUDA);
  ASSERT_TRUE(opened);
  (*opened)->api.funcLoad = nullptr;
  auto gpu = driver::makeCudaBackend(**opened, 0);
  ASSERT_TRUE(gpu);
  jit::GpuImage image = fakeImage();
  auto kernel = (*gpu)->load(image);
  ASSERT_TRUE(kernel) << kernel.error().str();
  fake.captures[stream] = cuda::CaptureStatus::Active;
  EXPECT_TRUE((*gpu)->launch(*kernel, {}, nullptr, {}, stream))
      << "the fake loads lazily, which breaks a capture";
  EXPECT_EQ(fake.endCapture(stream), cuda::success);
}

/// Row 47.
TEST_F(LaunchPath, WithoutRowsNoKernelIsLaunched) {
  gpu::Backend &gpu = shared();
  for (const char *kernel : {"gate_up", "down"}) {
    ShippedCall call = LaunchPath::call("gpt_oss", kernel, {{"T", 0}});
    Status ok = call.run(gpu, stream);
    EXPECT_TRUE(ok) << ok.error().str();
    EXPECT_THAT(fake.launches, IsEmpty()) << kernel;
  }
  // Tokens that chose nothing: their sums are defined, by the combine alone.
  ShippedCall none = call("gpt_oss", "down", {{"T", 5}});
  std::get<TensorView>(none.data->args[0]).shape[0] = 0;
  std::get<RoutingView>(none.data->args[1]).topK = 0;
  Status ok = none.run(gpu, stream);
  EXPECT_TRUE(ok) << ok.error().str();
  ASSERT_EQ(fake.launches.size(), 1u);
  EXPECT_THAT(fake.launches[0].function->name, testing::StartsWith("combine_"));
  ShippedCall dense = call("linear", "linear", {{"T", 0}});
  fake.launches.clear();
  ok = dense.run(gpu, stream);
  EXPECT_TRUE(ok) << ok.error().str();
  EXPECT_THAT(fake.launches, IsEmpty());
}

/// Row 46: the driver's own cache is the host process's business.
TEST_F(LaunchPath, TheEnvironmentIsLeftAsItWas) {
  auto variables = [] {
    std::vector<std::string> all;
    for (char **v = environ; *v; ++v) all.push_back(*v);
    return all;
  };
  Environment disabled("CUDA_CACHE_DISABLE", "1");
  auto before = variables();
  ShippedCall down = call("gpt_oss", "down");
  Status ok = down.runImage(fresh(), stream);
  EXPECT_TRUE(ok) << ok.error().str();
  EXPECT_EQ(variables(), before);
  EXPECT_FALSE(down.image()->cubin.empty() && !driver::findPtxas().empty())
      << "we keep linked code ourselves";
}

} // namespace
} // namespace quern::test
