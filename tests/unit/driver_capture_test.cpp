// Captures of CUDA graphs: what a cold call says, what other threads may do meanwhile, what is dropped in
// one.
#include "driver_calls.h"
#include <algorithm>
#include <atomic>
#include <thread>

namespace quern::test {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSubsetOf;
using testing::Not;
using testing::SizeIs;

/// What a refused call may ask: none of it changes anything.
const std::vector<std::string> statusCalls{"cuCtxGetCurrent", "cuCtxPushCurrent", "cuCtxPopCurrent",
                                           "cuStreamIsCapturing"};

void expectRefused(const Status &status, const std::string &kernel) {
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::User);
  EXPECT_EQ(status.error().str(),
            "kernel '" + kernel +
                "' on cuda:0: this kernel is not ready for this call, and a CUDA graph is being "
                "captured; warm up before the capture: make the same call once outside it");
}

/// Row 37: nothing compiled, nothing loaded.
TEST_F(LaunchPath, AColdCallInACaptureIsRefusedAndTheCaptureGoesOn) {
  gpu::Backend &gpu = fresh();
  ShippedCall down = call("gpt_oss", "down");
  int64_t compiled = stats().compilations;
  fake.captures[stream] = cuda::CaptureStatus::Active;
  takeCalls();
  expectRefused(down.run(gpu, stream), "down");
  EXPECT_THAT(fake.calls, IsSubsetOf(statusCalls));
  EXPECT_EQ(stats().compilations, compiled) << "nothing is compiled for a call that cannot run";
  EXPECT_EQ(fake.endCapture(stream), cuda::success);

  Status warm = down.run(gpu, stream); // the advice works
  ASSERT_TRUE(warm) << warm.error().str();
  fake.captures[stream] = cuda::CaptureStatus::Active;
  Status captured = down.run(gpu, stream);
  EXPECT_TRUE(captured) << captured.error().str();
  // On the legacy stream a cold call would take part in the capture.
  expectRefused(call("gpt_oss", "gate_up").run(gpu, nullptr), "gate_up");
  EXPECT_EQ(fake.endCapture(stream), cuda::success);
}

/// The image is there, but the tables of these weights are not.
TEST_F(LaunchPath, NewWeightsInACapture) {
  gpu::Backend &gpu = shared();
  ASSERT_TRUE(call("gpt_oss", "down").run(gpu, stream));
  ShippedCall other = call("gpt_oss", "down"); // other addresses
  fake.captures[stream] = cuda::CaptureStatus::Active;
  takeCalls();
  size_t live = fake.live.size();
  expectRefused(other.run(gpu, stream), "down");
  EXPECT_THAT(fake.calls, IsSubsetOf(statusCalls));
  EXPECT_EQ(fake.live.size(), live);
  EXPECT_EQ(fake.endCapture(stream), cuda::success);
  EXPECT_TRUE(other.run(gpu, stream));
}

/// Quern's own device code, not loaded yet: NVRTC is not even asked.
TEST_F(LaunchPath, ColdDeviceCodeInACapture) {
  gpu::Backend &gpu = fresh();
  fake.captures[stream] = cuda::CaptureStatus::Active;
  takeCalls();
  auto cold = gpu.loadDevice("combine_rows", stream);
  ASSERT_FALSE(cold);
  expectRefused(cold.takeError(), "combine_rows");
  EXPECT_THAT(fake.calls, IsSubsetOf(statusCalls));
  EXPECT_EQ(fake.endCapture(stream), cuda::success);
  EXPECT_TRUE(gpu.loadDevice("combine_rows", stream));
  fake.captures[stream] = cuda::CaptureStatus::Active;
  EXPECT_TRUE(gpu.loadDevice("combine_rows", stream)) << "now it is there";
  EXPECT_EQ(fake.endCapture(stream), cuda::success);
}

/// A status that cannot be asked is an error, not a guess.
TEST_F(LaunchPath, TheCaptureStatusCannotBeAsked) {
  gpu::Backend &gpu = fresh();
  ShippedCall down = call("gpt_oss", "down");
  takeCalls();
  fake.contextStack() = {fake.contextOf(0)};
  fake.failAt = 2, fake.failWith = 999;
  Status status = down.run(gpu, stream);
  fake.contextStack().clear();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().str(), "cuda:0: cuStreamIsCapturing failed: CUDA error 999");
}

/// Row 38: one thread captures again and again, another one loads a hundred modules and allocates.
TEST_F(LaunchPath, LoadsBesideALoopOfCaptures) {
  for (bool pools : {true, false}) {
    fake.pools = pools;
    gpu::Backend &gpu = fresh();
    ShippedCall down = call("gpt_oss", "down");
    if (pools) ASSERT_TRUE(down.run(gpu, stream)); // without pools a call's workspaces cannot be captured
    std::vector<jit::GpuImage> images(100);
    std::ranges::generate(images, [] { return fakeImage(); });
    std::atomic<bool> loading{true};
    int captures = 0, broken = 0;
    std::thread loader([&] {
      auto mine = reinterpret_cast<gpu::Stream>(0x77);
      for (auto &image : images) {
        auto loaded = gpu.load(image);
        EXPECT_TRUE(loaded) << loaded.error().str();
        auto memory = gpu.allocate(256, mine);
        ASSERT_TRUE(memory) << memory.error().str();
        gpu.release(*memory, mine);
        EXPECT_EQ(fake.captureMode(), cuda::CaptureMode::Global) << "the relaxed mode is popped";
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
      loading = false;
    });
    while (loading || captures < 3) {
      {
        std::lock_guard lock(fake.mutex);
        fake.captures[stream] = cuda::CaptureStatus::Active;
      }
      if (pools) EXPECT_TRUE(down.run(gpu, stream));
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      broken += fake.endCapture(stream) != cuda::success;
      ++captures;
    }
    loader.join();
    EXPECT_EQ(broken, 0) << "of " << captures << " captures";
    EXPECT_GE(std::ranges::count(fake.calls, "cuModuleLoadDataEx"), 100);
  }
}

/// Row 39: whatever the program drops, no module is unloaded.
TEST_F(LaunchPath, ModulesAreNeverUnloaded) {
  int loadedBefore = fake.liveModules;
  fake.captures[stream] = cuda::CaptureStatus::Active;
  {
    auto gpu = backend(); // a device of its own, destroyed in the capture
    std::vector<jit::GpuImage> images(20);
    std::ranges::generate(images, [] { return fakeImage(); });
    for (auto &image : images) ASSERT_TRUE(gpu->load(image));
  } // images, backend and
  driver.reset(); // driver are gone
  {
    ShippedCall dropped = call("gpt_oss", "down");
  }
  EXPECT_THAT(fake.calls, Not(Contains("cuModuleUnload")));
  EXPECT_EQ(fake.liveModules, loadedBefore + 20);
  EXPECT_EQ(fake.endCapture(stream), cuda::success);
}

/// Nor when memory is short: a call that fails gives back what it took, and modules stay.
TEST_F(LaunchPath, ModulesSurviveAMemoryShortage) {
  gpu::Backend &gpu = fresh();
  ShippedCall down = call("gpt_oss", "down");
  ASSERT_TRUE(down.run(gpu, stream));
  uint64_t used = 0;
  for (auto &[pointer, bytes] : fake.live) used += bytes;
  size_t live = fake.live.size();
  int modules = fake.liveModules;
  fake.memory = used;
  Status full = down.run(gpu, stream);
  ASSERT_FALSE(full);
  EXPECT_THAT(full.error().str(), AllOf(HasSubstr("cuda:0"), HasSubstr("CUDA_ERROR_OUT_OF_MEMORY"),
                                        HasSubstr("bytes were asked for")));
  EXPECT_EQ(fake.liveModules, modules);
  EXPECT_EQ(fake.live.size(), live);
  fake.memory = 1 << 30;
  EXPECT_TRUE(down.run(gpu, stream));
  EXPECT_THAT(fake.calls, Not(Contains("cuModuleUnload")));
}

} // namespace
} // namespace quern::test
