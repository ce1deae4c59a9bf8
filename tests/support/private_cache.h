// Included by one source of a test binary: its Quern cache is a folder of its own, removed at the end, unless
// QUERN_CACHE_DIR says otherwise.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <string>

namespace quern::test {

class PrivateCache : public testing::Environment {
  std::string folder;

public:
  PrivateCache() {
    if (std::getenv("QUERN_CACHE_DIR")) return;
    folder = (std::filesystem::temp_directory_path() / "quern-test-cache-XXXXXX").string();
    if (mkdtemp(folder.data())) setenv("QUERN_CACHE_DIR", folder.c_str(), 1);
  }
  void TearDown() override {
    std::error_code ignored;
    if (!folder.empty()) std::filesystem::remove_all(folder, ignored);
  }
};

/// Before main: what reads the variable reads it once.
inline testing::Environment *const privateCache = testing::AddGlobalTestEnvironment(new PrivateCache);

} // namespace quern::test
