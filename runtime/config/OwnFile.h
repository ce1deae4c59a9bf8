// Where this code was installed.
#pragma once
#include <filesystem>

namespace quern::config {

/// The shared object or program that this code is linked into, with links resolved; empty when the loader
/// does not say. What ships beside it (libquern-jit.so, `quern`, Python packages) is looked for from its
/// folder.
std::filesystem::path ownFile();

} // namespace quern::config
