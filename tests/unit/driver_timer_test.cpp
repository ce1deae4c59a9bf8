// Measuring on a CUDA device: events, flush and copies in the order asked for, memory given back, failures
// named.
#include "driver_fake.h"
#include "runtime/driver/Nvml.h"
#include "runtime/gpu/Timer.h"
#include <thread>

namespace quern::test {
namespace {

class DriverTimer : public FakeDriver {
protected:
  std::unique_ptr<gpu::Backend> device = nullptr;
  std::unique_ptr<gpu::Timer> timer() {
    if (!device) device = backend();
    auto made = device->timer();
    if (!made) return ADD_FAILURE() << made.error().str(), nullptr;
    return std::move(*made);
  }
  /// Without the questions about contexts.
  std::vector<std::string> work() {
    auto calls = takeCalls();
    std::erase_if(calls, [](const std::string &c) { return c.find("cuCtx") == 0; });
    return calls;
  }
};

TEST_F(DriverTimer, MeasuresBetweenItsMarks) {
  auto t = timer();
  ASSERT_TRUE(t);
  takeCalls();
  ASSERT_TRUE(t->flush(stream));
  ASSERT_TRUE(t->start(stream));
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ASSERT_TRUE(t->stop(stream));
  auto us = t->microseconds();
  ASSERT_TRUE(us);
  EXPECT_GE(*us, 1900);
  EXPECT_THAT(work(), testing::ElementsAre("cuMemsetD32Async", "cuEventRecord", "cuEventRecord",
                                           "cuEventSynchronize", "cuEventElapsedTime"));
}

TEST_F(DriverTimer, FlushesMoreThanTheCacheHolds) {
  auto t = timer();
  ASSERT_TRUE(t);
  EXPECT_EQ(t->cacheBytes(), 1u << 20);
  EXPECT_GT(t->freeBytes(), 0u);
  EXPECT_LT(t->freeBytes(), fake.memory);
  uint64_t most = 0;
  for (auto &[pointer, bytes] : fake.live) most = std::max<uint64_t>(most, bytes);
  EXPECT_GE(most, 2 * t->cacheBytes());
  size_t live = fake.live.size();
  t.reset();
  EXPECT_EQ(fake.live.size(), live - 1);
}

TEST_F(DriverTimer, Copies) {
  auto t = timer();
  ASSERT_TRUE(t);
  auto from = device->allocate(64, stream), to = device->allocate(64, stream);
  ASSERT_TRUE(from && to);
  char text[64] = "copied", back[64] = {};
  ASSERT_TRUE(device->upload(*from, text, 64, stream));
  ASSERT_TRUE(t->copy(*to, *from, 64, stream));
  ASSERT_TRUE(device->download(back, *to, 64, stream));
  EXPECT_STREQ(back, "copied");
  device->release(*from, stream), device->release(*to, stream);
}

TEST_F(DriverTimer, EveryFailingCallIsAnError) {
  // The calls of opening a timer and of one measurement, failed one after the other.
  device = backend();
  auto measure = [&]() -> Status {
    auto t = device->timer();
    if (!t) return t.takeError();
    if (Status ok = (*t)->start(stream); !ok) return ok;
    if (Status ok = (*t)->stop(stream); !ok) return ok;
    auto us = (*t)->microseconds();
    return us ? Status() : Status(us.takeError());
  };
  takeCalls();
  ASSERT_TRUE(measure());
  auto calls = takeCalls();
  int errors = 0;
  fake.failWith = 719;
  for (size_t n = 1; n <= calls.size(); ++n) {
    if (calls[n - 1].starts_with("cuCtxPop")) continue; // a context that stays pushed is nobody's to repair
    takeCalls();
    fake.failAt = int(n);
    Status result = measure();
    fake.failAt = 0;
    errors += !result;
    if (!result) EXPECT_NE(result.error().message.find("failed"), std::string::npos) << result.error().str();
  }
  // Not errors: the PCI address (clocks are then unknown), and what a destructor cannot report.
  EXPECT_GE(errors, 10) << "of " << calls.size();
}

TEST_F(DriverTimer, WithoutTheEntryPointsItSaysWhich) {
  device = backend();
  driver->api.eventRecord = nullptr;
  auto t = device->timer();
  ASSERT_FALSE(t);
  EXPECT_NE(t.error().message.find("it lacks cuEventRecord"), std::string::npos) << t.error().message;
}

TEST(Nvml, AnUnknownDeviceHasNoState) {
  // With or without the library on this machine.
  EXPECT_FALSE(driver::Nvml("ffff:ff:1f.7").state().known);
}

} // namespace
} // namespace quern::test
