// From a call's arguments to a compile request: what is fixed in the generated code, and what stays a
// run-time value.
#pragma once
#include "runtime/jit/Jit.h"
#include "runtime/launch/Kernel.h"

namespace quern {

/// The request of one call. Dimensions that only count tokens, experts or rows stay free. The schedule is the
/// one that QUERN_CPU_SCHEDULE or (other targets) QUERN_GPU_SCHEDULE names, else empty: the default.
jit::Request makeRequest(const syntax::Program &program, const syntax::Kernel &kernel, const Binding &binding,
                         const std::vector<Arg> &args, const std::string &target = "cpu");

/// Text that is equal for two requests of one program exactly when their images are.
std::string requestKey(const jit::Request &request);

} // namespace quern
