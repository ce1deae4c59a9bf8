// What Quern finds of CUDA on this machine, for `quern doctor`: libraries and tools, where, which version, or
// why not. Never initialises CUDA and compiles nothing.
#pragma once
#include <string>
#include <vector>

namespace quern::driver {

struct ProbeItem {
  std::string what;    // "CUDA driver", "ptxas", "NVRTC", "disassembler", "device"
  std::string path;    // empty: not found
  std::string source;  // "QUERN_PTXAS", "CUDA toolkit", "PATH", "Python package", "loader's path"
  std::string version; // "13.0", "13.0.88"; for a device its name
  std::string problem; // why it cannot be used
  bool used = false;   // the first usable one of its kind
};

struct DriverReport {
  std::vector<ProbeItem> items;
  /// A line for each: "ptxas  13.0.88  /usr/local/cuda/bin/ptxas  (CUDA toolkit)  used".
  std::string str() const;
};

DriverReport probe();

} // namespace quern::driver
