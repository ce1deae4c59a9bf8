// What callers rely on beside the numbers: the same bits for any thread count, thread library and
// floating-point mode; compiling once; calls from many threads.
#include "runtime/launch/ParallelFor.h"
#include "tests/unit/jit_support.h"
#include <atomic>
#include <cfenv>
#include <dlfcn.h>
#include <fmt/format.h>
#include <thread>
#include <xmmintrin.h>

namespace quern::jittest {
namespace {

std::vector<Case> layers() {
  std::vector<Case> cases;
  auto add = [&](const char *file, const char *kernel, std::map<std::string, int64_t> dims, DType act) {
    Case c{file, kernel, {}};
    c.options.dims = std::move(dims), c.options.act = act, c.options.seed = seed();
    c.options.routing = oracle::RoutingKind::Zipf;
    cases.push_back(std::move(c));
  };
  add("gpt_oss", "gate_up", {{"T", 90}, {"E", 7}, {"N", 128}, {"K", 192}, {"top_k", 3}}, DType::BF16);
  add("gpt_oss", "down", {{"T", 90}, {"E", 7}, {"N", 96}, {"K", 128}, {"top_k", 3}}, DType::BF16);
  add("gpt_oss", "down", {{"T", 50}, {"E", 7}, {"N", 130}, {"K", 66}, {"top_k", 3}}, DType::F32);
  return cases;
}

/// The bytes of every layer's output, run after run.
std::string allBits() {
  std::string bits;
  for (const Case &c : layers()) {
    Call call(c);
    if (!call.ok()) return "";
    Status status = call.run();
    EXPECT_TRUE(status) << status.error().str();
    bits += call.bits();
  }
  return bits;
}

TEST(CoreThreads, SameBitsForAnyCount) {
  setNumThreads(1);
  std::string one = allBits();
  ASSERT_FALSE(one.empty());
  for (int threads = 2; threads <= 8; ++threads) {
    setNumThreads(threads);
    EXPECT_TRUE(allBits() == one) << threads << " threads";
  }
  setNumThreads(0);
  for (int again = 0; again < 3; ++again) EXPECT_TRUE(allBits() == one);
}

/// A row's sums do not depend on which rows it is computed with, within one kind of kernel: tiles add in
/// another order.
TEST(CoreThreads, SameBitsHoweverRowsAreBatched) {
  if (currentIsa() == "amx") GTEST_SKIP() << "short segments use vectors, long ones tiles";
  const char *text = R"(use nf4
kernel k(x: act[T, K], route: routing[T, E], w: nf4[E, N, K]) -> y: f32[R, N] {
  y[r, n] = sum(k) x[r.token, k] * w[r.expert, n, k]
})";
  Case c{text, "k", {}};
  c.options.dims = {{"T", 64}, {"E", 1}, {"N", 128}, {"K", 192}, {"top_k", 1}};
  c.options.seed = seed();
  Call whole(c);
  ASSERT_TRUE(whole.ok());
  ASSERT_TRUE(whole.run());
  // Up to `fused` rows are decoded in registers, in the storage's order of k.
  for (int64_t count : {1, 2, 3, 4, 5, 8, 17, 33, 63}) {
    Call part(c);
    std::vector<int64_t> ids(64, -1);
    for (int64_t i = 0; i < count; ++i) ids[size_t(i)] = 0;
    part.setRouting(ids, std::vector<float>(64, 1.0f));
    ASSERT_TRUE(part.run());
    for (int64_t i = 0; i < count * 128; ++i)
      ASSERT_EQ(bitsOf(part.outputs[0].view, i), bitsOf(whole.outputs[0].view, i))
          << count << " rows, element " << i;
  }
}

/// The caller's rounding mode and flushing are not the kernel's, and are there again after the call.
TEST(CoreThreads, SameBitsInAnyFloatMode) {
  setNumThreads(2);
  std::string normal = allBits();
  for (unsigned mode : {0x3f80u, 0x9fc0u, 0xffc0u}) { // round down; flush both; truncate and flush both
    Call call(layers()[0]);
    unsigned saved = _mm_getcsr();
    _mm_setcsr(mode);
    Status status = call.run();
    unsigned after = _mm_getcsr();
    _mm_setcsr(saved);
    ASSERT_TRUE(status);
    EXPECT_EQ(after & ~0x3fu, mode & ~0x3fu);
    EXPECT_TRUE(call.bits() == normal.substr(0, call.bits().size())) << fmt::format("mxcsr {:#x}", mode);
  }
  setNumThreads(0);
}

/// A token's experts are summed in ascending order: 2^24 + 1 rounds to 2^24, so the sum is 0; other orders
/// give 1.
TEST(CoreThreads, TheCombineGoesFromExpertToExpert) {
  const char *text = R"(kernel k(route: routing[T, E], x: f32[T, N]) -> z: f32[T, N] {
  z[r.token, n] += x[r.token, n] * r.weight
})";
  Case c{text, "k", {}};
  c.options.dims = {{"T", 50}, {"E", 3}, {"N", 40}, {"top_k", 3}};
  for (int threads : {1, 4}) {
    setNumThreads(threads);
    Call call(c);
    ASSERT_TRUE(call.ok());
    call.fill("x", [](int64_t) { return 1.0f; });
    std::vector<int64_t> ids;
    std::vector<float> weights;
    const float ofExpert[] = {0x1p24f, 1, -0x1p24f};
    for (int64_t t = 0; t < 50; ++t)
      for (int64_t choice = 0; choice < 3; ++choice) // whatever the order of the choices
        ids.push_back((choice + t) % 3), weights.push_back(ofExpert[(choice + t) % 3]);
    call.setRouting(ids, weights);
    ASSERT_TRUE(call.run());
    for (int64_t i = 0; i < 50 * 40; ++i) ASSERT_EQ(loadAs(DType::F32, call.outputs[0].view.data, i), 0) << i;
  }
  setNumThreads(0);
}

constexpr int noLibgomp = 77;

/// In a process of its own: oneTBB's bits, then those of a libgomp that is loaded after it.
[[noreturn]] void compareLibraries() {
  auto fail = [](const std::string &why) {
    fmt::print(stderr, "{}\n", why);
    std::_Exit(1);
  };
  setNumThreads(4);
  if (std::string(threadLibrary()) != "oneTBB") fail("libgomp is already loaded");
  std::string first = allBits();
  if (!dlopen("libgomp.so.1", RTLD_NOW)) std::_Exit(noLibgomp);
  if (std::string(threadLibrary()).rfind("libgomp", 0) != 0) fail("libgomp is not used");
  for (int threads : {1, 2, 3, 8}) {
    setNumThreads(threads);
    if (allBits() != first) fail(fmt::format("libgomp with {} threads gives other bits", threads));
  }
  std::_Exit(first.empty() ? 1 : 0);
}

TEST(CoreThreadsDeathTest, SameBitsUnderLibgomp) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  bool missing = false;
  EXPECT_EXIT(
      compareLibraries(),
      [&](int status) {
        missing = WIFEXITED(status) && WEXITSTATUS(status) == noLibgomp;
        return missing || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
      },
      "");
  if (missing) GTEST_SKIP() << "no libgomp.so.1 on this machine to load";
}

/// A text that no other test uses, so that its module is new.
std::string fresh(const char *comment) {
  return fmt::format(
      "# {}\nuse nf4\nkernel k(x: act[T, K], w: nf4[N, K]) -> y: act[T, N] {{\n  y[t, n] = sum(k) x[t, k] * "
      "w[n, k]\n}}",
      comment);
}
Case sized(const std::string &text, int64_t t, int64_t n, int64_t k, DType act = DType::BF16,
           int64_t block = 64) {
  Case c{text, "k", {}};
  c.options.dims = {{"T", t}, {"N", n}, {"K", k}};
  c.options.act = act, c.options.seed = seed(), c.options.block = block;
  return c;
}

TEST(Compilation, OnlyWhatTheCodeDependsOn) {
  std::string text = fresh("compiled once");
  auto compiles = [&](const Case &c, const std::function<void(Call &)> &change = nullptr) {
    Call call(c);
    if (change) change(call);
    Stats before = stats();
    Status status = call.run();
    EXPECT_TRUE(status) << status.error().str();
    Stats after = stats();
    EXPECT_EQ(after.memoryHits - before.memoryHits, 1 - (after.compilations - before.compilations));
    EXPECT_EQ(after.compileMs > before.compileMs, after.compilations > before.compilations);
    return after.compilations - before.compilations;
  };
  EXPECT_EQ(compiles(sized(text, 4, 34, 66)), 1);
  EXPECT_EQ(compiles(sized(text, 4, 34, 66)), 0);
  EXPECT_EQ(compiles(sized(text, 300, 34, 66)), 0) << "the number of rows is a run-time value";
  EXPECT_EQ(compiles(sized(text, 0, 34, 66)), 0);
  auto strided = [](Strides how) { return [how](Call &c) { c.setStrides("x", how); }; };
  EXPECT_EQ(compiles(sized(text, 4, 34, 66), strided(Strides::PaddedRows)), 0) << "so is a row stride";
  EXPECT_EQ(compiles(sized(text, 4, 34, 66), strided(Strides::Transposed)), 1)
      << "columns apart are other code";
  EXPECT_EQ(compiles(sized(text, 4, 34, 66), strided(Strides::EveryOther)), 0);
  EXPECT_EQ(compiles(sized(text, 4, 36, 66)), 1);
  EXPECT_EQ(compiles(sized(text, 4, 34, 68)), 1);
  EXPECT_EQ(compiles(sized(text, 4, 34, 66, DType::F32)), 1);
  EXPECT_EQ(compiles(sized(text, 4, 34, 66, DType::BF16, 128)), 1);
  Case otherQuant = sized(text, 4, 34, 66);
  otherQuant.options.quant = DType::F16;
  EXPECT_EQ(compiles(otherQuant), 1);
  EXPECT_EQ(compiles(sized(text, 4, 34, 66)), 0);
}

TEST(Compilation, ManyThreadsCompileOnce) {
  std::string text = fresh("called from many threads");
  Case c = sized(text, 9, 66, 128);
  constexpr int callers = 6;
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < callers; ++i) calls.push_back(std::make_unique<Call>(c));
  Stats before = stats();
  std::atomic<int> ready{0}, failed{0};
  std::vector<std::thread> threads;
  for (auto &call : calls)
    threads.emplace_back([&ready, &failed, &call] {
      for (++ready; ready < callers;) std::this_thread::yield();
      for (int again = 0; again < 5; ++again) failed += !call->run();
    });
  for (std::thread &t : threads) t.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(stats().compilations - before.compilations, 1);
  for (auto &call : calls) {
    EXPECT_TRUE(call->bits() == calls[0]->bits());
    call->expectCorrect();
  }
}

TEST(Compilation, DifferentKernelsFromManyThreads) {
  std::string text = fresh("different shapes at once");
  std::vector<std::unique_ptr<Call>> calls;
  for (int64_t n : {34, 36, 38, 40}) calls.push_back(std::make_unique<Call>(sized(text, 7, n, 64)));
  Stats before = stats();
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (auto &call : calls) threads.emplace_back([&failed, &call] { failed += !call->run(); });
  for (std::thread &t : threads) t.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(stats().compilations - before.compilations, 4);
  for (auto &call : calls) call->expectCorrect();
}

} // namespace
} // namespace quern::jittest
