// What a call fixes about a GPU kernel: the `facts` of a qtile.program, as a record.
#pragma once
#include "codegen/dialect/Qtile.h"
#include "codegen/gpu/Schedule.h"
#include "compiler/syntax/Ast.h"
#include "runtime/jit/GpuImage.h"

namespace quern::gpu {

/// How output columns take weight rows.
enum class Pairing : uint8_t {
  None,        // column n takes row n
  Interleaved, // column j takes rows 2j and 2j + 1 (gpt-oss gate and up)
  Halved,      // column j takes rows j and j + N/2 (Qwen3, Mixtral)
};

struct Facts {
  int64_t n = 0, k = 0;      // the packed operand: weight rows, reduced columns
  int packed = -1, lhs = -1; // operands
  Pairing pairing = Pairing::None;
  bool routed = true;   // a routing: rows are sorted by expert
  bool byExpert = true; // the packed operand has an expert dimension
  bool byToken = false; // the activations are gathered by token
  DType act = DType::BF16, state = DType::BF16;
  int64_t block = 64;
  syntax::ScaleType scale = syntax::ScaleType::F32;
  bool zero = false, highFirst = true;
  std::array<float, 16> table{};

  int64_t steps() const { return (k + 63) / 64; }
  int64_t weightTiles(const Schedule &s) const { return (n + s.bm - 1) / s.bm; }
  /// Whole 64 x 64 blocks everywhere: codes go by bulk copies.
  bool alignedCodes() const {
    return n % 64 == 0 && k % 64 == 0 && (pairing != Pairing::Halved || n % 128 == 0);
  }
  /// One fp32 scale per row and step, stored [K/64][N]: scales go by bulk copies.
  bool alignedScales() const {
    return alignedCodes() && block == 64 && scale == syntax::ScaleType::F32 && !zero;
  }
  /// Scales of a row within 64 columns. K and blocks are multiples of 32, so a run of 32 columns has one.
  int64_t scalesPerStep() const { return block % 64 == 0 && k % 64 == 0 ? 1 : 2; }

  mlir::DictionaryAttr attribute(mlir::MLIRContext *context) const;
  static Facts of(mlir::DictionaryAttr attribute);
};

/// A program's choices and facts, and where things lie in its shared memory (bytes from its start).
struct Plan {
  Schedule schedule;
  Facts facts;
  explicit Plan(mlir::qtile::ProgramOp program);
  Plan(Schedule s, Facts f) : schedule(s), facts(std::move(f)) { place(); }

  int64_t xBytes = 0, codeBytes = 0, scaleBytes = 0; // of one stage
  int64_t codes = 0, scales = 0, barriers = 0, exchange = 0, table = 0, scratch = 0, pairs = 0, partial = 0;
  int64_t end = 0;
  int64_t boxRows = 32;
  static constexpr int64_t maxExperts = 1024;

  /// The weights were decoded before: stages hold A fragments and no scales.
  bool ahead() const { return schedule.decode == Decode::Ahead; }
  /// The producer's threads store scales or products; else, if there are scales, bulk copies bring them.
  bool storesScales() const {
    return !ahead() && (schedule.decode == Decode::Exact || !facts.alignedScales());
  }
  /// The producer assembles rows, codes or scales that no bulk copy brings: it needs registers for that.
  bool assembles() const { return schedule.gather == Gather::Fused || !(ahead() || facts.alignedScales()); }
  /// The producer's 128 threads all take part (not one thread alone).
  bool wideProducer() const { return schedule.gather == Gather::Fused || storesScales(); }
  int64_t fullArrivals() const { return 1 + (wideProducer() ? 128 : 0); }
  int64_t emptyArrivals() const { return schedule.consumers() * 4 * schedule.cluster; }
  /// Of the two barriers at `exchange` (split): the peers' sums are there; this CTA's were read.
  int64_t readyArrivals() const { return (schedule.split - 1) * schedule.consumers() * 4; }
  int64_t takenArrivals() const { return schedule.consumers() * 4; }
  /// Doubling from 8 up to bn = 32, else multiples of 32. Multiples of 16 above 160 were tried: no faster
  /// (such a step is bound by the decode), and half as much code again.
  std::vector<int64_t> widths() const;
  /// Steps that a fused gather's copies may be in flight before their stage is handed over. Consumers keep a
  /// stage until they have opened the next one: both must be handed over without a further one.
  int64_t gatherLag() const { return std::min<int64_t>(2, schedule.stages - 2); }

private:
  void place();
};

/// The block argument for a parameter, or null.
mlir::Value findParam(mlir::qtile::ProgramOp program, jit::GpuParam::Kind kind, int operand = -1,
                      int index = 0);
std::string paramText(const jit::GpuParam &param);
jit::GpuParam parseParam(llvm::StringRef text);
/// The type of the program's block argument for it.
mlir::Type paramType(mlir::MLIRContext *context, jit::GpuParam::Kind kind);

} // namespace quern::gpu
