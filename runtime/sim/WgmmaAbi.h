// Between the wgmma primitives and what they do.
#pragma once
#include <cstdint>

namespace quern::sim {

struct Cta;
struct Thread;
struct Warpgroup;
struct WgmmaOp;

/// The checks at issue; `threads` are the 128 of the warpgroup.
void checkUniform(const Thread *threads);
void checkFencedRegisters(const Thread &thread);
void checkReads(Cta &cta, unsigned group, const WgmmaOp &op);
/// All 128 threads have brought their operands.
void issueWgmma(Cta &cta, unsigned group);
/// Warp `quarter` of the warpgroup waited for the commit groups below `groups`.
void retireWgmma(Cta &cta, unsigned group, unsigned quarter, uint32_t groups);
/// The operation with these 13 bits of its serial number, or null.
WgmmaOp *findOp(Warpgroup &group, uint32_t serial);
/// The value that a token stands for.
float resolve(Warpgroup &group, const Thread &thread, uint32_t tokenBits);

} // namespace quern::sim
