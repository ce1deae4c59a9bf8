// Where CUDA's tools and libraries may lie on a machine: the toolkit, the PATH, NVIDIA's Python wheels.
// Nothing is opened or run here, and no CUDA header is needed.
#pragma once
#include "runtime/config/Knobs.h"
#include <string>
#include <vector>

namespace quern::driver {

/// A file that exists, and why it was looked at: "QUERN_PTXAS", "CUDA toolkit", "PATH", "Python package".
struct Found {
  std::string path, source;
};

/// What to look for, in the order of the search.
struct Wanted {
  config::Knob knob;                 // names the file: the only place, when set; "none": nowhere
  std::vector<std::string> toolkit;  // relative to CUDA_HOME, CUDA_PATH, /usr/local/cuda
  std::string program;               // looked up on the PATH; empty: not
  std::vector<std::string> packages; // relative to a site-packages folder
  bool executable = false;
};

/// Every file found, best first, each real file once. When the variable is set: that path alone, existing or
/// not.
std::vector<Found> findAll(const Wanted &wanted);

/// Python's package folders: of QUERN_PYTHON_PREFIX (prefixes such as sys.prefix, or package folders, by
/// colons), of VIRTUAL_ENV, of the folder that this library was installed in, of a .venv beside its source,
/// and of the python3 on the PATH.
std::vector<std::string> sitePackages();

/// Where a `Wanted` was looked for, one place per line: for error texts.
std::string searched(const Wanted &wanted);

} // namespace quern::driver
