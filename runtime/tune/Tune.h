// tune() with its parts given, for tests.
#pragma once
#include "runtime/cache/Store.h"
#include "runtime/tune/Measurer.h"

namespace quern::tune {

Expected<Result> tuneWith(const Problem &problem, const Options &options, Measurer &measurer,
                          cache::Store &store, const ProgressFn &progress = {});

} // namespace quern::tune
