// Sizes as people write them, and the cache's limit.
#include "runtime/cache/Limit.h"
#include "runtime/cache/Notice.h"
#include "runtime/config/Knobs.h"
#include <charconv>
#include <fmt/format.h>

namespace quern::cache {

std::optional<uint64_t> parseBytes(std::string_view text) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  std::string_view unit = text.substr(size_t(end - text.data()));
  int shift = 0;
  if (!unit.empty()) {
    constexpr std::string_view letters = "KMGTkmgt";
    size_t place = letters.find(unit[0]);
    if (place == letters.npos || (unit.size() > 1 && unit.substr(1) != "B" && unit.substr(1) != "iB"))
      return std::nullopt;
    shift = 10 * int(place % 4 + 1);
  }
  if (shift && number >> (64 - shift)) return std::nullopt;
  return number << shift;
}

uint64_t limitFromEnvironment() {
  constexpr uint64_t otherwise = uint64_t(4) << 30;
  std::optional<std::string> text = config::value(config::Knob::CacheLimit);
  if (!text) return otherwise;
  if (std::optional<uint64_t> bytes = parseBytes(*text)) return *bytes ? *bytes : UINT64_MAX;
  notice("QUERN_CACHE_LIMIT",
         fmt::format("QUERN_CACHE_LIMIT={} is not a size such as 512M or 4G: 4G it is", *text));
  return otherwise;
}

} // namespace quern::cache
