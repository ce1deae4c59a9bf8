// Calls by a tuned schedule of decode=ahead on the fake driver: order and dependence of the launches, memory,
// and the default where the device has no room for decoded weights.
#include "driver_calls.h"
#include "runtime/cache/Notice.h"
#include "runtime/cache/Store.h"
#include "runtime/launch/Request.h"
#include "runtime/tune/Record.h"
#include "runtime/tune/Tuning.h"
#include <algorithm>
#include <fmt/format.h>

namespace quern::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class DecodedAhead : public LaunchPath {
protected:
  /// A call of an N of its own with a record that says to decode ahead.
  ShippedCall tuned(gpu::Backend &gpu, int64_t n) {
    ShippedCall down = call("gpt_oss", "down", {{"T", 64}, {"E", 4}, {"N", n}, {"K", 256}, {"top_k", 2}});
    auto binding = bindArguments(down.module->program(), *down.kernel, down.data->args);
    EXPECT_TRUE(binding);
    auto request = makeRequest(down.module->program(), *down.kernel, *binding, down.data->args, "sm_90a");
    EXPECT_EQ(request.schedule, "");
    tune::Result result;
    result.schedule = "bn=64 stages=4 decode=ahead";
    EXPECT_TRUE(tune::checkTunable(request, result.schedule));
    result.device = tune::identityOf(gpu);
    result.key = tune::tuningKey(request, result.device, tune::Policy::Device);
    tune::keepRecord(cache::Store::user(), result, request);
    return down;
  }
  std::vector<std::string> launched() const {
    std::vector<std::string> names;
    for (auto &launch : fake.launches)
      names.push_back(launch.function->name + (launch.dependent ? " dependent" : ""));
    return names;
  }
  static constexpr int64_t decodedBytes(int64_t n) { return 4 * ((n + 127) / 128 * 128) * 256 * 2; }
};

TEST_F(DecodedAhead, TheWeightsAreDecodedBetweenTheGatherAndTheKernel) {
  gpu::Backend &gpu = fresh();
  ShippedCall down = tuned(gpu, 384);
  Status cold = down.run(gpu, stream);
  ASSERT_TRUE(cold) << cold.error().str();
  // down reads its rows where they are: decoding is the first of the call, which waits for all before it.
  EXPECT_THAT(launched(), ElementsAre("decode_ahead", "down dependent", "combine_few dependent"));
  // A warm call waits for nothing, gives back what it takes, and may be captured.
  size_t live = fake.live.size();
  fake.launches.clear(), fake.contextStack() = {fake.contextOf(0)};
  fake.allowed = {"cuCtxGetCurrent", "cuMemAllocFromPoolAsync", "cuMemFreeAsync", "cuTensorMapEncodeTiled",
                  "cuLaunchKernelEx"};
  fake.captures[stream] = cuda::CaptureStatus::Active;
  Status warm = down.run(gpu, stream);
  EXPECT_TRUE(warm) << warm.error().str();
  EXPECT_EQ(fake.endCapture(stream), cuda::success);
  EXPECT_THAT(fake.forbidden, IsEmpty());
  EXPECT_EQ(fake.launches.size(), 3u);
  EXPECT_EQ(fake.live.size(), live);
  fake.allowed.clear();
  // No rows: nothing is decoded.
  fake.launches.clear();
  ShippedCall none = call("gpt_oss", "down", {{"T", 0}, {"E", 4}, {"N", 384}, {"K", 256}, {"top_k", 2}});
  ASSERT_TRUE(none.run(gpu, stream));
  EXPECT_THAT(launched(), IsEmpty());
  fake.contextStack().clear();
}

TEST_F(DecodedAhead, GatheredActivationsComeFirst) {
  gpu::Backend &gpu = fresh();
  ShippedCall up = call("gpt_oss", "gate_up", {{"T", 64}, {"E", 4}, {"N", 256}, {"K", 256}, {"top_k", 2}});
  Status ok = up.module->runOnDevice(gpu, stream, *up.kernel, up.data->args, up.data->outputs,
                                     "bn=64 stages=4 decode=ahead");
  ASSERT_TRUE(ok) << ok.error().str();
  EXPECT_THAT(launched(), ElementsAre("gather_rows", "decode_ahead dependent", "gate_up dependent"));
}

TEST_F(DecodedAhead, WithoutRoomTheDefaultRuns) {
  gpu::Backend &gpu = fresh();
  ShippedCall down = tuned(gpu, 512);
  uint64_t whole = fake.memory, used = 0;
  for (auto &[at, bytes] : fake.live) used += bytes;
  fake.memory = used + uint64_t(decodedBytes(512)); // some of it goes to tables and sums
  cache::forgetNotices();                           // of other tests
  testing::internal::CaptureStderr();
  Status ok = down.run(gpu, stream);
  std::string said = testing::internal::GetCapturedStderr();
  fake.memory = whole;
  ASSERT_TRUE(ok) << ok.error().str();
  EXPECT_THAT(launched(), ElementsAre("down", "combine_few dependent"));
  EXPECT_THAT(said, HasSubstr("wants 1 MB for decoded weights, the default is used"));
  // Somebody who names the schedule is told instead.
  fake.memory = used + uint64_t(decodedBytes(512));
  Status named = down.module->runOnDevice(gpu, stream, *down.kernel, down.data->args, down.data->outputs,
                                          "bn=64 stages=4 decode=ahead");
  fake.memory = whole;
  ASSERT_FALSE(named);
  EXPECT_THAT(named.error().str(), HasSubstr("CUDA_ERROR_OUT_OF_MEMORY"));
}

/// The memory was there when the call was prepared, and is another's at a later call.
TEST_F(DecodedAhead, WhenTheRoomIsGoneTheDefaultRunsFromThenOn) {
  gpu::Backend &gpu = fresh();
  ShippedCall down = tuned(gpu, 640);
  ASSERT_TRUE(down.run(gpu, stream));
  ASSERT_THAT(launched(), testing::Contains("decode_ahead"));
  uint64_t whole = fake.memory, used = 0;
  for (auto &[at, bytes] : fake.live) used += bytes;
  size_t live = fake.live.size();
  fake.memory = used + uint64_t(decodedBytes(640)); // the sums want some of it
  // In a capture nothing can be loaded: the call fails, and nothing is given up.
  fake.captures[stream] = cuda::CaptureStatus::Active;
  EXPECT_FALSE(down.run(gpu, stream));
  EXPECT_EQ(fake.endCapture(stream), cuda::success);
  EXPECT_EQ(fake.live.size(), live);
  fake.launches.clear();
  cache::forgetNotices(); // of other tests
  testing::internal::CaptureStderr();
  Status ok = down.run(gpu, stream);
  std::string said = testing::internal::GetCapturedStderr();
  fake.memory = whole;
  ASSERT_TRUE(ok) << ok.error().str();
  EXPECT_THAT(launched(), ElementsAre("down", "combine_few dependent"));
  EXPECT_THAT(said, HasSubstr("wants 1 MB for decoded weights, the default is used"));
  fake.launches.clear();
  ASSERT_TRUE(down.run(gpu, stream));
  EXPECT_THAT(launched(), ElementsAre("down", "combine_few dependent")) << "no schedule comes and goes";
}

} // namespace
} // namespace quern::test
