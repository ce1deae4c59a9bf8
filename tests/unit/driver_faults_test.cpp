// Failing driver calls: each one of a cold load, a first call and a cached call in turn, once and for ever;
// and errors that come from kernels that ran before.
#include "driver_calls.h"
#include <fmt/format.h>
#include <functional>

namespace quern::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// What the n-th call (from 0) of a clean run is for. Leaving a context and relaxing captures may fail
/// without harm; a failed release is told by the next call, because it returns nothing itself.
enum class Purpose { Work, Release, Harmless };
Purpose purposeOf(const std::vector<std::string> &calls, size_t n) {
  if (calls[n] == "cuThreadExchangeStreamCaptureMode" || calls[n] == "cuCtxPopCurrent")
    return Purpose::Harmless;
  while (n + 1 < calls.size() && (calls[n] == "cuCtxGetCurrent" || calls[n] == "cuCtxPushCurrent")) ++n;
  return calls[n] == "cuMemFreeAsync" ? Purpose::Release : Purpose::Work;
}

/// Row 43, in the manner of SQLite: `work` with its n-th call failing, for every n, once and from there on.
/// What it returns must name the call and where it was made; what comes after must work.
class Faults : public LaunchPath {
protected:
  size_t kept = 0;     // tables that stay on the device by design
  int keptModules = 0; // of device code, which a later call finds

  void everyCallFails(const std::function<void()> &prepare, const std::function<Status()> &work,
                      const std::function<Status()> &after, size_t atLeast) {
    prepare();
    takeCalls();
    ASSERT_TRUE(work());
    const std::vector<std::string> clean = takeCalls();
    ASSERT_GE(clean.size(), atLeast) << testing::PrintToString(clean);
    for (bool forever : {false, true})
      for (size_t n = 0; n < clean.size(); ++n) {
        SCOPED_TRACE(fmt::format("call {}, {}, fails {}", n, clean[n], forever ? "for ever" : "once"));
        prepare();
        takeCalls();
        size_t live = fake.live.size();
        int modules = fake.liveModules;
        fake.failAt = int(n) + 1, fake.failForever = forever, fake.failWith = 999;
        Status status = work();
        ASSERT_EQ(fake.calls.at(n), clean[n]);
        EXPECT_FALSE(fake.misuse);
        bool needed = false;
        for (size_t i = n; i < (forever ? clean.size() : n + 1); ++i)
          needed |= purposeOf(clean, i) == Purpose::Work;
        EXPECT_EQ(bool(status), !needed);
        if (!status) {
          EXPECT_THAT(status.error().str(), AllOf(HasSubstr("failed: CUDA error 999"), HasSubstr("cuda:0")));
          if (!forever) EXPECT_THAT(status.error().message, HasSubstr(clean[n]));
        }
        if (!forever && purposeOf(clean, n) != Purpose::Release) {
          EXPECT_LE(fake.live.size(), live + kept) << "memory was not given back";
          if (purposeOf(clean, n) == Purpose::Work) EXPECT_LE(fake.liveModules, modules + keptModules);
        }
        fake.forget(); // from here on nothing fails; a failed pop may have left a context or a relaxed mode
        Status next = after();
        if (!next) {
          EXPECT_THAT(next.error().message, HasSubstr("failed: CUDA error 999"))
              << "only a late release may be told";
          next = after();
        }
        EXPECT_TRUE(next) << next.error().str();
        EXPECT_TRUE(fake.contextStack().empty());
      }
  }
};

TEST_F(Faults, OfACachedCall) {
  gpu::Backend &gpu = shared();
  ShippedCall down = call("gpt_oss", "down");
  ASSERT_TRUE(down.run(gpu, stream));
  auto run = [&] { return down.run(gpu, stream); };
  everyCallFails([] {}, run, run, 8);
}

TEST_F(Faults, OfTheFirstCall) {
  ShippedCall down = call("gpt_oss", "down");
  gpu::Backend *gpu = nullptr;
  auto run = [&] { return down.runImage(*gpu, stream); };
  kept = 2, keptModules = 1; // codes, scales; combine.cu
  everyCallFails(
      [&] {
        gpu = &fresh();
        ASSERT_TRUE(gpu->load(*down.image()));
      },
      run, run, 20);
}

TEST_F(Faults, OfALoad) {
  ShippedCall gateUp = call("gpt_oss", "gate_up");
  gpu::Backend *gpu = nullptr;
  everyCallFails([&] { gpu = &fresh(); },
                 [&]() -> Status {
                   auto loaded = gpu->load(*gateUp.image());
                   return loaded ? Status() : Status(loaded.takeError());
                 },
                 [&] { return gateUp.runImage(*gpu, stream); }, 8);
}

/// An illegal access of an earlier kernel is reported by whatever comes next, and said to be that.
TEST_F(Faults, AnEarlierKernelsError) {
  gpu::Backend &gpu = shared();
  ShippedCall down = call("gpt_oss", "down");
  ASSERT_TRUE(down.run(gpu, stream));
  size_t live = fake.live.size();
  for (cuda::Result code : {700, 702, 716, 719}) {
    fake.stickyError = code;
    Status status = down.run(gpu, stream);
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().str(), AllOf(HasSubstr("on cuda:0: cuLaunchKernelEx failed"),
                                            HasSubstr("this may stem from an earlier launch")));
    EXPECT_THAT(gpu.synchronize(stream).error().str(), HasSubstr("this may stem from an earlier launch"));
    fake.stickyError = cuda::success;
    EXPECT_EQ(fake.live.size(), live);
  }
  EXPECT_TRUE(down.run(gpu, stream));
}

} // namespace
} // namespace quern::test
