// See gpu_support.h.
#include "tests/unit/gpu_support.h"
#include "runtime/gpu/HostRun.h"
#include "tests/support/private_cache.h"
#include <cstdlib>

namespace quern::gputest {

std::string target() {
  const char *text = std::getenv("QUERN_TEST_TARGET");
  return text && *text ? text : "sim";
}

static Expected<gpu::Backend *> &opened() {
  static Expected<gpu::Backend *> result = gpu::targetBackend(target());
  return result;
}

gpu::Backend *backend() {
  auto &result = opened();
  if (result) return *result;
  // A machine without a GPU is a reason to skip; anything else that is wrong must be seen.
  auto stop = [&]() {
    if (target() == "cuda" && result.error().kind == ErrorKind::User)
      GTEST_SKIP() << "QUERN_TEST_TARGET=cuda: " << result.error().str();
    FAIL() << result.error().str();
  };
  stop();
  return nullptr;
}

uint64_t seed() {
  static const uint64_t value = [] {
    const char *text = std::getenv("QUERN_TEST_SEED");
    uint64_t chosen = text && *text ? std::strtoull(text, nullptr, 0) : std::random_device{}();
    std::printf("QUERN_TEST_SEED=%llu\n", static_cast<unsigned long long>(chosen));
    return chosen;
  }();
  return value;
}

testing::AssertionResult succeeded(const Status &status) {
  if (status) return testing::AssertionSuccess();
  return testing::AssertionFailure() << status.error().str();
}

} // namespace quern::gputest
