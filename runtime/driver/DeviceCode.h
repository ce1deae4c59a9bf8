// Quern's own device code (kernels/*.cu), compiled when it is first needed.
#pragma once
#include "runtime/driver/Nvrtc.h"
#include <vector>

namespace quern::driver {

/// Name of the file that defines `extern "C" __global__ void kernel(...)`, or "".
std::string deviceFileOf(std::string_view kernel);

/// The files that define kernels: "combine.cu", ...
std::vector<std::string> deviceFiles();

/// A file compiled by NVRTC for `arch`, or what the cache on disk has of it: once per process, whatever the
/// number of devices. The result lives for ever. A failure is not kept. `refused`: an earlier result that the
/// driver does not take. It is dropped and made anew if it came from the disk; else it is the result again.
Expected<const CompiledCuda *> compiledDeviceFile(const std::string &file, const std::string &arch,
                                                  int driverVersion, const CompiledCuda *refused = nullptr);

} // namespace quern::driver
