// The measurer that is used: a worker process for the device, and more of them to compile.
#pragma once
#include "runtime/tune/Child.h"
#include "runtime/tune/Measurer.h"

namespace quern::tune {

/// Seconds without a word from the worker until it is taken for hung.
struct Limits {
  double start = 60, open = 900, compile = 300, run = 60, sample = 30;
};

class ProcessMeasurer final : public Measurer {
  Problem problem;
  Options options;
  Limits limits;
  Child child;
  bool opened = false;

  /// A worker with the problem, and (if it was opened before) its data.
  Status ready();
  protocol::Json problemCommand() const;
  protocol::Json openCommand(bool selfCheck) const;
  /// Why a question was not answered, as the failure of a schedule.
  Failure failureOf(const Reply &reply, const std::string &schedule, double limit) const;

public:
  ProcessMeasurer(Problem problem, Options options, std::string executable, Limits limits = {});
  Expected<DeviceIdentity> device() override;
  Status open() override;
  void compile(const std::vector<std::string> &schedules, const ProgressFn &progress) override;
  Checked check(const std::string &schedule, const std::vector<std::string> &expected) override;
  Round round(const std::vector<std::string> &schedules, Skew skew) override;
};

} // namespace quern::tune
