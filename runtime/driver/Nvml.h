// Clocks and throttling of a GPU from NVIDIA's management library (libnvidia-ml.so.1), which comes with the
// driver. Opened at run time, only by who measures; without it nothing is known and nothing fails.
#pragma once
#include <memory>
#include <string>

namespace quern::driver {

struct GpuState {
  bool known = false;
  unsigned smMHz = 0, memoryMHz = 0;
  bool slowed = false; // by heat, hardware or the power brake; a power cap alone does not count
};

class Nvml {
  struct Library;
  std::shared_ptr<Library> library;
  void *device = nullptr;

public:
  /// The device at a PCI address ("0000:9A:00.0"), as cuDeviceGetPCIBusId gives it: ordinals differ under
  /// CUDA_VISIBLE_DEVICES.
  explicit Nvml(const std::string &pciBusId);
  GpuState state() const;
};

} // namespace quern::driver
