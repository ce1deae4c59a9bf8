// Checks of single arguments that need no signature.
#pragma once
#include "runtime/launch/Kernel.h"

namespace quern {

/// What tells codec `found` from `expected` ("table[3] is 0.5; expected 0.25"), or "". Names and default
/// block sizes do not matter: the operand brings its own block size.
std::string codecDifference(const syntax::Codec &found, const syntax::Codec &expected);

/// Offsets ascend from 0 to at most R = tokens * topK, and live rows name tokens. O(E + R): kernels follow
/// both blindly, and a caller may have written to them. Of a device routing only the sizes are checked. User
/// errors name `argument`.
Status checkRouting(const RoutingView &routing, std::string_view argument);

} // namespace quern
