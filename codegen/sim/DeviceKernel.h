// Quern's own device code (kernels/*.cu) for the simulator. The build compiles it to LLVM IR with clang and
// embeds the text (kernels/CMakeLists.txt); here a kernel of it is split and compiled for the host at its
// first use.
#pragma once
#include "compiler/support/Error.h"
#include "runtime/sim/Sim.h"
#include "llvm/ADT/ArrayRef.h"
#include <string_view>

namespace quern::sim {

/// The kernel `name` of kernels/*.cu as sim::Launch::entry; valid until the process ends. `symbols` are
/// sim::symbols(). An unknown name is an internal error. Thread safe.
Expected<void (*)(void **params)> deviceKernel(std::string_view name, llvm::ArrayRef<Symbol> symbols);

} // namespace quern::sim
