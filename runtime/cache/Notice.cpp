// Topics already spoken of, as hashes in a fixed table of atomics: no lock that a fork could leave held.
#include "runtime/cache/Notice.h"
#include <array>
#include <atomic>
#include <functional>
#include <unistd.h>

namespace quern::cache {
namespace {

std::array<std::atomic<size_t>, 64> spoken{};
std::atomic<NoticeSink> theSink{nullptr};

/// Whether this topic is new. A full table holds its peace.
bool firstTime(std::string_view topic) {
  size_t mark = std::hash<std::string_view>()(topic) | 1;
  for (std::atomic<size_t> &slot : spoken) {
    size_t held = 0;
    if (slot.compare_exchange_strong(held, mark)) return true;
    if (held == mark) return false;
  }
  return false;
}

} // namespace

bool notice(std::string_view topic, const std::string &text) {
  if (!firstTime(topic)) return false;
  if (NoticeSink sink = theSink.load()) {
    sink(text);
    return true;
  }
  std::string line = "quern: warning: " + text + "\n";
  // One write, so that lines of several ranks do not mix. A closed stderr is nobody's failure.
  ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  (void)written;
  return true;
}

void setNoticeSink(NoticeSink sink) { theSink = sink; }
void forgetNotices() {
  for (std::atomic<size_t> &slot : spoken) slot = 0;
}

} // namespace quern::cache
