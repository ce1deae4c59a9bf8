// gpu::Backend on a CUDA device. cudaBackend() (runtime/gpu/Backend.h) is what callers use; this is its part
// that takes a driver, for tests.
#pragma once
#include "runtime/driver/Driver.h"
#include "runtime/gpu/Backend.h"
#include <memory>

namespace quern::driver {

/// A backend of its own on device `ordinal` of `driver`, which must outlive it. User errors: no such device.
Expected<std::unique_ptr<gpu::Backend>> makeCudaBackend(const Driver &driver, int ordinal);

} // namespace quern::driver
