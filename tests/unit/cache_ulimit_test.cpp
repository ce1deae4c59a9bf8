// A process that may not write long files (RLIMIT_FSIZE, `ulimit -f`): the kernel's answer to such a write is
// a signal that ends the process, so none may be tried.
#include "cache_support.h"
#include "runtime/cache/Listing.h"
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <sys/resource.h>

namespace quern::cache {
namespace {

using test::contentOf;
using test::numbered;
using test::TestCache;

/// Files of this process end at `bytes` from now on.
void limitFiles(rlim_t bytes) {
  rlimit files{bytes, bytes}, cores{0, 0};
  setrlimit(RLIMIT_FSIZE, &files);
  setrlimit(RLIMIT_CORE, &cores);
}

class CacheFileLimit : public testing::TestWithParam<bool> {};

TEST_P(CacheFileLimit, WhatIsTooLongIsUsedAndNotKept) {
  TestCache cache;
  bool named = GetParam();
  cache.opened();
  int result = test::waitChild(test::spawnChild([&] {
    limitFiles(8192);
    if (named)
      sys::setHook(
          [](sys::Call call) { return sys::Fault{call == sys::Call::OpenUnnamed ? EOPNOTSUPP : 0, false}; });
    test::Notices notices;
    auto store = cache.open();
    for (int i : {1, 2}) {
      auto made = store->findOrMake(numbered(i), [&] { return Expected<Content>(contentOf(i, 20'000)); });
      if (!made || *made != contentOf(i, 20'000) || store->find(numbered(i))) return 1;
    }
    // Short ones are kept; the notes of who holds which lock would come to lie beyond the limit.
    for (int i = 10; i < 50; ++i) {
      auto made = store->findOrMake(numbered(i), [&] { return Expected<Content>(contentOf(i)); });
      if (!made || store->find(numbered(i)) != contentOf(i)) return 2;
    }
    std::vector<std::string> said = notices.texts();
    if (said.size() != 1 || said[0].find("File too large for this process (ulimit -f)") == said[0].npos)
      return 3;
    struct sigaction now;
    if (sigaction(SIGXFSZ, nullptr, &now) != 0 || now.sa_handler != SIG_DFL) return 4;
    sigset_t blocked;
    return sigprocmask(SIG_BLOCK, nullptr, &blocked) == 0 && !sigismember(&blocked, SIGXFSZ) ? 0 : 5;
  }));
  EXPECT_EQ(result, 0) << "negative: the signal that ended it (" << SIGXFSZ << " is SIGXFSZ)";
  VerifyReport report = verify(cache.opened());
  EXPECT_EQ(report.good, 40);
  EXPECT_TRUE(report.bad.empty());
  EXPECT_EQ(report.temporary, 0);
}

INSTANTIATE_TEST_SUITE_P(, CacheFileLimit, testing::Bool(),
                         [](auto &info) { return info.param ? "Named" : "Unnamed"; });

/// A file of exactly the limit is written.
TEST(CacheFileLimitExactly, TheLimitItselfIsNotTooLong) {
  TestCache cache;
  cache.opened();
  size_t size = encodeEntry(numbered(1), contentOf(1)).size();
  for (rlim_t less : {0, 1})
    EXPECT_EQ(test::waitChild(test::spawnChild([&] {
                test::Notices notices;
                limitFiles(size - less);
                auto store = cache.open();
                bool kept = store->publish(numbered(1), contentOf(1));
                if (kept) store->discard(numbered(1));
                return kept == (less == 0) ? 0 : 1;
              })),
              0)
        << less;
}

} // namespace
} // namespace quern::cache
