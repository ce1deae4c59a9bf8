// Schedules for the CPU. isa, dot, lanes and tile change the order of the fp32 sums, so they stay the
// default's; with the tile kernel, segment decides which rows it takes, so then that stays too. The rest does
// not reach the bits: one accumulator per output element, K ascending (codegen/README.md).
#include "runtime/tune/CpuSpace.h"
#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace quern::tune {
namespace {

using cpu::Schedule;

int64_t divUp(int64_t value, int64_t by) { return (value + by - 1) / by; }

} // namespace

CpuPrediction predictCpu(const Schedule &s, const Shape &shape) {
  // Assumed: 3 GHz; two multiply-adds and two loads a clock; per vector of weights 7 clocks to decode, 1 to
  // store; 32 KB of L1, beyond which loads cost half as much again; 6 GB/s of memory a thread; 3 us to take a
  // task. Only the ratios of schedules matter.
  constexpr double clocksPerUs = 3e3, decodeClocks = 7, storeClocks = 1, l1KB = 32, slowLoads = 1.5;
  constexpr double bytesPerUsThread = 6e3, taskUs = 3;
  double threads = double(std::max<int64_t>(1, shape.units));
  double perVector = double(s.lanes) * (s.dot == cpu::Dot::Bf16 ? 2 : 1);
  double vectors = double(shape.n) * double(shape.k) / perVector;
  int64_t rows = std::max<int64_t>(1, shape.meanRows());
  double used = double(std::min<int64_t>(shape.experts, std::max<int64_t>(1, shape.rows)));
  double r = double(rows), decode = decodeClocks, multiply = 0;
  if (rows <= s.fused) {
    multiply = r * (0.5 + 0.5 / double(s.rows)); // an activation is loaded once for `rows` weight rows
  } else {
    decode += storeClocks;
    double groups = double(divUp(rows, s.tokens));
    double loads = groups * (double(s.rows + s.tokens) / double(s.rows)) * 0.5;
    multiply = std::max(groups * double(s.tokens) * 0.5, loads * (double(s.decoded) > l1KB ? slowLoads : 1));
    // Between two chunks of decoded weights every accumulator goes to memory and back.
    double chunkColumns = double(s.decoded) * 1024 / (32 * (s.dot == cpu::Dot::Bf16 ? 2 : 4));
    multiply += r * 2 / std::max(1.0, chunkColumns / perVector);
  }
  double bands = double(divUp(shape.n, s.band)), segments = used * double(divUp(rows, s.segment));
  double tasks = bands * segments, rounds = std::ceil(tasks / threads);
  double computeUs = vectors * used * (decode + multiply) / clocksPerUs / tasks * rounds;
  double tasksUs = rounds * taskUs;
  double bytes =
      used * (double(shape.n) * double(shape.k) * (0.5 + double(shape.scaleBytes) / double(shape.block)));
  double memoryUs = bytes / (bytesPerUsThread * threads);
  CpuPrediction p;
  p.us = std::max(computeUs, memoryUs) + tasksUs;
  p.limiter = memoryUs > computeUs  ? "memory"
              : tasksUs > computeUs ? "tasks"
              : decode > multiply   ? "decode"
                                    : "multiply";
  return p;
}

std::vector<Candidate> cpuSpace(const Shape &shape, std::string_view features) {
  const Schedule base = cpu::defaultSchedule(cpu::isaOf(features));
  std::vector<int64_t> chunks{base.chunk}, segments{base.segment};
  if (base.tile)
    chunks = {3, 5, 8};
  else
    segments = {128, base.segment};
  std::vector<Candidate> space;
  for (int64_t rows : {2, 4, 8, 16})
    for (int64_t tokens : {1, 2, 3, 4, 6})
      for (int64_t fused : {1, 2, 4})
        for (int64_t decoded : {16, 24, 48})
          for (int64_t band : {32, 64, 128, 256})
            for (int64_t chunk : chunks)
              for (int64_t segment : segments) {
                Schedule s = base;
                s.rows = rows, s.tokens = tokens, s.fused = fused, s.decoded = decoded, s.band = band;
                s.chunk = chunk, s.segment = segment;
                if (s == base) continue;
                Candidate c;
                c.schedule = s.str();
                if (Status ok = s.validate(); !ok) {
                  c.verdict = Verdict::Illegal, c.reason = ok.error().message;
                } else {
                  CpuPrediction p = predictCpu(s, shape);
                  c.predictedUs = p.us, c.limiter = p.limiter;
                  c.reason = fmt::format("{:.1f} us expected, bound by {}", p.us, p.limiter);
                }
                space.push_back(std::move(c));
              }
  return space;
}

Status checkCpuTunable(std::string_view features, std::string_view schedule) {
  const Schedule base = cpu::defaultSchedule(cpu::isaOf(features));
  auto s = Schedule::parse(schedule, base);
  if (!s) return s.takeError();
  auto fixed = [&](bool same, std::string_view field) -> Status {
    if (same) return {};
    return Error::user(
        fmt::format("{} changes the order of the sums; the default is \"{}\"", field, base.str()),
        "schedule");
  };
  if (Status ok = fixed(s->isa == base.isa && s->lanes == base.lanes, "isa"); !ok) return ok;
  if (Status ok = fixed(s->dot == base.dot, "dot"); !ok) return ok;
  if (Status ok = fixed(s->tile == base.tile, "tile"); !ok) return ok;
  return fixed(!base.tile || s->segment == base.segment, "segment with tile");
}

} // namespace quern::tune
