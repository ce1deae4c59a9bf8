// A scheduled `quern.kernel` becomes two functions of the `instr` stage, `<kernel>_prepare` and
// `<kernel>_main` (signatures: Jit.h), and the module attribute `quern.image` with what the launcher must
// know.
#pragma once
#include "codegen/cpu/Problem.h"
#include "compiler/dialect/Quern.h"
#include "compiler/support/Error.h"

namespace quern::cpu {

/// What the launcher reads from `quern.image`; see jit::CpuImage.
struct ImageFacts {
  int64_t bands = 0, workBytesPerRow = 0, scratchBytes = 0, maxSegmentRows = 0, prepareMinRows = 0;
  bool ordered = false, denormalScales = false;
  Isa isa = Isa::Base; // what the code was generated for
};

/// Generates both functions into `module`.
ImageFacts generateKernel(mlir::ModuleOp module, mlir::quern::KernelOp kernel, const Problem &problem);

/// To and from the module attribute.
void setImageFacts(mlir::ModuleOp module, mlir::StringRef kernel, const ImageFacts &facts);
std::optional<ImageFacts> getImageFacts(mlir::ModuleOp module);

} // namespace quern::cpu
