// The key of an image, and what it is made of. Images.h has imageKey().
#pragma once
#include "runtime/cache/Key.h"
#include "runtime/jit/Jit.h"

namespace quern {

/// The parts of the program that make this kernel, printed: its codecs and functions sorted by name, then the
/// kernel. Comments, spacing, the file's name and other kernels are not in it.
std::string kernelText(const syntax::Program &program, const std::string &kernel);

/// The request with nothing left to be resolved: the CPU's features are written out.
jit::Request resolved(const jit::Request &request);

/// imageKey() of a resolved request, with this text for the assembler (only on "sm_90a").
cache::Key imageKeyWith(const jit::Request &request, const std::string &ptxas);
/// The same without the assembler's field: what images of all assemblers share.
cache::Key imageKeyWithoutTool(const jit::Request &request);

} // namespace quern
