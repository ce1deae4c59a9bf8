// The fake CUDA driver (tests/support/fake_cuda) for the length of a test, and images to load on it.
#pragma once
#include "driver_support.h"
#include "runtime/driver/CudaBackend.h"
#include "runtime/driver/Driver.h"
#include "tests/support/fake_cuda/fake_cuda.h"
#include <dlfcn.h>
#include <gmock/gmock.h>

namespace quern::test {

/// Bytes that the fake takes for a cubin with these kernels: an ELF header of NVIDIA's machine, then the
/// names as a symbol table has them.
inline std::string fakeCubin(const std::string &kernel) {
  std::string bytes = std::string("\x7f"
                                  "ELF\x02\x01\x01",
                                  7);
  bytes.resize(64);
  bytes[18] = static_cast<char>(190);
  bytes += '\0' + kernel + '\0';
  // One section header, right behind, that covers the names.
  uint64_t headers = bytes.size(), offset = 64, length = bytes.size() - 64;
  bytes.resize(bytes.size() + 64);
  memcpy(&bytes[40], &headers, 8);
  bytes[58] = 64, bytes[60] = 1;
  memcpy(&bytes[headers + 24], &offset, 8);
  memcpy(&bytes[headers + 32], &length, 8);
  return bytes;
}

inline jit::GpuImage fakeImage(const std::string &kernel = "gate_up") {
  jit::GpuImage image;
  image.entry = kernel;
  image.arch = "sm_90a";
  image.cubin = fakeCubin(kernel);
  image.ptx = ptxModule(".visible .entry " + kernel + "() { ret; }\n");
  image.smemBytes = 200000;
  image.threads = 384;
  return image;
}

/// A fresh fake driver; no context is current on the test's thread.
class FakeDriver : public testing::Test {
protected:
  FakeCuda &fake = control();
  std::unique_ptr<driver::Driver> driver;
  cuda::Stream stream = reinterpret_cast<cuda::Stream>(0x5100);

  static FakeCuda &control() {
    void *library = dlopen(QUERN_FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
    if (!library) std::fprintf(stderr, "%s\n", dlerror()), std::abort();
    return *reinterpret_cast<FakeCuda *(*)()>(dlsym(library, "fakeCuda"))();
  }
  void SetUp() override { fake.reset(); }
  void TearDown() override {
    EXPECT_FALSE(fake.misuse) << "the driver was used against its rules";
    EXPECT_TRUE(fake.contextStack().empty()) << "a context was left on the thread";
    fake.reset();
  }

  /// A backend on a driver opened anew; then nothing is recorded yet.
  std::unique_ptr<gpu::Backend> backend(int ordinal = 0) {
    if (!driver) {
      auto opened = driver::Driver::open(QUERN_FAKE_CUDA);
      if (!opened) return ADD_FAILURE() << opened.error().str(), nullptr;
      driver = std::move(*opened);
    }
    auto made = driver::makeCudaBackend(*driver, ordinal);
    if (!made) return ADD_FAILURE() << made.error().str(), nullptr;
    fake.calls.clear();
    return std::move(*made);
  }
  std::vector<std::string> takeCalls() { return std::exchange(fake.calls, {}); }
};

} // namespace quern::test
