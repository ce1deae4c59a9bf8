// Normal form -> `quern` dialect: the step from plain C++ to MLIR.
#pragma once
#include "compiler/dialect/Quern.h"
#include "compiler/syntax/NormalForm.h"
#include "mlir/IR/OwningOpRef.h"

namespace quern {

/// Registers and loads the dialects that emitQuern uses.
void loadEmitDialects(mlir::MLIRContext &context);

/// A module with the codecs that the kernel's packed parameters name (in order of first use) and the kernel.
/// Locations are those of the source (`program.fileName`). Constants are folded; nothing else is changed. The
/// result is not verified: a caller that runs a pass manager or prints gets that from MLIR, others call
/// mlir::verify.
mlir::OwningOpRef<mlir::ModuleOp> emitQuern(mlir::MLIRContext &context, const syntax::Program &program,
                                            const syntax::NormalKernel &kernel);

} // namespace quern
