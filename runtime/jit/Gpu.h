// GPU targets of the compiler library: sm_90a (PTX, cubin) and sim (the same program as host code).
#pragma once
#include "runtime/jit/Jit.h"

namespace quern::jit {

Expected<GpuImage> compileGpu(const Request &request);
/// Stages quern, scheduled, tile, instr, llvm (after LLVM's NVPTX pipeline), ptx, cubin (its disassembly or
/// ptxas' report is not text: the bytes); tile, instr, llvm and ptx can be read back.
Expected<std::string> emitGpu(const EmitRequest &request);
const SimLibrary &theSimLibrary();

} // namespace quern::jit
