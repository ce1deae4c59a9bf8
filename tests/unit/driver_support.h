// For the driver tests: environment variables and files for the length of a test, PTX texts, fake tools.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace quern::test {

/// Sets or (with null) unsets a variable, and restores it.
class Environment {
  std::string name;
  std::optional<std::string> before;

public:
  Environment(const char *name, const char *value) : name(name) {
    if (const char *old = std::getenv(name)) before = old;
    value ? setenv(name, value, 1) : unsetenv(name);
  }
  Environment(const char *name, const std::string &value) : Environment(name, value.c_str()) {}
  Environment(const Environment &) = delete;
  ~Environment() { before ? setenv(name.c_str(), before->c_str(), 1) : unsetenv(name.c_str()); }
};

/// A folder of the test, removed with it.
class Folder {
public:
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "quern-test-XXXXXX").string();
    if (mkdtemp(name.data())) path = name;
  }
  Folder(const Folder &) = delete;
  ~Folder() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove_all(path, ignored);
  }
  std::string file(const std::string &name, const std::string &text, mode_t mode = 0644) const {
    std::filesystem::path at = path / name;
    std::filesystem::create_directories(at.parent_path());
    std::ofstream(at) << text;
    chmod(at.c_str(), mode);
    return at.string();
  }
  /// A shell script that plays a tool.
  std::string tool(const std::string &name, const std::string &body) const {
    return file(name, "#!/bin/sh\n" + body + "\n", 0755);
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (auto &entry : std::filesystem::directory_iterator(path))
      found.push_back(entry.path().filename().string());
    return found;
  }
};

inline std::string ptxModule(const std::string &body) {
  return ".version 8.0\n.target sm_90a\n.address_size 64\n" + body;
}

/// Doubles one float in place.
inline std::string tinyPtx() {
  return ptxModule(R"(.visible .entry twice(.param .u64 p) {
  .reg .b64 %p; .reg .f32 %f;
  .shared .align 4 .b8 buffer[256];
  ld.param.u64 %p, [p];
  ld.global.f32 %f, [%p];
  add.f32 %f, %f, %f;
  st.shared.f32 [buffer], %f;
  bar.sync 0;
  ld.shared.f32 %f, [buffer+4];
  st.global.f32 [%p], %f;
  ret;
}
)");
}

} // namespace quern::test
