// The texts of kernels/*.cu and *.cuh, embedded at build time: what NVRTC compiles when a GPU is used.
#pragma once

namespace quern {

struct DeviceSource {
  const char *name, *text; // name: "routing.cu", "device.cuh" (included as "kernels/device.cuh")
};
/// Ends with an entry whose name is null.
extern const DeviceSource deviceSources[];

} // namespace quern
