// All of a device call that does not change from one training step to the next, flattened: two calls with
// equal signatures differ only in the addresses of their tensors, the contents of routings, and scalars.
#pragma once
#include "runtime/launch/Kernel.h"
#include <cstdint>
#include <string>
#include <vector>

namespace quern {

/// Words in a fixed order; compared whole, so that a hash that collides gives no wrong answer.
using CallSignature = std::vector<int64_t>;

/// Writes the signature of a call of `kernel` into `out` (kept by the caller, so that a launch allocates
/// nothing): `owner` (the device), kernel, schedule; of a tensor dtype, sizes, strides, and whether its
/// address is null or unaligned; of a packed operand everything down to each expert's addresses; of a routing
/// its sizes.
void describeCall(CallSignature &out, const void *owner, const syntax::Kernel &kernel,
                  const std::vector<Arg> &args, const std::string &schedule);

struct CallSignatureHash {
  size_t operator()(const CallSignature &signature) const;
};

} // namespace quern
