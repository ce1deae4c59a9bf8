// The schedule record: printing, parsing, checking, and the default for each instruction set.
#include "codegen/cpu/Schedule.h"
#include <charconv>
#include <fmt/format.h>
#include <sstream>

namespace quern::cpu {

static constexpr std::string_view isaNames[] = {"x86-64", "avx2", "avx512", "avx512bf16", "amx"};
std::string_view name(Isa isa) { return isaNames[int(isa)]; }

std::optional<Isa> parseIsa(std::string_view text) {
  for (int i = 0; i < 5; ++i)
    if (text == isaNames[i]) return Isa(i);
  return std::nullopt;
}

static bool has(std::string_view features, std::string_view feature) {
  // The last mention of a feature wins, as in LLVM.
  bool on = false;
  size_t from = 0;
  while (from <= features.size()) {
    size_t comma = std::min(features.find(',', from), features.size());
    std::string_view item = features.substr(from, comma - from);
    if (item.size() > 1 && item.substr(1) == feature) on = item[0] == '+';
    from = comma + 1;
  }
  return on;
}

Isa isaOf(std::string_view features) {
  if (!has(features, "avx2") || !has(features, "fma") || !has(features, "f16c")) return Isa::Base;
  if (!has(features, "avx512f") || !has(features, "avx512bw") || !has(features, "avx512vl") ||
      !has(features, "avx512dq"))
    return Isa::Avx2;
  if (!has(features, "avx512bf16")) return Isa::Avx512;
  if (!has(features, "amx-tile") || !has(features, "amx-bf16")) return Isa::Avx512Bf16;
  return Isa::Amx;
}

Schedule defaultSchedule(Isa isa) {
  Schedule s;
  s.isa = isa;
  switch (isa) {
  case Isa::Base: break;
  case Isa::Avx2: s.lanes = 8, s.rows = 4, s.tokens = 3, s.fused = 3; break;
  case Isa::Avx512: s.lanes = 16, s.rows = 8, s.tokens = 3, s.fused = 4; break;
  case Isa::Avx512Bf16: s.lanes = 16, s.rows = 8, s.tokens = 3, s.fused = 4, s.dot = Dot::Bf16; break;
  case Isa::Amx: s.lanes = 16, s.rows = 8, s.tokens = 3, s.fused = 4, s.dot = Dot::Bf16, s.tile = 4; break;
  }
  return s;
}

std::string Schedule::str() const {
  return fmt::format(
      "cpu isa={} dot={} lanes={} rows={} tokens={} fused={} decoded={} tile={} chunk={} band={} segment={}",
      name(isa), dot == Dot::Bf16 ? "bf16" : "f32", lanes, rows, tokens, fused, decoded, tile, chunk, band,
      segment);
}

Expected<Schedule> Schedule::parse(std::string_view text, const Schedule &base) {
  Schedule s = base;
  std::istringstream in{std::string(text)};
  std::string word;
  bool first = true;
  while (in >> word) {
    if (std::exchange(first, false) && word == "cpu") continue;
    size_t eq = word.find('=');
    std::string key = word.substr(0, eq), value = eq == std::string::npos ? "" : word.substr(eq + 1);
    if (key == "isa") {
      auto found = parseIsa(value);
      if (!found)
        return Error::user(fmt::format("isa '{}' is not one of x86-64, avx2, avx512, avx512bf16, amx", value),
                           "schedule");
      s.isa = *found;
    } else if (key == "dot") {
      if (value != "bf16" && value != "f32")
        return Error::user(fmt::format("dot '{}' is not one of bf16, f32", value), "schedule");
      s.dot = value == "bf16" ? Dot::Bf16 : Dot::F32;
    } else {
      int64_t *field = key == "lanes"     ? &s.lanes
                       : key == "rows"    ? &s.rows
                       : key == "tokens"  ? &s.tokens
                       : key == "fused"   ? &s.fused
                       : key == "decoded" ? &s.decoded
                       : key == "tile"    ? &s.tile
                       : key == "chunk"   ? &s.chunk
                       : key == "band"    ? &s.band
                       : key == "segment" ? &s.segment
                                          : nullptr;
      if (!field)
        return Error::user(fmt::format("unknown field '{}'; the fields are those of \"{}\"", key, base.str()),
                           "schedule");
      auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), *field);
      if (code != std::errc() || end != value.data() + value.size())
        return Error::user(fmt::format("field '{}' needs an integer, found '{}'", key, value), "schedule");
    }
  }
  if (Status ok = s.validate(); !ok) return ok.takeError();
  return s;
}

Status Schedule::validate() const {
  auto bad = [&](std::string_view field, std::string_view legal) {
    return Error::user(fmt::format("{}: {} (in \"{}\")", field, legal, str()), "schedule");
  };
  int64_t widest = isa >= Isa::Avx512 ? 16 : isa == Isa::Avx2 ? 8 : 4;
  if (lanes != 4 && lanes != 8 && lanes != 16) return bad("lanes", "must be 4, 8 or 16");
  if (lanes != widest) return bad("lanes", fmt::format("this isa has {} lanes", widest));
  if (dot == Dot::Bf16 && isa < Isa::Avx512Bf16) return bad("dot", "bf16 needs isa avx512bf16 or amx");
  if (rows != 2 && rows != 4 && rows != 8 && rows != 16) return bad("rows", "must be 2, 4, 8 or 16");
  if (tokens < 1 || tokens > 8) return bad("tokens", "must be 1..8");
  if (rows * tokens > (isa >= Isa::Avx512 ? 28 : 12))
    return bad("rows x tokens", "accumulators would not fit the register file");
  if (fused < 0 || fused > 4) return bad("fused", "must be 0..4");
  if (decoded < 4 || decoded > 4096) return bad("decoded", "must be 4..4096 KB");
  if (tile < 0) return bad("tile", "must not be negative");
  if (tile && isa != Isa::Amx) return bad("tile", "the tile kernel needs isa amx");
  if (isa == Isa::Amx && dot != Dot::Bf16) return bad("isa", "amx multiplies bf16; use dot=bf16");
  if (chunk < 1 || chunk > 64) return bad("chunk", "must be 1..64");
  if (band < 32 || band > 1024 || band % 32) return bad("band", "must be a multiple of 32 up to 1024");
  if (segment < 16 || segment > 4096 || segment % 16)
    return bad("segment", "must be a multiple of 16 in 16..4096");
  return {};
}

} // namespace quern::cpu
