// The names inside an archive of entries (Archive.h), for its two sides.
#pragma once
#include "runtime/cache/Digest.h"
#include "runtime/cache/Files.h"
#include <fmt/format.h>

namespace quern::cache::packed {

inline constexpr std::string_view root = "quern-cache/", formatName = "quern-cache/format",
                                  manifestName = "quern-cache/manifest", formatText = "1\n";

/// `name` is entryName() of the key's text.
inline std::string memberName(const std::string &name) { return std::string(root) + entryPath(name); }

inline std::string manifestLine(const std::string &name, std::string_view entry) {
  return fmt::format("{} {} {}\n", name, hex(digest(entry)), entry.size());
}

} // namespace quern::cache::packed
