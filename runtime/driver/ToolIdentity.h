// Which ptxas or NVRTC would be used, for the keys of the cache, without starting or opening it: a version is
// asked once and kept in the cache under a fingerprint of the file's content. README.md, "Tools in keys".
#pragma once
#include "runtime/cache/Store.h"
#include <functional>
#include <string>

namespace quern::driver {

/// Size and XXH3 of the first, the last and 14 pages between, as text; empty when the file cannot be read.
/// Reads 64 KB, once per file and process (a file that is replaced is read again).
std::string fingerprint(const std::string &path);

/// What tells one state of a file from another within a process: its path, number, size and time; empty when
/// there is no such file.
std::string fileState(const std::string &path);

/// What `ask` says about the tool at `path`, from the cache when its content is known there. Empty answers
/// are not kept.
std::string askOnce(const std::string &tool, const std::string &path,
                    const std::function<std::string()> &ask);

/// The first two numbers of "13.0.88".
struct ToolRelease {
  int major = 0, minor = 0;
  auto operator<=>(const ToolRelease &) const = default;
};
ToolRelease releaseOf(const std::string &version);

/// The version of the ptxas that assemble() would use ("13.0.88"), its fingerprint when it does not tell one,
/// "none" without a ptxas.
std::string ptxasInUse();
/// How that version reads for this ptxas.
std::string ptxasVersion(const std::string &path);

/// Entries that a tool made are found on machines without the tool through the key without the tool's field:
/// up to four versions are kept under it, first come first kept.
void rememberTool(cache::Store &store, const cache::Key &withoutTool, const std::string &version);
/// The newest of them whose major release is at most `mostMajor` (0: any), or "".
std::string newestTool(cache::Store &store, const cache::Key &withoutTool, int mostMajor = 0);

} // namespace quern::driver
