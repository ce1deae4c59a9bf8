// The oracle's answer for a few tokens of a large call: the same weights, those tokens, their rows.
#pragma once
#include "runtime/tune/Data.h"

namespace quern::tune {

/// Tokens that are looked at, spread over the call.
inline constexpr int64_t sampledTokens = 8;

/// Empty when the kernel's parameters cannot be cut by tokens (a dimension is a multiple of T or R).
Expected<Reference> sampleOf(const syntax::Program &program, const syntax::Kernel &kernel,
                             const std::vector<Arg> &args, const Binding &binding);

/// The rows of a contiguous tensor, copied to `storage`; zeros for -1.
TensorView gatherRows(const TensorView &from, const std::vector<int64_t> &rows,
                      std::vector<std::byte> &storage);

} // namespace quern::tune
