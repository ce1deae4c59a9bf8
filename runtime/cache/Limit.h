// Sizes as people write them, and the cache's limit.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace quern::cache {

/// "512M", "4G", "1048576", "0": bytes, with K, M, G or T for powers of 1024. Anything else: nothing.
std::optional<uint64_t> parseBytes(std::string_view text);

/// QUERN_CACHE_LIMIT, or 4G when it is unset or not a size (with a notice). 0: no limit (UINT64_MAX).
uint64_t limitFromEnvironment();

} // namespace quern::cache
