// What tuning found, as a launch sees it. How it is found: Tuner.h.
#pragma once
#include "runtime/gpu/Backend.h"
#include "runtime/jit/Jit.h"
#include <optional>
#include <string>

namespace quern::tune {

/// The device that a schedule was measured on.
struct DeviceIdentity {
  std::string name; // "NVIDIA H100 80GB HBM3"; for the CPU its model and instruction sets
  std::string arch; // "sm_90a", "cpu", "sim"
  int units = 0;    // multiprocessors, or threads
  bool operator==(const DeviceIdentity &) const = default;
};

/// The schedule that was tuned for this request on this device, checked against the request before it is
/// believed; empty when there is none (the default is used). The first answer for a key is kept for the life
/// of the process, so that all its calls give the same bits. Reads the disk at most once per key; waits for
/// nobody; measures nothing.
std::optional<std::string> tunedSchedule(const jit::Request &request, const DeviceIdentity &device);

/// An error unless the line is a legal schedule of the request's target that differs from the default in
/// nothing that changes bits. Empty (the default) is.
Status checkTunable(const jit::Request &request, std::string_view schedule);

/// This machine's processor, with the threads that a kernel uses.
DeviceIdentity cpuIdentity();
DeviceIdentity identityOf(const gpu::Backend &backend);

} // namespace quern::tune
