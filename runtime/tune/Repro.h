// The command that repeats what a candidate did.
#pragma once
#include "runtime/tune/Tuner.h"

namespace quern::tune {

/// "QUERN_CPU_SCHEDULE='...' quern run FILE --kernel NAME --dim ... --check".
std::string reproOf(const Problem &problem, const std::string &schedule);

} // namespace quern::tune
