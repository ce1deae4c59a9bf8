// Images through memory, disk and compiler: built once however many ask, the same bytes whoever runs them,
// and made anew when what is kept cannot be used.
#include "compiler/syntax/Syntax.h"
#include "runtime/cache/Store.h"
#include "runtime/driver/ElfSymbols.h"
#include "runtime/driver/Ptxas.h"
#include "runtime/driver/ToolIdentity.h"
#include "runtime/launch/ImageFile.h"
#include "runtime/launch/ImageKey.h"
#include "runtime/launch/Images.h"
#include "tests/support/private_cache.h"
#include "tests/unit/driver_support.h"
#include "tests/unit/jit_support.h"
#include <fmt/format.h>
#include <sys/wait.h>
#include <thread>

namespace quern {
namespace {

using driver::definesFunction, driver::machineCuda, driver::machineX86;

using cache::Store;
using test::Environment;

/// A kernel whose text is its own: nobody else in this process has asked for it.
std::shared_ptr<const syntax::Program> program(const std::string &mark) {
  auto parsed = syntax::parseProgram(
      fmt::format("use nf4\nkernel images_{0}(x: act[T, K], w: nf4[N, K]) -> y: f32[T, N] {{\n"
                  "  y[t, n] = sum(k) x[t, k] * w[n, k]\n}}\n",
                  mark),
      "images.qn");
  EXPECT_TRUE(parsed) << parsed.error().str();
  return *parsed;
}

jit::Request request(const syntax::Program &p, int64_t n = 64, const char *target = "cpu") {
  jit::Request r;
  r.program = &p, r.kernel = p.kernels[0].name, r.target = target;
  r.dims = {{"N", n}, {"K", 128}};
  r.act = DType::BF16;
  Layout layout = r.target == "cpu" ? Layout::Cpu : Layout::Gpu;
  r.params = {{DType::BF16}, {DType::F32, layout, 64}};
  r.outputs = {{DType::F32}};
  return r;
}

/// How many kernels `body` compiles, how many it takes from the disk.
template <class Body> ImageStats during(Body body) {
  ImageStats before = imageStats();
  body();
  ImageStats after = imageStats();
  return {after.compilations - before.compilations, after.diskHits - before.diskHits, 0};
}

cache::Key keyOf(const jit::Request &r) { return imageKeyWith(resolved(r), driver::ptxasInUse()); }

/// In a forked child, whose memory has none of the images asked for since: 0 when `body` holds.
template <class Body> int inChild(Body body) {
  pid_t pid = fork();
  if (pid == 0) _exit(body() ? 0 : 1);
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Images, ManyThreadsCompileEachKeyOnce) {
  auto p = program("flights");
  constexpr int threads = 32, keys = 40;
  std::vector<const jit::CpuImage *> images(threads * keys);
  ImageStats done = during([&] {
    std::vector<std::thread> all;
    for (int t = 0; t < threads; ++t)
      all.emplace_back([&, t] {
        for (int i = 0; i < keys; ++i) {
          int k = (i * 7 + t) % keys; // another order in each thread
          auto image = cpuImage(request(*p, 16 + k));
          images[size_t(t * keys + k)] = image ? *image : nullptr;
        }
      });
    for (auto &thread : all) thread.join();
  });
  EXPECT_EQ(done.compilations, keys);
  EXPECT_EQ(done.diskHits, 0);
  for (int i = 0; i < threads * keys; ++i) {
    ASSERT_NE(images[size_t(i)], nullptr);
    EXPECT_EQ(images[size_t(i)], images[size_t(i % keys)]) << "one image of each key";
  }
}

TEST(Images, AFailureIsToldAndNotKept) {
  auto p = program("failure");
  jit::Request bad = request(*p);
  bad.schedule = "rows=banana";
  for (int i = 0; i < 2; ++i) {
    auto image = cpuImage(bad);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().kind, ErrorKind::User) << image.error().str();
  }
  EXPECT_FALSE(Store::user().find(keyOf(bad)));
}

TEST(Images, WhatIsKeptIsWhatRuns) {
  auto p = program("kept");
  jit::Request r = request(*p);
  ASSERT_TRUE(cpuImage(r));
  auto kept = Store::user().find(keyOf(r));
  ASSERT_TRUE(kept);
  auto again = jit::compileThroughLibrary(r);
  ASSERT_TRUE(again) << again.error().str();
  EXPECT_EQ(toContent(*again), *kept) << "the compiler gives the same bytes each time";
  const std::string &elf = *kept->find("elf");
  EXPECT_TRUE(definesFunction(elf, machineX86, "images_kept_main"));
  for (const char *never : {"/proc", "/tmp", "/home", QUERN_SOURCE_DIR, "images.qn"})
    EXPECT_EQ(elf.find(never), elf.npos) << never;
}

TEST(Images, AnotherProcessTakesItFromTheDisk) {
  auto p = program("disk");
  jit::Request r = request(*p);
  ASSERT_TRUE(Store::user().publish(keyOf(r), toContent(*jit::compileThroughLibrary(r))));
  ImageStats done = during([&] {
    auto image = cpuImage(r);
    ASSERT_TRUE(image) << image.error().str();
    EXPECT_NE((*image)->main, nullptr);
    EXPECT_NE((*image)->prepare, (void (*)(const int64_t *, const jit::Segment *, void *)) nullptr);
  });
  EXPECT_EQ(done.compilations, 0);
  EXPECT_EQ(done.diskHits, 1);
}

/// An entry under the right key whose parts are `content`: used or made anew?
ImageStats withEntry(const char *mark, const std::function<void(cache::Content &)> &damage) {
  auto p = program(mark);
  jit::Request r = request(*p);
  cache::Content content = toContent(*jit::compileThroughLibrary(r));
  damage(content);
  EXPECT_TRUE(Store::user().publish(keyOf(r), content));
  ImageStats done = during([&] {
    auto image = cpuImage(r);
    EXPECT_TRUE(image) << image.error().str();
  });
  auto now = Store::user().find(keyOf(r));
  EXPECT_TRUE(now && cpuFromContent(*now, r.kernel)) << mark << ": the entry is good now";
  return done;
}

TEST(Images, AnEntryThatIsNoImageIsMadeAnew) {
  EXPECT_EQ(withEntry("whole", [](auto &) {}).compilations, 0);
  EXPECT_EQ(withEntry("no_elf", [](auto &c) { c.sections.pop_back(); }).compilations, 1);
  EXPECT_EQ(withEntry("no_json", [](auto &c) { c.sections[0].bytes = "{"; }).compilations, 1);
  EXPECT_EQ(withEntry("cut_elf", [](auto &c) { c.sections[1].bytes.resize(100); }).compilations, 1);
  EXPECT_EQ(withEntry("no_code",
                      [](auto &c) { // sections in order, but nothing that the loader can map
                        std::fill_n(c.sections[1].bytes.begin() + 64, 7 * 56, '\0');
                      })
                .compilations,
            1);
  EXPECT_EQ(withEntry("other_cpu",
                      [](auto &c) {
                        std::string &meta = c.sections[0].bytes;
                        meta.replace(meta.find("\"+adx") != meta.npos ? meta.find("+adx") : meta.find("-adx"),
                                     4, "+abc");
                      })
                .compilations,
            1)
      << "its code is for other CPU features";
}

TEST(Images, AForkedChildOfCompilingThreadsCompilesToo) {
  auto p = program("fork");
  std::atomic<bool> stop{false};
  std::vector<std::thread> compiling;
  std::atomic<int> next{0};
  for (int t = 0; t < 4; ++t)
    compiling.emplace_back([&] {
      while (!stop.load()) (void)cpuImage(request(*p, 200 + next++ % 400));
    });
  auto q = program("fork_child");
  jit::Request kept = request(*q, 32);
  ASSERT_TRUE(Store::user().publish(keyOf(kept), toContent(*jit::compileThroughLibrary(kept))));
  for (int i = 0; i < 8; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(inChild([&] {
                alarm(20); // a lock that nobody will release ends the child
                ImageStats done = during([&] { (void)cpuImage(kept); });
                return done.diskHits == 1 && done.compilations == 0;
              }),
              0);
  }
  stop = true;
  for (auto &thread : compiling) thread.join();
}

class GpuImages : public testing::Test {
  void SetUp() override {
    if (driver::findPtxas().empty()) GTEST_SKIP() << "no ptxas on this machine";
  }
};

TEST_F(GpuImages, AreKeptWithTheirAssembler) {
  auto p = program("gpu_kept");
  jit::Request r = request(*p, 128, "sm_90a");
  const jit::GpuImage *image = nullptr;
  ImageStats done = during([&] {
    auto made = gpuImage(r);
    ASSERT_TRUE(made) << made.error().str();
    image = *made;
    EXPECT_EQ(*gpuImage(r), image);
  });
  EXPECT_EQ(done.compilations, 1);
  EXPECT_TRUE(definesFunction(image->cubin, machineCuda, image->entry));
  auto kept = Store::user().find(keyOf(r));
  ASSERT_TRUE(kept);
  EXPECT_EQ(*kept, toContent(*image)) << "what runs is what is kept";
}

TEST_F(GpuImages, WithoutPtxasAnImageAssembledElsewhereIsUsed) {
  auto p = program("gpu_elsewhere");
  jit::Request r = request(*p, 128, "sm_90a");
  auto made = gpuImage(r);
  ASSERT_TRUE(made) << made.error().str();
  std::string here = driver::ptxasInUse();
  Environment none("QUERN_PTXAS", "none");
  EXPECT_EQ(driver::ptxasInUse(), "none");
  const jit::GpuImage *image = nullptr;
  ImageStats done = during([&] {
    auto found = gpuImage(r);
    ASSERT_TRUE(found) << found.error().str();
    image = *found;
  });
  EXPECT_EQ(done.compilations, 0);
  EXPECT_EQ(done.diskHits, 1);
  EXPECT_EQ(image->cubin, (*made)->cubin);
  // A driver that refuses it gets the PTX, and the entry is gone.
  auto rebuilt = rebuildGpuImage(r, image);
  ASSERT_TRUE(rebuilt) << rebuilt.error().str();
  EXPECT_TRUE((*rebuilt)->cubin.empty());
  EXPECT_EQ((*rebuilt)->ptx, image->ptx);
  EXPECT_FALSE(Store::user().find(imageKeyWith(resolved(r), here)));
}

TEST_F(GpuImages, ARefusedImageIsCompiledOnceMore) {
  auto p = program("gpu_refused");
  jit::Request r = request(*p, 128, "sm_90a");
  auto first = gpuImage(r);
  ASSERT_TRUE(first) << first.error().str();
  const jit::GpuImage *second = nullptr;
  ImageStats done = during([&] {
    auto rebuilt = rebuildGpuImage(r, *first);
    ASSERT_TRUE(rebuilt);
    second = *rebuilt;
    EXPECT_NE(second, *first);
    EXPECT_EQ(*rebuildGpuImage(r, *first), second) << "another thread's launch was refused too";
    EXPECT_EQ(*gpuImage(r), second);
  });
  EXPECT_EQ(done.compilations, 1);
  EXPECT_EQ(second->cubin, (*first)->cubin);
  EXPECT_TRUE(Store::user().find(keyOf(r)));
}

/// A fake ptxas that calls itself 13.0.<n>, and then does `body` with $out as the file to write.
std::string fakePtxas(test::Folder &folder, const char *name, const char *body) {
  return folder.tool(name,
                     fmt::format("[ \"$1\" = --version ] && {{ echo 'release 13.0, V13.0.{}'; exit; }}\n"
                                 "while [ $# -gt 0 ]; do [ \"$1\" = -o ] && out=$2; shift; done\n{}",
                                 name, body));
}

TEST(FakePtxas, WhatItDoesNotWriteIsNotPublished) {
  test::Folder folder;
  struct Way {
    const char *name, *body;
  };
  for (auto [name, body] : {Way{"1", "exit 0"}, Way{"2", "kill -9 $$"}, Way{"3", "echo garbage > $out"},
                            Way{"4", "head -c 3000000 /dev/zero >&2; exit 1"},
                            Way{"5", "printf '\\177ELF\\002' > $out; head -c 13 /dev/zero >> $out; "
                                     "printf '\\276' >> $out; head -c 100 /dev/zero >> $out"}}) {
    auto p = program(fmt::format("fake_{}", name));
    Environment use("QUERN_PTXAS", fakePtxas(folder, name, body));
    jit::Request r = request(*p, 128, "sm_90a");
    auto image = gpuImage(r);
    ASSERT_FALSE(image) << body;
    EXPECT_EQ(image.error().kind, ErrorKind::System) << image.error().str();
    EXPECT_FALSE(Store::user().find(keyOf(r))) << body;
    EXPECT_FALSE(gpuImage(r)) << "and it is tried again";
  }
}

} // namespace
} // namespace quern
