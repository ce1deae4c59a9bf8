// gpu::Timer on CUDA events.
#pragma once
#include "runtime/driver/Driver.h"
#include "runtime/gpu/Timer.h"

namespace quern::driver {

/// Of `device` with its primary context. The driver must outlive it.
Expected<std::unique_ptr<gpu::Timer>> makeCudaTimer(const Driver &driver, cuda::Context context,
                                                    cuda::Device device, const std::string &place);

} // namespace quern::driver
