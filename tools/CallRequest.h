// The compile request of a call that is only described: what `quern compile` and `quern explain` start from.
#pragma once
#include "compiler/syntax/Syntax.h"
#include "runtime/jit/Jit.h"
#include "tools/Options.h"

namespace quern::tools {

/// Whether the options of a call name its tokens (of a dense kernel: its rows).
bool saysTokens(const syntax::Kernel &kernel, const oracle::GenerateOptions &call);

/// The request of a call with contiguous tensors of these options, made without any data. Dimensions that the
/// options leave open are chosen, and named on standard error.
Expected<jit::Request> requestFor(const syntax::Program &program, const syntax::Kernel &kernel,
                                  const CallOptions &options);

} // namespace quern::tools
