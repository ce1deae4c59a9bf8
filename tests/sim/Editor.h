// What faults are planted with: finding primitives of a program by what they touch, and changing them.
#pragma once
#include "codegen/gpu/Emitter.h"
#include "codegen/gpu/Facts.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/BuiltinOps.h"
#include <string>

namespace quern::simtest {

/// What lies at an address of shared memory (gpu::Plan).
enum class Area { None, X, Codes, Scales, Full, Empty, Ready, Taken, Table, Scratch };

/// A module with one program, between two passes. Every change is counted: a fault that finds nothing to
/// change is a fault of the test.
class Editor {
  mlir::OpBuilder builder;
  std::unique_ptr<gpu::Emitter> emitter;
  int changes = 0;

public:
  mlir::ModuleOp module;
  mlir::qtile::ProgramOp program;
  gpu::Plan plan;
  explicit Editor(mlir::ModuleOp module);

  int changed() const { return changes; }
  /// Builds before `op`.
  gpu::Emitter &before(mlir::Operation *op);

  template <class Op> std::vector<Op> all() {
    std::vector<Op> found;
    module.walk([&](Op op) { found.push_back(op); });
    return found;
  }
  /// Primitives whose name starts so, in program order; with an area, those whose first operand lies in it.
  std::vector<mlir::qtile::PrimOp> prims(mlir::StringRef prefix, Area area = Area::None);
  std::vector<mlir::LLVM::CallIntrinsicOp> intrinsics(mlir::StringRef name);
  Area areaOf(mlir::Value address) const;
  mlir::Value param(jit::GpuParam::Kind kind, int operand = -1);
  /// Plain loads whose address is formed from `base` (a parameter) or lies in an area.
  std::vector<mlir::LLVM::LoadOp> loadsFrom(mlir::Value base);
  std::vector<mlir::LLVM::LoadOp> loadsFrom(Area area);

  /// The primitive is gone; what passed through it passes by.
  void drop(mlir::Operation *op);
  void drop(const std::vector<mlir::qtile::PrimOp> &ops);
  void set(mlir::Operation *op, unsigned operand, mlir::Value value);
  void rename(mlir::qtile::PrimOp op, const std::string &name);
  /// Counts a change that was made otherwise.
  void count() { ++changes; }
};

/// Whether the op is in a loop over steps (not only in the loop over tiles).
bool inStepLoop(mlir::Operation *op);
/// The constant an integer value is, or nothing.
std::optional<int64_t> constantOf(mlir::Value value);

} // namespace quern::simtest
