// See Repro.h.
#include "runtime/tune/Repro.h"
#include <fmt/format.h>

namespace quern::tune {

std::string reproOf(const Problem &p, const std::string &schedule) {
  bool cpu = p.target == "cpu";
  std::string dims;
  for (auto &[name, value] : p.dims)
    dims += fmt::format("{}{}={}", dims.empty() ? " --dim " : ",", name, value);
  return fmt::format(
      "{}quern run {} --kernel {}{} --dtype {} --quant-dtype {}{} --target {} --check",
      schedule.empty() ? ""
                       : fmt::format("{}='{}' ", cpu ? "QUERN_CPU_SCHEDULE" : "QUERN_GPU_SCHEDULE", schedule),
      p.program->fileName, p.kernel, dims, name(p.act), name(p.quant),
      p.block ? fmt::format(" --block {}", p.block) : "", p.target);
}

} // namespace quern::tune
