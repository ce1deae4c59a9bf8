// The one warning that a process gives about its cache.
#pragma once
#include <string>
#include <string_view>

namespace quern::cache {

/// Tells the user once per process and topic; later notices of the topic are dropped. The cache's own topic
/// is "cache". Returns whether this one was given. Safe from any thread and in a forked child, which stays
/// silent about what its parent has said.
bool notice(std::string_view topic, const std::string &text);

/// Where notices go; null: one line on stderr, "quern: warning: ...". The Python module sets warnings.warn.
using NoticeSink = void (*)(const std::string &text);
void setNoticeSink(NoticeSink sink);
/// Forgets what was said. For tests.
void forgetNotices();

} // namespace quern::cache
