// The CUDA driver, GPUs, ptxas, NVRTC and disassemblers. The driver's library is opened and asked for its
// version only; GPUs are what the kernel module and nvidia-smi, a process of its own, list.
#include "runtime/driver/Driver.h"
#include "runtime/driver/Nvrtc.h"
#include "runtime/driver/Probe.h"
#include "runtime/driver/Process.h"
#include "tools/Doctor.h"
#include <algorithm>
#include <fmt/format.h>
#include <sstream>

namespace quern::tools {
namespace {

using driver::ProbeItem;

/// 12040 of "12.4" or "12.4.131"; 0 of anything else.
int versionNumber(const std::string &text) {
  int major = 0, minor = 0;
  if (std::sscanf(text.c_str(), "%d.%d", &major, &minor) < 2) return 0;
  return major * 1000 + minor * 10;
}

/// A package of NVIDIA's compilers for this driver.
std::string packageFor(const char *tool, int driverVersion) {
  bool old = driverVersion && driverVersion / 1000 < 13;
  return old ? fmt::format("pip install nvidia-cuda-{}-cu12", tool)
             : fmt::format("pip install 'nvidia-cuda-{}==13.0.*'", tool);
}

struct GpuLook {
  Section section{"GPU", {}};
  driver::DriverReport report = driver::probe();
  int driverVersion = 0;
  bool hasDevice = false, assembles = false, hasNvrtc = false;
  std::string reason;

  void because(const std::string &text) {
    if (reason.empty()) reason = text;
  }

  void lookAtDriver() {
    for (const ProbeItem &item : report.items) {
      if (item.what != "CUDA driver") continue;
      if (item.used) {
        driverVersion = versionNumber(item.version);
        section.add({Mark::Ok, "driver", "CUDA " + item.version, item.path, item.source, ""});
        continue;
      }
      bool missing = item.problem.starts_with("no CUDA driver");
      section.add({missing ? Mark::Missing : Mark::Problem, "driver", "", item.path,
                   missing ? "libcuda.so.1 cannot be opened" : item.problem,
                   "install NVIDIA's driver, 525 or newer (580 for CUDA 13); in a container, start it with "
                   "--gpus all"});
      because(missing ? "there is no CUDA driver" : item.problem);
    }
  }

  /// "NVIDIA H100 80GB HBM3, 580.65.06, 9.0, 81559 MiB" for each GPU.
  std::vector<std::string> askSmi() {
    std::string smi = onPath("nvidia-smi");
    if (smi.empty()) return {};
    auto ran = driver::runProcess(
        {smi, "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"},
        {.timeoutSeconds = 10});
    if (!ran || !ran->ok()) return {};
    std::vector<std::string> lines;
    std::istringstream text(ran->output);
    for (std::string line; std::getline(text, line);)
      if (!line.empty()) lines.push_back(line);
    return lines;
  }

  void lookAtDevices() {
    int number = 0;
    for (const std::string &line : askSmi()) {
      bool hopper = line.find(", 9.0,") != std::string::npos;
      section.add({hopper ? Mark::Ok : Mark::Problem, fmt::format("GPU {}", number++), line, "",
                   "as nvidia-smi says",
                   hopper ? "" : "Quern's GPU kernels are for compute capability 9.0 (H100, H200)"});
      hasDevice |= hopper;
    }
    if (number && !hasDevice) because("no GPU has compute capability 9.0");
    if (number) return;
    for (const ProbeItem &item : report.items)
      if (item.what == "device" && item.used) {
        section.add({Mark::Ok, fmt::format("GPU {}", number++), item.version, item.path, item.source, ""});
        hasDevice = true;
      }
    if (number) return;
    section.add(
        {Mark::Missing, "GPU", "", "", "neither nvidia-smi nor /proc/driver/nvidia/gpus lists one", ""});
    because("there is no NVIDIA GPU");
  }

  void lookAtPtxas() {
    bool any = false;
    for (const ProbeItem &item : report.items) {
      if (item.what != "ptxas" || item.path.empty()) continue;
      any = true;
      if (!item.used) {
        bool broken = !item.problem.empty();
        section.add({broken ? Mark::Problem : Mark::Ok, "ptxas", item.version, item.path,
                     item.source + (broken ? "; " + item.problem : "; not used, an earlier place has one"),
                     broken ? packageFor("nvcc", driverVersion) : ""});
        continue;
      }
      int version = versionNumber(item.version);
      bool newer = driverVersion && version / 1000 > driverVersion / 1000;
      assembles = true;
      section.add(
          {newer ? Mark::Problem : Mark::Ok, "ptxas", item.version, item.path,
           item.source +
               (newer ? fmt::format("; used, but its major version is newer than the driver's CUDA {}: "
                                    "if that refuses the code, the driver compiles the PTX itself",
                                    driver::versionText(driverVersion))
                      : "; used: the first in the order of the search"),
           newer ? packageFor("nvcc", driverVersion) : ""});
    }
    if (any && !assembles) because("ptxas cannot be run");
    if (any) return;
    bool driverTakesPtx = driverVersion >= driver::generatedPtxNeeds;
    section.add(
        {Mark::Missing, "ptxas", "", "",
         driverTakesPtx
             ? "the driver compiles the PTX: the first load of a kernel is slower, and there is no report "
               "of registers and spills"
         : driverVersion
             ? fmt::format("and this driver (CUDA {}) is too old for the generated PTX, which is of CUDA {}",
                           driver::versionText(driverVersion), driver::versionText(driver::generatedPtxNeeds))
             : "needed to compile for a GPU ahead of time",
         packageFor("nvcc", driverVersion)});
    if (driverVersion && !driverTakesPtx)
      because("there is no ptxas, and the driver is too old to compile the PTX");
    assembles = driverTakesPtx;
  }

  void lookAtNvrtc() {
    auto found = driver::findNvrtc(driverVersion);
    hasNvrtc = bool(found);
    if (found) {
      section.add(
          {Mark::Ok, "NVRTC", driver::versionText(found->version), found->file.path,
           found->file.source + "; used: it compiles Quern's own device code (routing, gather, combine)",
           ""});
      return;
    }
    bool newer = found.error().detail.find("is newer than the driver's") != std::string::npos;
    section.add(
        {newer ? Mark::Problem : Mark::Missing, "NVRTC", "", "",
         newer ? "what was found is of a newer major version than the driver, which would refuse its code"
               : "it compiles Quern's own device code (routing, gather, combine)",
         packageFor("nvrtc", driverVersion)});
    because(newer ? "NVRTC is newer than the driver" : "there is no NVRTC");
  }

  void lookAtDisassemblers() {
    for (const ProbeItem &item : report.items) {
      if (item.what != "disassembler") continue;
      if (item.path.empty())
        section.add({Mark::Missing, "disassembler", "", "",
                     "only `quern explain` and checks of machine code need one",
                     "install cuobjdump or nvdisasm: the CUDA toolkit or the triton wheel"});
      else
        section.add(
            {item.problem.empty() ? Mark::Ok : Mark::Problem, "disassembler", item.version, item.path,
             item.source + (item.problem.empty() ? item.used ? "; used" : "; not used" : "; " + item.problem),
             ""});
    }
  }
};

} // namespace

Section lookAtGpu(bool &works, std::string &reason) {
  GpuLook look;
  look.lookAtDriver();
  look.lookAtDevices();
  look.lookAtPtxas();
  look.lookAtNvrtc();
  look.lookAtDisassemblers();
  works = look.driverVersion && look.hasDevice && look.assembles && look.hasNvrtc;
  reason = works ? "" : look.reason;
  return std::move(look.section);
}

} // namespace quern::tools
