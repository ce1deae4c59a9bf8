// What a GPU kernel may choose: one printable line, the only thing a tuner varies. See codegen/README.md.
#pragma once
#include "compiler/support/Error.h"
#include <cstdint>
#include <string>
#include <string_view>

namespace quern::gpu {

/// Where the activations of a tile come from.
enum class Gather : uint8_t {
  Sorted, // rows in routing order through one tensor map (TMA, multicast in a cluster); gathered beforehand
  Fused,  // the kernel gathers rows by token with cp.async
};

enum class Decode : uint8_t {
  Exact, // the 16 products of a block in fp32, rounded as bitsandbytes does, in shared memory by the
         // producer; codes select among them
  Fast,  // bf16 table entry times bf16 scale: may differ in the last bit
  Pairs, // exact too: a byte of codes indexes a table of fp32 pairs in shared memory; fewer ALU operations,
         // more shared-memory reads, 64 KB
  Ahead, // exact too: a kernel before this one decodes all weights of the experts that have rows into memory,
         // as A fragments; stages hold those, 4 times as large, and the multiply loop decodes nothing
};
std::string_view name(Decode decode);

struct Schedule {
  int64_t bm = 128;    // weight rows of a CTA tile: 64 per consumer warpgroup
  int64_t bn = 256;    // most tokens of a tile; the ladder holds the multiples of 32 (of 8 up to 32) below
  int64_t stages = 5;  // shared-memory stages of 64 columns of K
  int64_t cluster = 1; // CTAs along the weight dimension that share a token tile by multicast
  Gather gather = Gather::Sorted;
  Decode decode = Decode::Exact;
  int64_t regs = 232, producerRegs = 40; // setmaxnreg of consumer and producer warpgroups
  int64_t ctas = 1;                      // resident CTAs per multiprocessor
  int64_t split = 1; // CTAs of a cluster that share the K range of a tile; partial sums added in rank order

  bool operator==(const Schedule &) const = default;
  int64_t consumers() const { return bm / 64; }
  int64_t threads() const { return 128 * (consumers() + 1); }

  /// "sm_90a bm=128 bn=256 stages=5 cluster=2 gather=sorted decode=exact regs=232/40 ctas=1 split=1"
  std::string str() const;
  /// Parses a whole or partial line (missing fields keep the values of `base`); errors name the field and
  /// what is legal.
  static Expected<Schedule> parse(std::string_view text, const Schedule &base);
  /// The same without validate(): for a caller that still adjusts fields.
  static Expected<Schedule> read(std::string_view text, const Schedule &base);
  /// Illegal combinations are user errors with a reason (register file, shared memory, cluster and gather).
  Status validate() const;
  /// The register budgets that go with the other fields: as many for the consumers as the register file has.
  /// `assembles`: the producer does more than issue copies and multiply scales (Plan::assembles), which needs
  /// more.
  void fitRegisters(bool assembles);
  /// Registers of a thread at launch: what the block size and the resident CTAs allow, but no more than a
  /// consumer asks for (ptxas takes that much of a kernel with setmaxnreg). Never more than `regs`, nor less
  /// than `producerRegs` in a legal schedule.
  int64_t launchRegs() const;
  static constexpr int64_t exchangeBytes = 16; // two mbarriers of a split
  /// Where a CTA leaves its partial sums of a tile for the first CTA of its cluster.
  int64_t partialBytes() const { return split > 1 ? bm * bn * 4 : 0; }
  static constexpr int64_t pairTableBytes = 256 * 32 * 8; // 256 pairs, a copy for each lane
  /// Of a stage: what the weights of 64 columns take, codes or (decode=ahead) 16-bit values, without scales.
  int64_t weightBytes() const { return bm * (decode == Decode::Ahead ? 128 : 32); }
  /// Dynamic shared memory of a CTA for `experts` experts' tile table, in bytes (Plan of Facts.h places it).
  /// `scalesPerStep`: scales of a weight row in a step of 64 columns; `zero`: each with a zero point.
  int64_t smemBytes(int64_t experts, int64_t scalesPerStep, bool zero = false) const;
  /// As many stages as fit, at most as many as there are.
  void fitStages();
  /// Bytes of a stage for each weight row and scale: the scale and zero point as fp32, or (decode=exact) the
  /// 16 products in 16 bits; none for weights that were decoded before.
  int64_t scaleBytes(bool zero) const {
    return decode == Decode::Ahead ? 0 : decode == Decode::Exact ? 32 : zero ? 8 : 4;
  }
  /// The most that a CTA may use so that `ctas` are resident.
  int64_t smemLimit() const;
  /// A user error with the sizes when smemBytes exceeds smemLimit.
  Status checkSmem(int64_t experts, int64_t scalesPerStep, bool zero = false) const;
};

} // namespace quern::gpu
