// normalize() with a location, for the checks.
#pragma once
#include "compiler/syntax/Check.h"
#include "compiler/syntax/NormalForm.h"

namespace quern::syntax {

/// Fills `result`; a failure has the rule index.compose.
std::optional<Failure> normalizeKernel(const Program &program, const Kernel &kernel, NormalKernel &result);

} // namespace quern::syntax
