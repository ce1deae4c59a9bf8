// See Nvml.h. Names and values are those of nvml.h (NVML API reference): they have not changed since its
// version 2 of these entry points.
#include "runtime/driver/Nvml.h"
#include <dlfcn.h>

namespace quern::driver {

struct Nvml::Library {
  void *handle = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  int (*shutdown)() = nullptr;
  int (*handleByPciBusId)(const char *, void **) = nullptr;
  int (*clockInfo)(void *, int, unsigned *) = nullptr;
  int (*throttleReasons)(void *, unsigned long long *) = nullptr;
  bool ready = false;

  Library() {
    if (!handle) return;
    auto find = [&](auto &entry, const char *symbol) {
      entry = reinterpret_cast<std::decay_t<decltype(entry)>>(dlsym(handle, symbol));
      return entry != nullptr;
    };
    int (*init)() = nullptr;
    ready = find(init, "nvmlInit_v2") && find(shutdown, "nvmlShutdown") &&
            find(handleByPciBusId, "nvmlDeviceGetHandleByPciBusId_v2") &&
            find(clockInfo, "nvmlDeviceGetClockInfo") &&
            find(throttleReasons, "nvmlDeviceGetCurrentClocksThrottleReasons") && init() == 0;
  }
  ~Library() { // the handle stays open: the library may have started threads
    if (ready) shutdown();
  }
};

Nvml::Nvml(const std::string &pciBusId) : library(std::make_shared<Library>()) {
  if (library->ready && library->handleByPciBusId(pciBusId.c_str(), &device) != 0) device = nullptr;
}

GpuState Nvml::state() const {
  constexpr int smClock = 1, memoryClock = 2; // nvmlClockType_t
  // nvmlClocksThrottleReasonHwSlowdown, SwThermalSlowdown, HwThermalSlowdown, HwPowerBrakeSlowdown.
  constexpr unsigned long long slow = 0x8 | 0x20 | 0x40 | 0x80;
  GpuState state;
  if (!device) return state;
  unsigned long long reasons = 0;
  state.known = library->clockInfo(device, smClock, &state.smMHz) == 0 &&
                library->clockInfo(device, memoryClock, &state.memoryMHz) == 0 &&
                library->throttleReasons(device, &reasons) == 0;
  state.slowed = state.known && (reasons & slow);
  return state;
}

} // namespace quern::driver
