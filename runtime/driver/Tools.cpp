// The search for CUDA's tools: a few dozen stat calls, made again at each miss, so that nothing goes stale.
#include "runtime/driver/Tools.h"
#include "runtime/config/OwnFile.h"
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

namespace quern::driver {
namespace {

namespace fs = std::filesystem;

std::string variable(std::string_view name) { return config::systemVariable(name).value_or(""); }

std::vector<std::string> split(const std::string &list) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= list.size();) {
    size_t end = std::min(list.find(':', begin), list.size());
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool usable(const fs::path &path, bool executable) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) && access(path.c_str(), executable ? X_OK : R_OK) == 0;
}

std::vector<std::string> toolkits() {
  std::vector<std::string> roots;
  for (const char *name : {"CUDA_HOME", "CUDA_PATH"})
    if (std::string root = variable(name); !root.empty()) roots.push_back(root);
  roots.push_back("/usr/local/cuda");
  return roots;
}

/// Adds the package folders of one Python prefix; the prefix may be such a folder itself.
void addPrefix(const fs::path &prefix, std::vector<std::string> &folders) {
  std::error_code ignored;
  auto add = [&](const fs::path &folder) {
    if (fs::is_directory(folder, ignored) && std::ranges::find(folders, folder.string()) == folders.end())
      folders.push_back(folder.string());
  };
  if (prefix.filename() == "site-packages" || prefix.filename() == "dist-packages") return add(prefix);
  for (const char *lib : {"lib", "local/lib"}) {
    std::vector<fs::path> versions;
    for (auto &entry : fs::directory_iterator(prefix / lib, ignored))
      if (entry.path().filename().string().starts_with("python3")) versions.push_back(entry.path());
    std::ranges::sort(versions); // the folder's own order is not fixed
    for (auto &version : versions)
      for (const char *kind : {"site-packages", "dist-packages"}) add(version / kind);
  }
}

} // namespace

std::vector<std::string> sitePackages() {
  std::vector<std::string> folders;
  for (auto &prefix : split(config::value(config::Knob::PythonPrefix).value_or("")))
    addPrefix(prefix, folders);
  if (std::string env = variable("VIRTUAL_ENV"); !env.empty()) addPrefix(env, folders);
  fs::path folder = config::ownFile().parent_path();
  for (int level = 0; level < 5 && folder.has_relative_path(); ++level, folder = folder.parent_path()) {
    if (folder.filename() == "site-packages" || folder.filename() == "dist-packages")
      addPrefix(folder, folders);
    addPrefix(folder / ".venv", folders);
  }
  for (auto &entry : split(variable("PATH")))
    if (usable(fs::path(entry) / "python3", true)) {
      addPrefix(fs::path(entry).parent_path(), folders);
      break;
    }
  return folders;
}

std::vector<Found> findAll(const Wanted &wanted) {
  if (auto path = config::value(wanted.knob)) {
    if (*path == "none") return {};
    return {{*path, std::string(config::info(wanted.knob).name)}};
  }
  std::vector<Found> found;
  std::vector<fs::path> real; // /usr/local/cuda is a link, and may be on the PATH too
  auto consider = [&](const fs::path &path, const char *source) {
    if (!usable(path, wanted.executable)) return;
    std::error_code ignored;
    fs::path canonical = fs::canonical(path, ignored);
    if (std::ranges::find(real, canonical) != real.end()) return;
    real.push_back(canonical);
    found.push_back({path.string(), source});
  };
  for (auto &root : toolkits())
    for (auto &file : wanted.toolkit) consider(fs::path(root) / file, "CUDA toolkit");
  if (!wanted.program.empty())
    for (auto &entry : split(variable("PATH"))) consider(fs::path(entry) / wanted.program, "PATH");
  for (auto &folder : sitePackages())
    for (auto &file : wanted.packages) consider(fs::path(folder) / file, "Python package");
  return found;
}

std::string searched(const Wanted &wanted) {
  std::string text = fmt::format("looked at:\n  {} ({})\n", config::info(wanted.knob).name,
                                 config::value(wanted.knob) ? "none: nowhere else" : "not set");
  if (config::value(wanted.knob)) return text;
  auto add = [&](const std::string &folder, const std::vector<std::string> &files) {
    for (auto &file : files) text += "  " + folder + "/" + file + "\n";
  };
  for (auto &root : toolkits()) add(root, wanted.toolkit);
  if (!wanted.program.empty()) text += "  " + wanted.program + " on the PATH\n";
  auto folders = sitePackages();
  for (auto &folder : folders) add(folder, wanted.packages);
  if (folders.empty()) text += "  no Python package folder is known (QUERN_PYTHON_PREFIX names one)\n";
  return text;
}

} // namespace quern::driver
