// What the CPU target may choose: one printable line, the only thing a tuner varies. None of it changes which
// weights are decoded or how they are rounded; `dot` and `lanes` change the order of the fp32 sums, so they
// belong to the image's identity.
#pragma once
#include "compiler/support/Error.h"
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quern::cpu {

/// Instruction sets in ascending order; each includes the ones before it.
enum class Isa : uint8_t { Base, Avx2, Avx512, Avx512Bf16, Amx };
std::string_view name(Isa isa); // "x86-64", "avx2", "avx512", "avx512bf16", "amx"
std::optional<Isa> parseIsa(std::string_view text);

/// The highest Isa that the comma-separated LLVM feature list ("+avx2,-amx-tile,...") supports.
Isa isaOf(std::string_view features);

/// How products are formed: bf16 pairs accumulated in fp32 (vdpbf16ps, tdpbf16ps), or fp32 fused
/// multiply-add.
enum class Dot : uint8_t { F32, Bf16 };

struct Schedule {
  Isa isa = Isa::Base;
  Dot dot = Dot::F32;    // for bf16 operands; contractions with an fp32 operand always use F32
  int64_t lanes = 4;     // fp32 lanes of a vector: 4, 8, 16
  int64_t rows = 4;      // weight rows of one register block
  int64_t tokens = 2;    // tokens of one register block
  int64_t fused = 2;     // up to this many tokens, weights are decoded in registers and never stored
  int64_t decoded = 24;  // KB of decoded weights that stay in L1 while all tokens pass over them
  int64_t tile = 0;      // from this many tokens on, the AMX tile kernel; 0: never
  int64_t chunk = 5;     // K blocks of 64 decoded to L1 at a time by the tile kernel
  int64_t band = 32;     // contraction columns of one task step: a multiple of 32
  int64_t segment = 512; // longest run of rows handled at once

  bool operator==(const Schedule &) const = default;
  /// "cpu isa=avx512bf16 dot=bf16 lanes=16 rows=8 tokens=3 fused=4 decoded=32 tile=0 chunk=5 band=32
  /// segment=512"
  std::string str() const;
  /// Parses a whole or partial line (missing fields keep the values of `base`); errors name the field and
  /// what is legal.
  static Expected<Schedule> parse(std::string_view text, const Schedule &base);
  /// Illegal combinations are user errors with a reason.
  Status validate() const;
};

/// The guess for a machine: what facts and measurements say (codegen/README.md).
Schedule defaultSchedule(Isa isa);

} // namespace quern::cpu
