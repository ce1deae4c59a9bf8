// What a problem fixes: dimensions, the compile request, the options of its generated data.
#pragma once
#include "runtime/oracle/Generate.h"
#include "runtime/tune/Tuner.h"

namespace quern::tune {

Expected<const syntax::Kernel *> kernelOf(const Problem &problem);
/// Of the timed data, in the target's layout; routing is uniform.
Expected<oracle::GenerateOptions> generateOptions(const Problem &problem, uint64_t seed);
/// "cpu", "sim" or "sm_90a".
std::string archOf(const Problem &problem);
/// Rows of an expert, rounded up to a power of two.
int64_t bucketOf(int64_t rows, int64_t experts);

} // namespace quern::tune
