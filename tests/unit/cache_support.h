// Folders, stores, children and failing system calls for the cache's tests.
#pragma once
#include "runtime/cache/Notice.h"
#include "runtime/cache/StoreImpl.h"
#include "runtime/cache/Sys.h"
#include <filesystem>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <sys/types.h>

namespace quern::cache::test {

/// A private folder, deleted at the end with all that is in it.
struct TempFolder {
  std::filesystem::path path;
  TempFolder();
  ~TempFolder();
  std::string at(const std::string &name) const { return (path / name).string(); }
};

/// A cache folder and a lock folder of a test's own. Stores on it can be opened in any process.
struct TestCache {
  TempFolder top;
  std::string folder = top.at("cache");
  std::string locks = top.at("locks");
  std::unique_ptr<DiskStore> open(uint64_t limit = UINT64_MAX,
                                  std::chrono::milliseconds patience = std::chrono::seconds(60)) const;
  Folder opened() const;
  /// Files of entries, as paths.
  std::vector<std::filesystem::path> files() const;
};

/// Key number `number`, and the one right content for it: `size` bytes that depend on the number.
Key numbered(int number, const char *kind = "gpu");
Content contentOf(int number, size_t size = 3000);

/// Runs `body` in a forked child that exits with its result.
pid_t spawnChild(const std::function<int()> &body);
/// Exit status; -signal if it was killed.
int waitChild(pid_t child);

/// Notices of its life time instead of stderr.
struct Notices {
  Notices();
  ~Notices();
  std::vector<std::string> texts() const;
};

/// Fails calls while it lives: the n-th (from 1), or all from the n-th on.
struct FailNth {
  FailNth(int64_t n, sys::Fault fault, bool forEver = false);
  ~FailNth();
  /// Whether the n-th call was reached.
  bool fired() const;
  int64_t calls() const;
};

std::string readBytes(const std::filesystem::path &path);
void writeBytes(const std::filesystem::path &path, std::string_view bytes);

/// The seed of a random test, printed; QUERN_TEST_SEED repeats one.
uint64_t testSeed();

/// A hook of the system calls for the length of a test.
struct Hooked {
  explicit Hooked(sys::Hook hook) { sys::setHook(hook); }
  ~Hooked() { sys::setHook(nullptr); }
};

} // namespace quern::cache::test
