// What the tests of device code share. They run on the simulator, or on GPU 0 with QUERN_TEST_TARGET=cuda.
#pragma once
#include "runtime/gpu/DeviceCode.h"
#include "runtime/gpu/Memory.h"
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace quern::gputest {

/// "sim" or "cuda".
std::string target();
/// The target's backend; null, with a failure or (no such device) a skip of the running test, when there is
/// none.
gpu::Backend *backend();
/// QUERN_TEST_SEED, else random; printed once.
uint64_t seed();
inline std::mt19937_64 seeded(uint64_t stream) { return std::mt19937_64(seed() * 1000003 + stream); }

/// `ok` is a success; else a failure with its text.
testing::AssertionResult succeeded(const Status &status);

/// An array on the device with guard elements on both sides; `data` starts `offset` bytes behind a 256-byte
/// boundary.
template <class T> class DeviceArray {
  gpu::DeviceMemory memory;
  size_t count = 0, offset = 0;
  static constexpr size_t guard = 256;

  std::vector<unsigned char> whole() const {
    std::vector<unsigned char> bytes(size_t(memory.bytes()));
    EXPECT_TRUE(succeeded(backend()->download(bytes.data(), memory.data(), bytes.size(), nullptr)));
    EXPECT_TRUE(succeeded(backend()->synchronize(nullptr)));
    return bytes;
  }

public:
  explicit DeviceArray(const std::vector<T> &values, size_t offset = 0)
      : count(values.size()), offset(offset) {
    std::vector<unsigned char> bytes(2 * guard + offset + count * sizeof(T),
                                     0xff); // NaN in every float dtype
    if (count) std::memcpy(bytes.data() + guard + offset, values.data(), count * sizeof(T));
    auto allocated = gpu::DeviceMemory::allocate(*backend(), int64_t(bytes.size()), nullptr);
    EXPECT_TRUE(allocated);
    memory = std::move(*allocated);
    EXPECT_TRUE(succeeded(backend()->upload(memory.data(), bytes.data(), bytes.size(), nullptr)));
    EXPECT_TRUE(succeeded(backend()->synchronize(nullptr)));
  }
  /// NaN, or -1.
  static DeviceArray fresh(size_t count, size_t offset = 0) {
    std::vector<T> values(count);
    if (count) std::memset(values.data(), 0xff, count * sizeof(T));
    return DeviceArray(values, offset);
  }
  T *data() const { return reinterpret_cast<T *>(static_cast<char *>(memory.data()) + guard + offset); }
  /// The elements; a failure when a guard was written.
  std::vector<T> values() const {
    auto bytes = whole();
    auto fresh = [](unsigned char c) { return c == 0xff; };
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.begin() + guard + offset, fresh))
        << "written before the array";
    EXPECT_TRUE(std::all_of(bytes.end() - guard, bytes.end(), fresh)) << "written behind the array";
    std::vector<T> out(count);
    if (count) std::memcpy(out.data(), bytes.data() + guard + offset, count * sizeof(T));
    return out;
  }
};

/// Elements of a dtype as raw bits, with a float view of each.
struct Elements {
  DType type;
  std::vector<uint8_t> bytes;
  Elements(DType type, size_t count) : type(type), bytes(count * size_t(byteSize(type))) {}
  size_t count() const { return bytes.size() / size_t(byteSize(type)); }
  float at(size_t i) const { return loadAs(type, bytes.data(), int64_t(i)); }
  void set(size_t i, float value) { storeAs(type, bytes.data(), int64_t(i), value); }
};

} // namespace quern::gputest

/// Ends the test (skipped, with the reason) when the target does not exist here.
#define QUERN_NEEDS_DEVICE()                                                                                 \
  if (!::quern::gputest::backend()) return
