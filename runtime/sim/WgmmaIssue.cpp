// What happens when the last of 128 threads issues a wgmma.
#include "runtime/sim/Machine.h"
#include "runtime/sim/WgmmaAbi.h"
#include "runtime/sim/WgmmaOperands.h"
#include <algorithm>
#include <cstring>

namespace quern::sim {

void Warpgroup::reset() {
  arrived = 0;
  serial = 0;
  std::fill(std::begin(retired), std::end(retired), 0);
  for (auto &op : ops)
    if (op->result) freeResults.push_back(std::move(op->result));
  ops.clear();
}

WgmmaOp *findOp(Warpgroup &group, uint32_t serial) {
  for (auto it = group.ops.rbegin(); it != group.ops.rend(); ++it)
    if (((*it)->serial & serialMask) == serial) return it->get();
  return nullptr;
}

static Thread *threadsOf(Cta &cta, unsigned group) { return &machine->threadOf(cta, group * 128); }

static void checkUniform(Cta &cta, unsigned group) {
  const Thread *t = threadsOf(cta, group);
  for (unsigned i = 1; i < 128; ++i) {
    if (t[i].wgmma.descriptor != t[0].wgmma.descriptor || t[i].wgmma.n != t[0].wgmma.n)
      fatal("wgmma", "descriptor or shape differs between {} and {} of one warpgroup", nameOf(t[0]),
            nameOf(t[i]));
    if (t[i].wgmma.history != t[0].wgmma.history)
      fatal("wgmma",
            "{} and {} of one warpgroup executed different sequences of wgmma, fence, commit and wait",
            nameOf(t[0]), nameOf(t[i]));
  }
}

// ---- happens-before of the B operand

/// Some thread of the warpgroup whose clock component is below `least`.
static const Thread &laggard(const Thread *threads, size_t component, uint32_t least) {
  for (unsigned i = 0; i < 128; ++i)
    if (threads[i].clock[component] < least) return threads[i];
  return threads[0];
}

static void checkGranule(Cta &cta, unsigned group, uint32_t index, std::vector<uint32_t> &low) {
  Machine &m = *machine;
  const Thread *threads = threadsOf(cta, group);
  const Granule &granule = cta.shadow.granules[index];
  auto lowest = [&]() -> const uint32_t * { // what all 128 threads have observed, computed when first needed
    if (low.empty()) {
      low.assign(threads[0].clock, threads[0].clock + m.clocks.active);
      for (unsigned i = 1; i < 128; ++i) meetClocks(low.data(), threads[i].clock, m.clocks.active);
    }
    return low.data();
  };
  if (granule.agent >= 0 && lowest()[granule.agent] < granule.epoch) {
    const Thread &behind = laggard(threads, granule.agent, granule.epoch);
    issue(
        "race",
        "wgmma reads {}, but {} has not observed the async copy into it: wait on its mbarrier (of the right "
        "phase) first",
        placeOf(cta, cta.fromShadow(index * 16)), nameOf(behind));
  }
  for (uint32_t i = index * 4; i < index * 4 + 4; ++i) {
    const Word &word = cta.shadow.words[i];
    const uint32_t at = cta.fromShadow(i * 4);
    if (!word.written) {
      if (granule.agent < 0 && m.options.poison)
        issue("uninitialised", "wgmma reads {}, which nobody has written", placeOf(cta, at));
      if (granule.agent < 0) return;
      continue;
    }
    if (word.writeClock == inFlight)
      issue("race",
            "wgmma reads {}, where a cp.async of {} may still write: it needs cp.async.wait by that thread, "
            "fence.proxy.async, then a barrier",
            placeOf(cta, at), nameOf(word.writer));
    else if (word.writeClock > lowest()[word.writer])
      issue(
          "race",
          "wgmma reads {}, which {} stored, but {} has not observed the store: a barrier is missing between "
          "them",
          placeOf(cta, at), nameOf(word.writer), nameOf(laggard(threads, word.writer, word.writeClock)));
    else if (word.writeClock > lowest()[m.clocks.fenced(word.writer)])
      issue("proxy-fence",
            "wgmma reads {}, which {} wrote through the generic proxy: fence.proxy.async is missing "
            "between the write and the barrier that the reader waited for",
            placeOf(cta, at), nameOf(word.writer));
  }
}

static void checkReads(Cta &cta, unsigned group, const WgmmaOp &op) {
  static std::vector<uint32_t> low; // not on a fiber's stack
  low.clear();
  const BOperand operand(op.descriptor);
  int32_t agent = -1;
  uint32_t epoch = 0;
  for (uint32_t n = 0; n < op.n; ++n)
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t index = cta.shadowIndex(operand.address(n, half)) / 16;
      Granule &granule = cta.shadow.granules[index];
      if (granule.touched || granule.agent < 0 || granule.agent != agent || granule.epoch != epoch)
        checkGranule(cta, group, index, low);
      agent = granule.agent;
      epoch = granule.epoch;
      granule.reads[group] = op.group + 1;
    }
}

// ---- registers

/// The four A registers went through a fence together: the usual case, found from the last fence backwards.
static bool recentlyFenced(const WgmmaThread &w) {
  const size_t count = w.fencedA.size() / 4 * 4;
  for (size_t i = 0, at = w.fencedNext / 4 * 4; i < count; i += 4) {
    at = (at ? at : count) - 4;
    if (!std::memcmp(&w.fencedA[at], w.a, 16)) return true;
  }
  return false;
}

static void checkFencedRegisters(Thread &t) {
  WgmmaThread &w = t.wgmma;
  if (!w.fenced) {
    issue("wgmma-fence", "wgmma without any wgmma.fence before it");
    return;
  }
  for (unsigned i = 0; i < 4 && !recentlyFenced(w); ++i)
    if (std::find(w.fencedA.begin(), w.fencedA.end(), w.a[i]) == w.fencedA.end()) {
      issue("wgmma-fence",
            "A register {} of a wgmma was written after the last wgmma.fence that it went through", i);
      break;
    }
  if (!machine->options.tokens) return;
  // Accumulators that are plain values must be what a fence or a wait left.
  const uint32_t count = w.n / 2;
  bool plain = false;
  for (uint32_t i = 0; i < count; ++i) plain |= !isToken(w.acc[i]);
  if (!plain) return;
  for (size_t at = 0; at + count <= w.known.size(); at += count) {
    uint32_t i = 0;
    while (i < count && (isToken(w.acc[i]) || std::bit_cast<uint32_t>(w.acc[i]) == w.known[at + i])) ++i;
    if (i == count) return;
  }
  issue("wgmma-fence",
        "accumulators of a wgmma were written after the last wgmma.fence that they went through");
}

/// The operation whose result all accumulators of the warpgroup are, in order; null when they are a mixture.
static WgmmaOp *chainedFrom(Warpgroup &group, const Thread *threads, uint32_t n) {
  const uint32_t first = std::bit_cast<uint32_t>(threads[0].wgmma.acc[0]);
  if (!isToken(first) || tokenRegister(first)) return nullptr;
  uint32_t differs = 0;
  for (unsigned i = 0; i < 128; ++i) {
    const auto *acc = reinterpret_cast<const uint32_t *>(threads[i].wgmma.acc);
    for (uint32_t j = 0; j < n / 2; ++j) differs |= acc[j] ^ (first + j);
  }
  WgmmaOp *op = differs ? nullptr : findOp(group, tokenSerial(first));
  return op && op->n == n && op->result ? op : nullptr;
}

float resolve(Warpgroup &group, const Thread &t, uint32_t bits) {
  WgmmaOp *op = findOp(group, tokenSerial(bits));
  if (!op || !op->result || tokenRegister(bits) >= op->n / 2)
    fatal("accumulator",
          "an accumulator of wgmma number {} of {} is used after a later wgmma accumulated onto it",
          tokenSerial(bits), nameOf(t));
  auto [row, column] = accumulatorAt(t.tid % 128, tokenRegister(bits));
  const float value = op->result[row * op->n + column];
  return value == value ? value : std::bit_cast<float>(0x7fffffffu); // the tensor core's NaN, never a token
}

static void gatherAccumulators(Warpgroup &group, const Thread *threads, WgmmaOp &op) {
  if (WgmmaOp *before = machine->options.tokens ? chainedFrom(group, threads, op.n) : nullptr) {
    op.result = std::move(before->result);
    return;
  }
  if (group.freeResults.empty())
    op.result.reset(new float[64 * maxN]);
  else {
    op.result = std::move(group.freeResults.back());
    group.freeResults.pop_back();
  }
  for (unsigned i = 0; i < 128; ++i)
    for (uint32_t j = 0; j < op.n / 2; ++j) {
      float value = threads[i].wgmma.acc[j];
      if (machine->options.tokens && isToken(value))
        value = resolve(group, threads[i], std::bit_cast<uint32_t>(value));
      auto [row, column] = accumulatorAt(i, j);
      op.result[row * op.n + column] = value;
    }
}

static void scatterResults(Thread *threads, const WgmmaOp &op) {
  for (unsigned i = 0; i < 128; ++i)
    for (uint32_t j = 0; j < op.n / 2; ++j) {
      if (machine->options.tokens) {
        threads[i].wgmma.acc[j] = std::bit_cast<float>(token(op.serial, j));
        continue;
      }
      auto [row, column] = accumulatorAt(i, j);
      threads[i].wgmma.acc[j] = op.result[row * op.n + column];
    }
}

static void compute(const Thread *threads, WgmmaOp &op, bool isF16) {
  alignas(64) static float a[64][16], b[16][maxN], wide[maxN * 16];
  for (unsigned i = 0; i < 128; ++i) {
    uint16_t halves[8];
    std::memcpy(halves, threads[i].wgmma.a, sizeof halves);
    float values[8];
    widen(halves, values, 8, isF16);
    for (uint32_t e = 0; e < 8; ++e) {
      auto [row, k] = aAt(i, e);
      a[row][k] = values[e];
    }
  }
  widen(op.b.data(), wide, op.n * 16, isF16);
  for (uint32_t n = 0; n < op.n; ++n)
    for (uint32_t k = 0; k < 16; ++k) b[k][n] = wide[n * 16 + k];
  multiplyAccumulate(a, b, op.result.get(), op.n);
}

/// All lanes of a warp are here: none runs ahead of what another did before.
static void convergeWarps(Thread *threads) {
  for (unsigned warp = 0; warp < 128; warp += 32) {
    uint32_t now[32];
    const unsigned first = threads[warp].id;
    for (unsigned i = 0; i < 32; ++i) now[i] = threads[warp + i].clock[first + i];
    for (unsigned i = 0; i < 32; ++i) {
      std::memcpy(threads[warp + i].clock + first, now, sizeof now);
      threads[warp + i].tick();
    }
  }
}

void issueWgmma(Cta &cta, unsigned group) {
  Machine &m = *machine;
  Warpgroup &wg = cta.warpgroups[group];
  Thread *threads = threadsOf(cta, group);
  checkUniform(cta, group);
  while (wg.ops.size() > 64) {
    if (wg.ops.front()->result) wg.freeResults.push_back(std::move(wg.ops.front()->result));
    wg.ops.erase(wg.ops.begin());
  }
  const WgmmaThread &w = threads[0].wgmma;
  wg.ops.push_back(std::make_unique<WgmmaOp>());
  WgmmaOp &op = *wg.ops.back();
  op.serial = wg.serial++;
  op.n = w.n;
  op.descriptor = w.descriptor;
  op.group = w.commits;
  op.b.resize(op.n * 16);
  for (unsigned i = 0; i < 128; ++i) checkFencedRegisters(threads[i]);
  readB(cta, op.descriptor, op.n, op.b.data());
  if (m.options.happensBefore) checkReads(cta, group, op);
  gatherAccumulators(wg, threads, op);
  compute(threads, op, w.isF16);
  scatterResults(threads, op);
  if (m.options.happensBefore && m.options.convergence) convergeWarps(threads);
  ++m.report.wgmmas;
}

void retireWgmma(Cta &cta, unsigned group, unsigned quarter, uint32_t groups) {
  static std::vector<uint16_t> now(maxN * 16);
  Warpgroup &wg = cta.warpgroups[group];
  const uint32_t before = wg.retired[quarter];
  if (groups <= before) return;
  // Until a warp has waited, B must stand still; with warpWait off the first wait counts for all four.
  if (machine->options.warpWait)
    wg.retired[quarter] = groups;
  else
    std::fill(std::begin(wg.retired), std::end(wg.retired), groups);
  if (!machine->options.rehash) return;
  for (auto &op : wg.ops) {
    if (op->group >= groups || op->group < before) continue;
    readB(cta, op->descriptor, op->n, now.data());
    if (!std::memcmp(now.data(), op->b.data(), op->b.size() * 2)) continue;
    uint32_t i = 0;
    while (now[i] == op->b[i]) ++i;
    issue(
        "operand-changed",
        "wgmma number {} of {} (commit group {}): B at {} changed between issue and wait, first at n={} k={}",
        op->serial, nameOfWarp(cta, group * 4 + quarter), op->group,
        placeOf(cta, BOperand(op->descriptor).start), i / 16, i % 16);
  }
}

} // namespace quern::sim
