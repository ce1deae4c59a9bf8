// What every K loop of a consumer warpgroup does: waits for a stage, wgmmas on it, its release.
#pragma once
#include "codegen/gpu/Emitter.h"
#include "codegen/gpu/Facts.h"

namespace quern::gpu {

/// Emits the steps of one loop, for tiles of `width` tokens (8 to 256): `width` / 2 fp32 sums in a thread.
class Consumer {
public:
  /// At the start of the tile, outside of the loop.
  Consumer(Emitter &e, const Plan &plan, int64_t width);

  /// Waits until the stage is filled.
  void open(const Slot &slot);
  /// sums += A x slice `slice` (16 columns) of the stage's tokens, A in four registers, as one wgmma group.
  /// The fence before it ties the registers to it (ptxas C7519).
  void multiply(llvm::SmallVectorImpl<Value> &sums, ValueRange a, Value stage, int slice);
  /// At most `pending` wgmma groups are still at work.
  void wait(llvm::SmallVectorImpl<Value> &sums, int pending);
  /// Each warp says that it is done with the stage, to every CTA whose copies may land in it; `condition` is
  /// uniform in the warp.
  void release(Value stage, Value condition = {});

private:
  Value descriptor(Value stage, int slice);

  Emitter &e;
  const Plan &plan;
  int64_t width;
  Value firstDescriptor; // low word, of stage 0
};

} // namespace quern::gpu
