// A launch takes the schedule that was tuned for its call, and the default where there is none.
#include "jit_support.h"
#include "runtime/cache/Store.h"
#include "runtime/launch/Images.h"
#include "runtime/launch/Request.h"
#include "runtime/tune/Record.h"
#include "runtime/tune/Tuning.h"

namespace quern::jittest {
namespace {

/// Images are found by what a kernel means, so each test has an N of its own.
Case caseOf(int64_t n) {
  Case c{"use nf4\nkernel k(x: act[T, K], w: nf4[N, K]) -> y: act[T, N] {\n  y[t, n] = sum(k) x[t, k] * w[n, "
         "k]\n}",
         "k",
         {}};
  c.options.dims = {{"T", 5}, {"N", n}, {"K", 128}};
  c.options.act = DType::BF16, c.options.seed = seed();
  return c;
}

jit::Request requestOf(const Call &call) {
  auto binding = bindArguments(call.module->program(), *call.kernel, call.args);
  EXPECT_TRUE(binding);
  return makeRequest(call.module->program(), *call.kernel, *binding, call.args);
}

/// Compilations that asking for the image costs.
int64_t compilationsOf(jit::Request request, const std::string &schedule) {
  request.schedule = schedule;
  int64_t before = imageStats().compilations;
  auto image = cpuImage(request);
  EXPECT_TRUE(image) << image.error().str();
  return imageStats().compilations - before;
}

TEST(Tuned, ALaunchTakesTheRecord) {
  Call call(caseOf(96));
  ASSERT_TRUE(call.ok());
  jit::Request request = requestOf(call);
  if (!request.schedule.empty()) GTEST_SKIP() << "QUERN_CPU_SCHEDULE goes before what was tuned";
  tune::Result result;
  result.schedule = "band=64";
  ASSERT_TRUE(tune::checkTunable(request, result.schedule));
  result.device = tune::cpuIdentity();
  result.key = tune::tuningKey(request, result.device, tune::Policy::Device);
  tune::keepRecord(cache::Store::user(), result, request);
  Status status = call.run();
  ASSERT_TRUE(status) << status.error().str();
  EXPECT_EQ(compilationsOf(request, "band=64"), 0) << "the launch made another image";
  EXPECT_EQ(compilationsOf(request, ""), 1) << "the launch made the default's image";
}

TEST(Tuned, OtherRowsPerExpertKeepTheDefault) {
  Case c = caseOf(160);
  Call few(c);
  ASSERT_TRUE(few.ok());
  jit::Request request = requestOf(few);
  if (!request.schedule.empty()) GTEST_SKIP() << "QUERN_CPU_SCHEDULE goes before what was tuned";
  tune::Result result;
  result.schedule = "band=64";
  result.device = tune::cpuIdentity();
  result.key = tune::tuningKey(request, result.device, tune::Policy::Device);
  tune::keepRecord(cache::Store::user(), result, request);
  c.options.dims["T"] = 300;
  Call many(c);
  Status status = many.run();
  ASSERT_TRUE(status) << status.error().str();
  EXPECT_EQ(compilationsOf(requestOf(many), ""), 0) << "the default's image is what ran";
  EXPECT_EQ(compilationsOf(requestOf(many), "band=64"), 1);
}

} // namespace
} // namespace quern::jittest
