// The GPU passes, in the order of the pipeline (codegen/Pipeline.cpp).
#pragma once
#include "mlir/Pass/Pass.h"
#include <memory>

namespace quern::gpu {

std::unique_ptr<mlir::Pass> createGenerateTilePass();
std::unique_ptr<mlir::Pass> createExpandTilesPass();
std::unique_ptr<mlir::Pass> createExpandRolesPass();
std::unique_ptr<mlir::Pass> createExpandConsumePass();
std::unique_ptr<mlir::Pass> createExpandProducePass();
std::unique_ptr<mlir::Pass> createExpandDrainPass();
std::unique_ptr<mlir::Pass> createExpandMultiplyPass();
std::unique_ptr<mlir::Pass> createExpandReducePass();
std::unique_ptr<mlir::Pass> createExpandTablesPass();
std::unique_ptr<mlir::Pass> createExpandArrangePass();
std::unique_ptr<mlir::Pass> createExpandDecodePass();
std::unique_ptr<mlir::Pass> createExpandDecodePairsPass();
std::unique_ptr<mlir::Pass> createExpandFragmentsPass();
std::unique_ptr<mlir::Pass> createExpandEpiloguePass();
std::unique_ptr<mlir::Pass> createExpandTailPass();
std::unique_ptr<mlir::Pass> createExpandSetupPass();
std::unique_ptr<mlir::Pass> createLowerProgramPass();

} // namespace quern::gpu
