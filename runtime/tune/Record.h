// Tuning results in the cache: entries of kind "tuning", which lie there as JSON files (runtime/cache).
#pragma once
#include "runtime/cache/Store.h"
#include "runtime/tune/Tuner.h"

namespace quern::tune {

/// What a result holds for: the image's key without its schedule, the device, the rows of an expert, and how
/// was measured. `request` has an empty schedule.
cache::Key tuningKey(const jit::Request &request, const DeviceIdentity &device, Policy policy);

/// Nothing when there is none that can be believed: its schedule must be in the space of the request, or one
/// warning says why it is not used.
std::optional<Result> findRecord(cache::Store &store, const cache::Key &key, const jit::Request &request);

/// Publishes the result under its key; returns the record that is there afterwards: its own, or the one that
/// another process published first. Without a cache, its own.
Result keepRecord(cache::Store &store, const Result &result, const jit::Request &request);

} // namespace quern::tune
