// Schedules for Hopper. Every field here is one that the kernels' sums do not depend on: `split` changes the
// order of additions and decode=fast the weights' last bit, so neither is in the space.
#include "runtime/tune/GpuSpace.h"
#include "codegen/gpu/CostModel.h"
#include <algorithm>
#include <fmt/format.h>

namespace quern::tune {
namespace {

using gpu::Schedule;

/// 64 x 64 blocks and one fp32 scale a step: bulk copies do everything (gpu::Facts::alignedScales).
bool aligned(const Shape &s) {
  return s.n % 64 == 0 && s.k % 64 == 0 && (!s.halved || s.n % 128 == 0) && s.block == 64 &&
         s.scaleBytes == 4 && !s.zero;
}

/// As gpu::Plan::assembles has it.
bool assembles(const Schedule &s, const Shape &shape) {
  return s.gather == gpu::Gather::Fused || (s.decode != gpu::Decode::Ahead && !aligned(shape));
}

/// Without the register budget, which follows from the other fields (gpu::fitRegisters).
std::string line(const Schedule &s) {
  return fmt::format("sm_90a bm={} bn={} stages={} cluster={} gather={} decode={} ctas={}", s.bm, s.bn,
                     s.stages, s.cluster, s.gather == gpu::Gather::Sorted ? "sorted" : "fused",
                     gpu::name(s.decode), s.ctas);
}

Status check(const Schedule &s, const Shape &shape) {
  if (shape.halved && s.bm != 128)
    return Error::user(fmt::format("bm: a halved pair needs bm=128 (in \"{}\")", line(s)), "schedule");
  if (Status ok = s.validate(); !ok) return ok;
  int64_t scales = shape.block % 64 == 0 && shape.k % 64 == 0 ? 1 : 2;
  return s.checkSmem(std::min<int64_t>(shape.experts, 1024), scales, shape.zero);
}

gpu::Device deviceOf(const DeviceIdentity &identity) {
  gpu::Device device = *gpu::findDevice(identity.name.find("H200") != std::string::npos ? "h200" : "h100");
  if (identity.units > 0) device.sms = identity.units;
  return device;
}

/// Of the kernel that puts the activations in routing order before ours: a read and a write of each row, and
/// its launch (assumed: 2 us).
double gatherUs(const Shape &shape, const gpu::Device &device) {
  return 2 + double(shape.rows) * double(shape.k) * 2 * 2 / (device.hbmTBs * 1e6);
}

} // namespace

std::vector<Candidate> gpuSpace(const Shape &shape, const DeviceIdentity &identity) {
  gpu::Device device = deviceOf(identity);
  gpu::Workload work;
  work.n = shape.n, work.k = shape.k, work.experts = shape.experts;
  work.rows = std::max<int64_t>(1, shape.meanRows());
  work.block = shape.block, work.outputBytes = shape.outputBytes;
  std::vector<Candidate> space;
  auto add = [&](Schedule s) {
    s.fitRegisters(assembles(s, shape));
    Candidate c;
    c.schedule = line(s);
    if (Status ok = check(s, shape); !ok) {
      c.verdict = Verdict::Illegal, c.reason = ok.error().message;
      return space.push_back(std::move(c)), false;
    }
    auto p = gpu::predict(s, work, device, gpu::decodeCounts(s.decode));
    c.predictedUs = p.us, c.limiter = p.limiter;
    if (shape.byToken && s.gather == gpu::Gather::Sorted) c.predictedUs += gatherUs(shape, device);
    c.reason = fmt::format("{:.1f} us expected: {} tiles in {} round{}, {:.0f} clocks a step, bound by {}",
                           p.us, p.tiles, p.rounds, p.rounds == 1 ? "" : "s", p.step.clocks(), p.limiter);
    if (p.decodeUs > 0)
      c.reason += fmt::format("; {:.1f} us of it to decode all weights before, into {:.0f} MB", p.decodeUs,
                              gpu::decodedBytes(s, work) * 1e-6);
    return space.push_back(std::move(c)), true;
  };
  for (int64_t bm : {64, 128, 192})
    for (int64_t bn : {8, 16, 32, 64, 96, 128, 160, 192, 224, 256})
      for (int64_t ctas : {1, 2})
        for (auto decode : {gpu::Decode::Exact, gpu::Decode::Pairs, gpu::Decode::Ahead})
          for (auto gather : {gpu::Gather::Sorted, gpu::Gather::Fused})
            for (int64_t cluster : {1, 2, 4}) {
              Schedule s;
              s.bm = bm, s.bn = bn, s.ctas = ctas, s.decode = decode, s.gather = gather, s.cluster = cluster;
              // The deepest pipeline that fits, and one that is two stages shallower; if none fits, the
              // shallowest says why.
              for (s.stages = 8; s.stages > 3; --s.stages) {
                Schedule fitted = s;
                fitted.fitRegisters(assembles(fitted, shape));
                if (check(fitted, shape)) break;
              }
              if (add(s) && s.stages >= 5) s.stages -= 2, add(s);
            }
  return space;
}

Status checkGpuTunable(std::string_view schedule) {
  auto s = Schedule::read(schedule, Schedule());
  if (!s) return s.takeError();
  Status legal = s->validate();
  // A line without a register budget gets the one that goes with its other fields, for either producer.
  if (schedule.find("regs=") == schedule.npos)
    for (bool assembles : {false, true}) {
      s->fitRegisters(assembles);
      if ((legal = s->validate())) break;
    }
  if (!legal) return legal;
  if (s->split != 1) return Error::user("split changes the order of the sums", "schedule");
  if (s->decode == gpu::Decode::Fast) return Error::user("decode=fast changes bits", "schedule");
  return {};
}

} // namespace quern::tune
