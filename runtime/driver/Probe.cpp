// The search of every tool and library, with versions; devices as the kernel module lists them.
#include "runtime/driver/Probe.h"
#include "runtime/config/Knobs.h"
#include "runtime/driver/Driver.h"
#include "runtime/driver/Nvrtc.h"
#include "runtime/driver/Process.h"
#include "runtime/driver/Ptxas.h"
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

namespace quern::driver {
namespace {

namespace fs = std::filesystem;

void addDriver(std::vector<ProbeItem> &items) {
  ProbeItem item{"CUDA driver", "", "", "", "", false};
  if (auto driver = Driver::openUninitialized("")) {
    item.path = (*driver)->path;
    item.source = config::value(config::Knob::CudaLibrary) ? "QUERN_CUDA_LIBRARY" : "loader's path";
    item.version = versionText((*driver)->version);
    item.used = true;
  } else {
    item.problem = driver.error().message;
  }
  items.push_back(item);
}

/// From the kernel module, because asking the driver would initialise it.
void addDevices(std::vector<ProbeItem> &items) {
  std::error_code ignored;
  std::vector<fs::path> folders;
  for (auto &entry : fs::directory_iterator("/proc/driver/nvidia/gpus", ignored))
    folders.push_back(entry.path());
  std::ranges::sort(folders);
  for (auto &folder : folders) {
    auto text = readFile(folder / "information");
    ProbeItem item{"device", folder.filename(), "kernel module", "", "", true};
    if (text)
      if (size_t at = text->find("Model:"); at != text->npos) {
        size_t begin = std::min(text->find_first_not_of(" \t", at + 6), text->size());
        item.version = text->substr(begin, text->find('\n', begin) - begin);
      }
    items.push_back(item);
  }
  if (folders.empty())
    items.push_back(
        {"device", "", "", "", "the NVIDIA kernel module lists none (/proc/driver/nvidia/gpus)", false});
}

void addTools(std::vector<ProbeItem> &items, const char *what, const std::vector<Found> &found,
              const char *none) {
  bool used = false;
  for (auto &tool : found) {
    ProbeItem item{what, tool.path, tool.source, "", "", false};
    auto version = toolVersion(tool.path);
    if (version)
      item.version = *version;
    else
      item.problem = version.error().message;
    item.used = version && !used;
    used = used || item.used;
    items.push_back(item);
  }
  if (found.empty()) items.push_back({what, "", "", "", none, false});
}

void addNvrtc(std::vector<ProbeItem> &items) {
  if (auto found = findNvrtc())
    items.push_back({"NVRTC", found->file.path, found->file.source, versionText(found->version), "", true});
  else
    items.push_back({"NVRTC", "", "", "", found.error().message, false});
}

} // namespace

DriverReport probe() {
  DriverReport report;
  addDriver(report.items);
  addDevices(report.items);
  addTools(report.items, "ptxas", findPtxas(), "none was found: the driver compiles the PTX");
  addNvrtc(report.items);
  addTools(report.items, "disassembler", findDisassemblers(),
           "none was found: only checks of the machine code need it");
  return report;
}

std::string DriverReport::str() const {
  size_t width = 0;
  for (auto &item : items) width = std::max(width, item.what.size());
  std::string text;
  for (auto &item : items) {
    text += fmt::format("{:<{}}", item.what, width);
    for (auto &part : {item.version, item.path}) text += part.empty() ? "" : "  " + part;
    if (!item.source.empty()) text += fmt::format("  ({})", item.source);
    if (!item.problem.empty()) text += "  " + item.problem;
    text += item.used ? "  used\n" : "\n";
  }
  return text;
}

} // namespace quern::driver
