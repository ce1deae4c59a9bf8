// Issues: what detectors say. Texts are deduplicated by detector, format and role.
#pragma once
#include <fmt/format.h>
#include <set>
#include <string>
#include <tuple>

namespace quern::sim {

struct Cta;
struct Thread;

/// A short text of fixed size: a fiber that a fatal issue stops must not own memory.
struct Text {
  char data[200];
  std::string_view view() const { return data; }
};

template <class... Arguments> Text text(fmt::format_string<Arguments...> format, Arguments &&...arguments) {
  Text result;
  auto end =
      fmt::format_to_n(result.data, sizeof result.data - 1, format, std::forward<Arguments>(arguments)...);
  *end.out = 0;
  return result;
}

/// "consumer, warp 5 lane 3", and the CTA's rank in a cluster.
Text nameOf(const Thread &thread);
Text nameOf(unsigned threadOfCluster);
/// "consumer warp 5 lane 3" for warp `warp` of a CTA.
Text nameOfWarp(const Cta &cta, unsigned warp);
/// The role of a warp of the block; "" when none was given.
std::string_view roleOf(unsigned warp);
/// "smem+0x1400" or "static 3+0x10", and the rank when it is another CTA than the current thread's.
Text placeOf(const Cta &cta, uint32_t address);

struct IssueLog {
  std::set<std::tuple<std::string, const void *, std::string>> seen;
};

void recordIssue(const char *detector, const void *key, std::string_view message);
[[noreturn]] void stopLaunch();

/// Records an issue; the launch goes on.
template <class... Arguments>
void issue(const char *detector, fmt::format_string<Arguments...> format, Arguments &&...arguments) {
  fmt::memory_buffer buffer;
  fmt::format_to(std::back_inserter(buffer), format, std::forward<Arguments>(arguments)...);
  recordIssue(detector, fmt::string_view(format).data(), {buffer.data(), buffer.size()});
}

/// Records an issue and ends the launch: the current fiber does not go on. Arguments must not own memory.
template <class... Arguments>
[[noreturn]] void fatal(const char *detector, fmt::format_string<Arguments...> format,
                        Arguments &&...arguments) {
  issue(detector, format, std::forward<Arguments>(arguments)...);
  stopLaunch();
}

} // namespace quern::sim

template <> struct fmt::formatter<quern::sim::Text> : fmt::formatter<fmt::string_view> {
  template <class Context> auto format(const quern::sim::Text &text, Context &context) const {
    return fmt::formatter<fmt::string_view>::format(text.data, context);
  }
};
