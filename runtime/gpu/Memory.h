// Device memory that is given back on its stream, ranges of tensors, and small constant tables that stay on
// the device.
#pragma once
#include "runtime/gpu/Backend.h"
#include "runtime/launch/Kernel.h"
#include <span>
#include <utility>

namespace quern::gpu {

/// Memory of one stream; released in stream order, so a kernel launched before may still be using it.
class DeviceMemory {
  Backend *backend = nullptr;
  Stream stream = nullptr;
  void *memory = nullptr;
  int64_t size = 0;

public:
  DeviceMemory() = default;
  DeviceMemory(DeviceMemory &&other) noexcept { swap(other); }
  DeviceMemory &operator=(DeviceMemory &&other) noexcept {
    DeviceMemory moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~DeviceMemory() {
    if (memory) backend->release(memory, stream);
  }
  /// At least one byte is allocated: the pointer is never null.
  static Expected<DeviceMemory> allocate(Backend &backend, int64_t bytes, Stream stream);
  void *data() const { return memory; }
  int64_t bytes() const { return size; }

private:
  void swap(DeviceMemory &other) noexcept {
    std::swap(backend, other.backend), std::swap(stream, other.stream);
    std::swap(memory, other.memory), std::swap(size, other.size);
  }
};

/// The elements that a strided view reaches: from the lowest to the highest address.
struct Span {
  int64_t lowest = 0, count = 0; // elements, relative to the view's data pointer
};
Span spanOf(const std::vector<int64_t> &shape, const std::vector<int64_t> &strides);
Range rangeOf(std::string name, const TensorView &tensor, bool writable);

/// Constant bytes on the device (pointer tables, a dense kernel's offsets, a codec's table), one copy for
/// equal bytes, kept until the process ends: a captured CUDA graph may hold the address. The first call with
/// these bytes waits for the stream, so that every stream may read the copy afterwards; it is refused in a
/// graph capture, naming the `kernel` (Backend::mayLoad).
Expected<const void *> deviceConstant(Backend &backend, Stream stream, std::span<const std::byte> bytes,
                                      const std::string &kernel);

/// A table of device addresses.
template <class T>
Expected<const void *> pointerTable(Backend &backend, Stream stream, const std::vector<T *> &pointers,
                                    const std::string &kernel) {
  return deviceConstant(backend, stream, std::as_bytes(std::span(pointers)), kernel);
}

} // namespace quern::gpu
