// The schedule record: printing, parsing, checking, and the shared memory that it asks for.
#include "codegen/gpu/Schedule.h"
#include <algorithm>
#include <charconv>
#include <fmt/ranges.h>
#include <sstream>
#include <utility>

namespace quern::gpu {
namespace {

// Of a Hopper multiprocessor (CUDA programming guide, table of compute capability 9.0).
constexpr int64_t registerFile = 65536, smemPerSm = 228 * 1024, smemReserved = 1024, smemPerCta = 227 * 1024;
// A consumer thread holds bn/2 accumulators; beside them A fragments of two k16 steps, codes, table, scales,
// addresses. ptxas wants more than that for the widest instructions: with 56 it serialises those of 192
// tokens (C7512).
constexpr int64_t otherRegs = 56, otherRegsOfWide = 64;
constexpr int64_t wgmmaRegs =
    30; // of one instruction, beside its accumulators (ptxas C7602: 158 for n = 256)
constexpr int64_t experts = 1024; // room of the tile table

int64_t alignUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }
bool within(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

Error fail(std::string message) { return Error::user(std::move(message), "schedule"); }

bool parseInteger(std::string_view text, int64_t &value) {
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size();
}

constexpr std::string_view decodeNames[] = {"exact", "fast", "pairs", "ahead"};

} // namespace

std::string_view name(Decode decode) { return decodeNames[int(decode)]; }

std::string Schedule::str() const {
  return fmt::format(
      "sm_90a bm={} bn={} stages={} cluster={} gather={} decode={} regs={}/{} ctas={} split={}", bm, bn,
      stages, cluster, gather == Gather::Sorted ? "sorted" : "fused", name(decode), regs, producerRegs, ctas,
      split);
}

Expected<Schedule> Schedule::parse(std::string_view text, const Schedule &base) {
  auto s = read(text, base);
  if (!s) return s;
  if (Status ok = s->validate(); !ok) return ok.takeError();
  return s;
}

Expected<Schedule> Schedule::read(std::string_view text, const Schedule &base) {
  Schedule s = base;
  std::istringstream in{std::string(text)};
  std::string word;
  bool first = true;
  while (in >> word) {
    size_t eq = word.find('=');
    if (std::exchange(first, false) && eq == std::string::npos) {
      if (word == "sm_90a") continue;
      return fail(fmt::format("'{}' is not sm_90a, the target of this schedule", word));
    }
    std::string key = word.substr(0, eq), value = eq == std::string::npos ? "" : word.substr(eq + 1);
    if (key == "gather") {
      if (value != "sorted" && value != "fused")
        return fail(fmt::format("gather '{}' is not one of sorted, fused", value));
      s.gather = value == "sorted" ? Gather::Sorted : Gather::Fused;
    } else if (key == "decode") {
      auto found = std::ranges::find(decodeNames, value);
      if (found == std::end(decodeNames))
        return fail(fmt::format("decode '{}' is not one of {}", value, fmt::join(decodeNames, ", ")));
      s.decode = Decode(found - std::begin(decodeNames));
    } else if (key == "regs") {
      size_t slash = value.find('/');
      if (slash == std::string::npos || !parseInteger(value.substr(0, slash), s.regs) ||
          !parseInteger(value.substr(slash + 1), s.producerRegs))
        return fail(fmt::format("field 'regs' needs CONSUMER/PRODUCER, two integers, found '{}'", value));
    } else {
      int64_t *field = key == "bm"        ? &s.bm
                       : key == "bn"      ? &s.bn
                       : key == "stages"  ? &s.stages
                       : key == "cluster" ? &s.cluster
                       : key == "ctas"    ? &s.ctas
                       : key == "split"   ? &s.split
                                          : nullptr;
      if (!field)
        return fail(fmt::format("unknown field '{}'; the fields are those of \"{}\"", key, Schedule().str()));
      if (!parseInteger(value, *field))
        return fail(fmt::format("field '{}' needs an integer, found '{}'", key, value));
    }
  }
  return s;
}

Status Schedule::validate() const {
  auto bad = [&](std::string_view field, std::string_view reason) {
    return fail(fmt::format("{}: {} (in \"{}\")", field, reason, str()));
  };
  auto few = [](int64_t value) { return value == 1 || value == 2 || value == 4 || value == 8; };
  if (bm != 64 && bm != 128 && bm != 192) return bad("bm", "must be 64, 128 or 192");
  if (bn != 8 && bn != 16 && (!within(bn, 32, 256) || bn % 32))
    return bad("bn", "must be 8, 16 or a multiple of 32 up to 256");
  if (!within(stages, 2, 16)) return bad("stages", "must be 2..16");
  if (!few(cluster)) return bad("cluster", "must be 1, 2, 4 or 8");
  if (!few(split)) return bad("split", "must be 1, 2, 4 or 8");
  if (!within(ctas, 1, 4)) return bad("ctas", "must be 1..4");
  if (!within(regs, 24, 240) || regs % 8) return bad("regs", "must be multiples of 8 in 24..240");
  if (!within(producerRegs, 24, 240) || producerRegs % 8)
    return bad("regs", "must be multiples of 8 in 24..240");
  if (producerRegs > regs) return bad("regs", "the producer may not have more than a consumer");
  if (cluster > 1 && gather == Gather::Fused)
    return bad("cluster", "rows gathered by cp.async cannot be multicast; use gather=sorted or cluster=1");
  if (cluster > 1 && split > 1)
    return bad("split", "the CTAs of a cluster share either the tokens or the range of K; use cluster=1");
  if (split > 1 && bn > 128)
    return bad("split", "a CTA would spill a peer's sums of more than 128 tokens beside its own; use bn=128");
  // What a CTA has is fixed at launch (ptxas takes what the block size and the resident CTAs allow):
  // setmaxnreg only moves registers between warpgroups, and a consumer that asks for more waits for ever.
  int64_t wanted = 128 * (consumers() * regs + producerRegs);
  int64_t pool = registerFile / ctas / threads() / 8 * 8 * threads();
  if (wanted > pool)
    return bad("regs", fmt::format("{} consumer warpgroups of {} and one of {} registers need {} of the "
                                   "register file; {} resident CTA{} of {} threads can have {}{}",
                                   consumers(), regs, producerRegs, wanted, ctas, ctas > 1 ? "s" : "",
                                   threads(), pool, ctas > 1 ? " each" : ""));
  int64_t other = bn >= 192 ? otherRegsOfWide : otherRegs;
  if (bn / 2 + other > regs)
    return bad("bn", fmt::format("{} accumulators of a thread leave less than {} of its {} registers", bn / 2,
                                 other, regs));
  // ptxas compiles all roles with the registers of the launch: a wgmma's accumulators, its A and addresses.
  if (bn / 2 + wgmmaRegs > launchRegs())
    return bad("bn",
               fmt::format("{} accumulators of a thread leave less than {} of the {} registers that it is "
                           "launched with; use fewer resident CTAs or warpgroups",
                           bn / 2, wgmmaRegs, launchRegs()));
  return checkSmem(experts, 1);
}

void Schedule::fitRegisters(bool assembles) {
  // A fused gather holds the tokens of 16 rows besides.
  int64_t producer = !assembles ? 40 : gather == Gather::Fused ? 72 : 56;
  int64_t pool = registerFile / ctas / threads() / 8 * 8 * (consumers() + 1);
  if (ctas > 1) producer = std::min<int64_t>(producer, producer > 40 ? 64 : 32);
  producerRegs = producer;
  regs = std::min<int64_t>(240, (pool - producer) / consumers() / 8 * 8);
}

int64_t Schedule::launchRegs() const { return std::min(regs, registerFile / ctas / threads() / 8 * 8); }

int64_t Schedule::smemBytes(int64_t experts, int64_t scalesPerStep, bool zero) const {
  // Of a stage: activations in 16 bits (128-byte swizzle), weights, scales or products.
  int64_t stage = bn * 64 * 2 + weightBytes() + bm * scalesPerStep * scaleBytes(zero);
  int64_t barriers = alignUp(stages * stage, 128);
  // Two mbarriers a stage, the tile table, and words for the sums of 32 warps' scan.
  int64_t pairs = decode == Decode::Pairs ? pairTableBytes : 0, exchange = split > 1 ? exchangeBytes : 0;
  return alignUp(barriers + stages * 16 + exchange + (experts + 1) * 4 + 33 * 4, 128) + pairs +
         partialBytes();
}

void Schedule::fitStages() {
  while (stages > 2 && smemBytes(experts, 1) > smemLimit()) --stages;
}

int64_t Schedule::smemLimit() const { return std::min(smemPerCta, smemPerSm / ctas - smemReserved); }

Status Schedule::checkSmem(int64_t experts, int64_t scalesPerStep, bool zero) const {
  int64_t bytes = smemBytes(experts, scalesPerStep, zero);
  if (bytes <= smemLimit()) return {};
  std::string sums = split > 1 ? fmt::format(", {} bytes of partial sums (split)", partialBytes()) : "";
  return fail(
      fmt::format("stages: {} stages{} and the table of {} expert{} need {} bytes of shared memory; {} "
                  "resident CTA{} can have {}{} (in \"{}\")",
                  stages, sums, experts, experts == 1 ? "" : "s", bytes, ctas, ctas == 1 ? "" : "s",
                  smemLimit(), ctas == 1 ? "" : " each", str()));
}

} // namespace quern::gpu
