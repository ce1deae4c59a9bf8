// The simulator as a device, and what every device promises: memory, constants, errors of a launch.
#include "runtime/gpu/HostRun.h"
#include "runtime/gpu/LaunchCall.h"
#include "runtime/gpu/SimBackend.h"
#include "tests/unit/gpu_support.h"
#include <thread>

using namespace quern;
using namespace quern::gputest;

namespace {

std::string errorOf(const Status &status) { return status ? "no error" : status.error().str(); }

/// copy_bytes of `bytes` bytes, with the ranges that the caller names.
Status copyBytes(const void *from, int64_t readable, void *to, int64_t writable, int64_t bytes) {
  gpu::LaunchCall call{*backend(), nullptr};
  call.reads("source", from, readable);
  call.writes("copy", to, writable);
  return call("copy_bytes", 1, 256, static_cast<const uint8_t *>(from), static_cast<uint8_t *>(to), bytes);
}

#define ONLY_ON_THE_SIMULATOR()                                                                              \
  if (target() != "sim") GTEST_SKIP() << "a GPU does not check accesses";                                    \
  QUERN_NEEDS_DEVICE()

} // namespace

TEST(GpuBackend, MemoryKeepsWhatIsUploaded) {
  QUERN_NEEDS_DEVICE();
  std::vector<uint8_t> bytes(5000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = uint8_t(i * 7);
  DeviceArray<uint8_t> a(bytes), b = DeviceArray<uint8_t>::fresh(bytes.size(), 3);
  EXPECT_EQ(a.values(), bytes);
  ASSERT_TRUE(succeeded(copyBytes(a.data(), 5000, b.data(), 5000, 5000)));
  EXPECT_EQ(b.values(), bytes);
  for (int64_t size : {int64_t(0), int64_t(1), int64_t(1) << 20}) {
    auto memory = gpu::DeviceMemory::allocate(*backend(), size, nullptr);
    ASSERT_TRUE(memory);
    EXPECT_NE(memory->data(), nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % 256, 0u);
  }
}

TEST(GpuBackend, EqualConstantsShareOneCopy) {
  QUERN_NEEDS_DEVICE();
  std::vector<const void *> addresses(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < addresses.size(); ++i)
    threads.emplace_back([&, i] {
      uint64_t bytes[3] = {0x1234567890abcdef, 42, i % 2};
      auto constant = gpu::deviceConstant(*backend(), nullptr, std::as_bytes(std::span(bytes)), "none");
      if (constant) addresses[i] = *constant;
    });
  for (auto &t : threads) t.join();
  for (size_t i = 2; i < addresses.size(); ++i) EXPECT_EQ(addresses[i], addresses[i % 2]);
  EXPECT_NE(addresses[0], addresses[1]);
  uint64_t found[3] = {};
  ASSERT_TRUE(succeeded(backend()->download(found, addresses[1], sizeof found, nullptr)));
  ASSERT_TRUE(succeeded(backend()->synchronize(nullptr)));
  EXPECT_EQ(found[0], 0x1234567890abcdefu);
  EXPECT_EQ(found[2], 1u);
}

TEST(GpuBackend, UnknownDeviceCode) {
  QUERN_NEEDS_DEVICE();
  auto loaded = backend()->loadDevice("no_such_kernel", nullptr);
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().str().find("no_such_kernel"), std::string::npos) << loaded.error().str();
}

TEST(GpuBackend, UnknownTarget) {
  auto found = gpu::targetBackend("tpu");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().str(), "target: found 'tpu', expected cpu, sim or cuda");
}

TEST(SimBackend, AccessesOutsideTheRangesAreErrors) {
  ONLY_ON_THE_SIMULATOR();
  DeviceArray<uint8_t> from(std::vector<uint8_t>(64)), to = DeviceArray<uint8_t>::fresh(64);
  EXPECT_TRUE(succeeded(copyBytes(from.data(), 64, to.data(), 64, 64)));
  Status read = copyBytes(from.data(), 48, to.data(), 64, 64);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().place, "simulator");
  EXPECT_NE(read.error().str().find("in kernel 'copy_bytes' (seed "), std::string::npos)
      << read.error().str();
  EXPECT_NE(read.error().detail.find("repeat with QUERN_SIM_SEED="), std::string::npos) << read.error().str();
  EXPECT_FALSE(copyBytes(from.data(), 64, to.data(), 63, 64));
  // What may only be read must not be written.
  gpu::LaunchCall call{*backend(), nullptr};
  call.reads("source", from.data(), 64), call.reads("copy", to.data(), 64);
  EXPECT_FALSE(call("copy_bytes", 1, 256, static_cast<const uint8_t *>(from.data()), to.data(), int64_t(64)));
}

TEST(SimBackend, CopiesOutsideAnAllocationAreErrors) {
  ONLY_ON_THE_SIMULATOR();
  auto memory = gpu::DeviceMemory::allocate(*backend(), 100, nullptr);
  ASSERT_TRUE(memory);
  char bytes[101] = {};
  EXPECT_TRUE(succeeded(backend()->upload(memory->data(), bytes, 100, nullptr)));
  EXPECT_EQ(errorOf(backend()->upload(memory->data(), bytes, 101, nullptr)),
            "simulator: internal error: upload of 101 bytes outside any allocation\nPlease report this with "
            "the input.");
  EXPECT_FALSE(backend()->download(bytes, static_cast<char *>(memory->data()) + 1, 100, nullptr));
  EXPECT_FALSE(backend()->download(bytes, bytes, 1, nullptr));
}

TEST(SimBackend, OverwrittenGuardsAreErrors) {
  ONLY_ON_THE_SIMULATOR();
  for (int64_t at : {-1, 100}) {
    auto memory = gpu::DeviceMemory::allocate(*backend(), 100, nullptr);
    ASSERT_TRUE(memory);
    char *byte = static_cast<char *>(memory->data()) + at, before = *byte;
    *byte = char(before + 1);
    EXPECT_EQ(
        errorOf(backend()->synchronize(nullptr)),
        "simulator: internal error: bytes beside an allocation of 100 bytes were overwritten\nPlease report "
        "this with the input.");
    EXPECT_FALSE(backend()->synchronize(nullptr));
    *byte = before;
    EXPECT_TRUE(succeeded(backend()->synchronize(nullptr)));
    *byte = char(before + 1);
    *memory = gpu::DeviceMemory(); // the release sees it too
    EXPECT_FALSE(backend()->synchronize(nullptr));
    EXPECT_TRUE(succeeded(backend()->synchronize(nullptr))); // said once
  }
}

TEST(SimOptions, EveryField) {
  sim::Options base;
  auto parsed =
      gpu::parseSimOptions("copies=random, scheduler=pct yield=0.25 seed=7 maxIssues=3 secondsLimit=2.5 "
                           "happensBefore=0 tokens=0 poison=0 bounds=0 rehash=0 convergence=0 warpWait=0",
                           base);
  ASSERT_TRUE(parsed) << parsed.error().str();
  EXPECT_EQ(parsed->copies, sim::CopyMode::Random);
  EXPECT_EQ(parsed->scheduler, sim::Scheduler::Pct);
  EXPECT_EQ(parsed->yieldProbability, 0.25);
  EXPECT_EQ(parsed->secondsLimit, 2.5);
  EXPECT_EQ(parsed->seed, 7u);
  EXPECT_EQ(parsed->maxIssues, 3);
  EXPECT_FALSE(parsed->happensBefore || parsed->tokens || parsed->poison || parsed->bounds ||
               parsed->rehash || parsed->convergence || parsed->warpWait);
  auto same = gpu::parseSimOptions("", *parsed);
  ASSERT_TRUE(same);
  EXPECT_EQ(same->seed, 7u);
}

TEST(SimOptions, Errors) {
  auto text = [](const char *options) {
    auto parsed = gpu::parseSimOptions(options, {});
    return parsed ? "no error" : parsed.error().str();
  };
  EXPECT_EQ(text("copies=soon"), "QUERN_SIM_OPTIONS: found 'copies=soon', expected eager, lazy or random");
  EXPECT_EQ(text("seed=1 scheduler"), "QUERN_SIM_OPTIONS: found 'scheduler', expected fifo, random or pct");
  EXPECT_EQ(text("seed=1x"), "QUERN_SIM_OPTIONS: found 'seed=1x', expected a whole number");
  EXPECT_EQ(text("yield=2"), "QUERN_SIM_OPTIONS: found 'yield=2', expected a probability");
  EXPECT_EQ(text("bounds=yes"), "QUERN_SIM_OPTIONS: found 'bounds=yes', expected 0 or 1");
  EXPECT_EQ(text("speed=1"),
            "QUERN_SIM_OPTIONS: found 'speed=1', expected one of copies, scheduler, seed, yield, maxIssues, "
            "secondsLimit, happensBefore, tokens, poison, bounds, rehash, convergence, warpWait");
}
