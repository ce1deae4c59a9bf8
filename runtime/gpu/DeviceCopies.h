// Copies of a call's arguments and outputs on a device: what whoever has host data needs (`quern run`, the
// tuner). Nothing here is fast; the device's own routing and re-tiling are used, so that whoever checks a
// call checks those.
#pragma once
#include "runtime/gpu/Backend.h"
#include "runtime/gpu/Memory.h"
#include "runtime/launch/Kernel.h"
#include <deque>

namespace quern::gpu {

class DeviceCopies {
  Backend &backend;
  const syntax::Kernel &kernel;
  Stream stream = nullptr;
  std::deque<DeviceMemory> memory;

  /// Fresh bytes (NaN) with guards around them.
  struct Output {
    void *data = nullptr;         // device address behind the first guard
    std::vector<std::byte> bytes; // guard, data, guard
    int64_t size = 0;
  };
  std::vector<Output> results;

  Expected<void *> copy(const void *data, int64_t bytes);
  template <class T> Expected<void *> copy(const std::vector<T> &values) {
    return copy(values.data(), int64_t(values.size() * sizeof(T)));
  }
  Expected<Arg> tensor(const TensorView &t);
  Expected<Arg> packed(const PackedView &w);
  Expected<Arg> routing(const RoutingView &r);

public:
  DeviceCopies(Backend &backend, const syntax::Kernel &kernel) : backend(backend), kernel(kernel) {}

  /// The argument on the device; the memory is kept until this object ends. Packed operands end in the gpu
  /// layout. A routing that ids give is sorted on the device, and one that differs from the host's is an
  /// internal error.
  Expected<Arg> send(const Arg &arg);
  /// Room for outputs of these shapes, between guards; afterwards `outputs` views it.
  Status allocateOutputs(const std::vector<TensorView> &shapes);
  std::vector<TensorView> outputs;
  /// Fills the outputs and their guards with NaN.
  Status freshOutputs();
  /// Waits, and copies the outputs to host memory of their shapes. A write beside one is an internal error.
  Status fetchOutputs(const std::vector<TensorView> &to);
};

} // namespace quern::gpu
