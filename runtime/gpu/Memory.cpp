// See Memory.h.
#include "runtime/gpu/Memory.h"
#include <algorithm>
#include <mutex>
#include <string_view>
#include <unordered_map>

namespace quern::gpu {

Expected<DeviceMemory> DeviceMemory::allocate(Backend &backend, int64_t bytes, Stream stream) {
  auto memory = backend.allocate(uint64_t(std::max<int64_t>(bytes, 1)), stream);
  if (!memory) return memory.takeError();
  DeviceMemory result;
  result.backend = &backend, result.stream = stream;
  result.memory = *memory, result.size = bytes;
  return result;
}

Span spanOf(const std::vector<int64_t> &shape, const std::vector<int64_t> &strides) {
  int64_t lowest = 0, highest = 0;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 0) return {0, 0};
    (strides[d] < 0 ? lowest : highest) += (shape[d] - 1) * strides[d];
  }
  return {lowest, highest - lowest + 1};
}

Range rangeOf(std::string name, const TensorView &tensor, bool writable) {
  Span span = spanOf(tensor.shape, tensor.strides);
  int64_t width = byteSize(tensor.dtype);
  return {std::move(name), static_cast<const char *>(tensor.data) + span.lowest * width,
          uint64_t(span.count * width), writable};
}

namespace {
struct Constants {
  std::mutex mutex;
  std::unordered_map<std::string, const void *> kept; // key: the backend's address, then the bytes
};
} // namespace

Expected<const void *> deviceConstant(Backend &backend, Stream stream, std::span<const std::byte> bytes,
                                      const std::string &kernel) {
  static auto *constants = new Constants; // never destroyed: the memory outlives every caller
  Backend *owner = &backend;
  std::string key(reinterpret_cast<const char *>(&owner), sizeof owner);
  key.append(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  std::lock_guard lock(constants->mutex);
  if (auto found = constants->kept.find(key); found != constants->kept.end()) return found->second;
  if (Status ok = backend.mayLoad(kernel, stream); !ok) return ok.takeError();
  auto memory = backend.allocate(std::max<uint64_t>(bytes.size(), 1), stream);
  if (!memory) return memory.takeError();
  Status ok = backend.upload(*memory, bytes.data(), bytes.size(), stream);
  if (ok) ok = backend.synchronize(stream);
  if (!ok) {
    backend.release(*memory, stream);
    return ok.takeError();
  }
  return constants->kept[std::move(key)] = *memory;
}

} // namespace quern::gpu
