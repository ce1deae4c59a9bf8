// Images and device code from the cache that the driver refuses: made anew once, launched, and replaced on
// the disk; what making anew would not help is left alone. Row 16 of the launcher's failures.
#include "driver_calls.h"
#include "runtime/cache/Listing.h"
#include "runtime/cache/Notice.h"
#include "runtime/driver/DeviceCode.h"
#include "runtime/driver/Ptxas.h"
#include "runtime/driver/ToolIdentity.h"
#include "runtime/launch/ImageFile.h"
#include "runtime/launch/ImageKey.h"
#include "runtime/launch/Images.h"
#include "runtime/launch/Request.h"
#include "tests/support/fake_cuda/fake_image.h"
#include <algorithm>

namespace quern::test {
namespace {

using cache::Store;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> &notices() {
  static std::vector<std::string> texts;
  return texts;
}

/// A cubin that the fake driver calls invalid, and the digest of the cache does not.
std::string damaged(std::string cubin) { return cubin.replace(9, 7, damagedMark); }

class Refused : public LaunchPath {
protected:
  ShippedCall down;
  const jit::GpuImage *good = nullptr;
  cache::Key key{"", {}};
  ImageStats before;

  void SetUp() override {
    LaunchPath::SetUp();
    if (IsSkipped()) return;
    if (driver::ptxasInUse() == "none") GTEST_SKIP() << "no ptxas";
    cache::forgetNotices();
    notices().clear();
    cache::setNoticeSink([](const std::string &text) { notices().push_back(text); });
  }
  void TearDown() override {
    cache::setNoticeSink(nullptr);
    LaunchPath::TearDown();
  }

  /// The entry of a call that this process has not made before, as another process left it.
  void publish(int64_t n, const std::function<void(jit::GpuImage &)> &change) {
    down = call("gpt_oss", "down", {{"N", n}, {"K", 448}});
    ASSERT_TRUE(down.data);
    auto binding = bindArguments(down.module->program(), *down.kernel, down.data->args);
    ASSERT_TRUE(binding);
    jit::Request request =
        makeRequest(down.module->program(), *down.kernel, *binding, down.data->args, "sm_90a");
    auto compiled = jit::compileGpuThroughLibrary(request);
    ASSERT_TRUE(compiled) << compiled.error().str();
    good = new jit::GpuImage(std::move(*compiled)); // kernels are found by its address
    key = imageKeyWith(resolved(request), driver::ptxasInUse());
    ASSERT_FALSE(Store::user().find(key)) << "another test has made this call";
    jit::GpuImage theirs = *good;
    change(theirs);
    ASSERT_TRUE(Store::user().publish(key, toContent(theirs)));
    before = imageStats();
  }
  int64_t compilations() const { return imageStats().compilations - before.compilations; }
  int64_t diskHits() const { return imageStats().diskHits - before.diskHits; }
  std::optional<jit::GpuImage> kept() const {
    auto content = Store::user().find(key);
    return content ? gpuFromContent(*content) : std::nullopt;
  }
  /// The fake keeps the bytes up to the last section.
  bool isGood(const FakeModule &module) const { return good->cubin.starts_with(module.bytes); }
  const FakeModule *launched() const {
    for (auto &launch : fake.launches)
      if (launch.function->name == "down") return launch.function->module;
    return nullptr;
  }
};

TEST_F(Refused, ADamagedCubinIsMadeAnewAndReplaced) {
  publish(64, [](jit::GpuImage &image) { image.cubin = damaged(image.cubin); });
  Status ok = down.run(fresh(), stream);
  ASSERT_TRUE(ok) << ok.error().str();
  ASSERT_TRUE(launched());
  EXPECT_FALSE(launched()->fromPtx) << "its PTX would do, and be compiled again in each process";
  EXPECT_TRUE(isGood(*launched()));
  EXPECT_EQ(compilations(), 1);
  EXPECT_EQ(diskHits(), 1);
  ASSERT_TRUE(kept());
  EXPECT_TRUE(kept()->cubin == good->cubin);
  EXPECT_THAT(notices(),
              ElementsAre(AllOf(HasSubstr("kernel 'down': the driver does not take the cached"),
                                HasSubstr("CUDA_ERROR_INVALID_IMAGE"), HasSubstr("compiled anew"))));
  EXPECT_FALSE(isRebuiltTheSame(*good)) << "it was not refused";

  ASSERT_TRUE(down.run(fresh(), stream)); // another device takes the new one
  EXPECT_EQ(compilations(), 1);
  EXPECT_EQ(notices().size(), 1u);
}

TEST_F(Refused, AnImageOfWhichNothingLoads) {
  publish(128, [](jit::GpuImage &image) { image.cubin = damaged(image.cubin), image.ptx = "garbage"; });
  Status ok = down.run(fresh(), stream);
  ASSERT_TRUE(ok) << ok.error().str();
  ASSERT_TRUE(launched());
  EXPECT_TRUE(isGood(*launched()));
  EXPECT_EQ(compilations(), 1);
  ASSERT_TRUE(kept());
  EXPECT_TRUE(kept()->ptx == good->ptx);
  EXPECT_EQ(notices().size(), 1u);
}

/// An older driver than the ptxas: a new image is the same one. That is kept, so that no process after this
/// one compiles for it.
TEST_F(Refused, CodeThatIsTheSameAgainIsMadeAnewOnce) {
  publish(192, [](jit::GpuImage &) {});
  fake.refusedKernel = "down";
  EXPECT_FALSE(isRebuiltTheSame(*good));
  Status ok = down.run(fresh(), stream);
  ASSERT_TRUE(ok) << ok.error().str();
  ASSERT_TRUE(launched());
  EXPECT_TRUE(launched()->fromPtx);
  EXPECT_EQ(compilations(), 1);
  EXPECT_TRUE(isRebuiltTheSame(*good));
  ASSERT_TRUE(kept()) << "machines with newer drivers use it";
  EXPECT_TRUE(kept()->cubin == good->cubin);
  EXPECT_EQ(notices().size(), 1u);
}

/// What this process has compiled itself comes out the same.
TEST_F(Refused, AFreshImageIsNotMadeAnew) {
  down = call("gpt_oss", "down", {{"N", 384}, {"K", 448}});
  before = imageStats();
  fake.refusedKernel = "down";
  Status ok = down.run(fresh(), stream);
  ASSERT_TRUE(ok) << ok.error().str();
  ASSERT_TRUE(launched());
  EXPECT_TRUE(launched()->fromPtx);
  EXPECT_EQ(compilations(), 1);
  EXPECT_THAT(notices(), IsEmpty());
}

/// No memory for the module: nothing is wrong with the image.
TEST_F(Refused, AFailureOfTheMomentMakesNothingAnew) {
  publish(320, [](jit::GpuImage &) {});
  fake.cubinResult = cuda::errorOutOfMemory;
  gpu::Backend &gpu = fresh();
  Status failed = down.run(gpu, stream);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("CUDA_ERROR_OUT_OF_MEMORY"));
  fake.cubinResult = cuda::success;
  Status ok = down.run(gpu, stream);
  EXPECT_TRUE(ok) << ok.error().str();
  EXPECT_EQ(compilations(), 0);
  EXPECT_EQ(diskHits(), 1);
  EXPECT_THAT(notices(), IsEmpty());
  EXPECT_TRUE(kept());
}

/// Quern's own device code: there is no PTX to fall back on.
TEST_F(Refused, DeviceCodeIsMadeAnewAndReplaced) {
  constexpr const char *file = "gather.cu";
  constexpr int other = 14000; // a major version that no other test asks for: this process has nothing for it
  auto compiled = driver::compiledDeviceFile(file, "sm_90a", 13000);
  ASSERT_TRUE(compiled) << compiled.error().str();
  std::string cubin = (*compiled)->cubin;
  auto folder = cache::openFolder(Store::user().folder(), false);
  ASSERT_TRUE(folder);
  auto entries = cache::listEntries(*folder);
  auto entry = std::ranges::find_if(entries, [&](const cache::ListedEntry &e) {
    return e.key.kind == "device" &&
           std::ranges::count(e.key.fields, cache::Key::Field{"file", std::string("kernels/") + file});
  });
  ASSERT_NE(entry, entries.end());
  ASSERT_TRUE(cache::readEntry(*folder, *entry));
  cache::Content content = entry->content;
  for (auto &section : content.sections)
    if (section.name == "cubin") section.bytes = damaged(section.bytes);
  Store::user().discard(entry->key);
  ASSERT_TRUE(Store::user().publish(entry->key, content));

  fake.version = other;
  gpu::Backend &gpu = fresh();
  std::string kernel = driver::parsePtxasLog((*compiled)->log).kernels.at(0).name;
  auto loaded = gpu.loadDevice(kernel, stream);
  ASSERT_TRUE(loaded) << loaded.error().str();
  EXPECT_THAT(notices(), ElementsAre(AllOf(HasSubstr(kernel), HasSubstr("compiled anew"))));
  auto now = driver::compiledDeviceFile(file, "sm_90a", other);
  ASSERT_TRUE(now);
  EXPECT_FALSE((*now)->fromDisk);
  EXPECT_TRUE((*now)->cubin == cubin);
  auto kept = Store::user().find(entry->key);
  ASSERT_TRUE(kept);
  EXPECT_TRUE(*kept->find("cubin") == cubin);
}

/// What this process has compiled itself is not compiled again for being refused.
TEST_F(Refused, FreshDeviceCodeIsAnError) {
  fake.version = 15000;
  fake.cubinResult = cuda::errorNoBinaryForGpu;
  auto made = driver::compiledDeviceFile("packing.cu", "sm_90a", fake.version);
  ASSERT_TRUE(made) << made.error().str();
  if ((*made)->fromDisk) // of another test: the first refusal makes it anew
    ASSERT_TRUE(made = driver::compiledDeviceFile("packing.cu", "sm_90a", fake.version, *made));
  EXPECT_FALSE((*made)->fromDisk);
  auto loaded = fresh().loadDevice((*made)->report.kernels.at(0).name, stream);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message, HasSubstr("CUDA_ERROR_NO_BINARY_FOR_GPU"));
  EXPECT_THAT(notices(), IsEmpty());
  EXPECT_EQ(*driver::compiledDeviceFile("packing.cu", "sm_90a", fake.version), *made);
}

} // namespace
} // namespace quern::test
