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

/// The operation whose result all accumulators of the warpgroup are, in order; null when they are a mixture.
static WgmmaOp *chainedFrom(Warpgroup &group, const Thread *threads, uint32_t n) {
  const float *first = threads[0].wgmma.acc;
  for (unsigned i = 0; i < 128; ++i) {
    const float *acc = threads[i].wgmma.acc;
    if (std::bit_cast<uint32_t>(acc[0]) != std::bit_cast<uint32_t>(first[0]) || !areTokens(acc, n / 2))
      return nullptr;
  }
  WgmmaOp *op = findOp(group, tokenSerial(std::bit_cast<uint32_t>(first[0])));
  return op && op->n == n && op->result ? op : nullptr;
}

float resolve(Warpgroup &group, const Thread &t, uint32_t bits) {
  WgmmaOp *op = findOp(group, tokenSerial(bits));
  if (!op || !op->result || tokenRegister(bits) >= op->n / 2)
    fatal("accumulator",
          "an accumulator of wgmma number {} of {} is used after a later wgmma accumulated onto it",
          tokenSerial(bits), nameOf(t));
  float all[maxN / 2];
  readFragment(op->result.get(), op->n, t.tid % 128, all);
  return all[tokenRegister(bits)];
}

static void gatherAccumulators(Warpgroup &group, const Thread *threads, WgmmaOp &op) {
  if (WgmmaOp *before = machine->options.tokens ? chainedFrom(group, threads, op.n) : nullptr) {
    op.result = std::move(before->result);
    return;
  }
  if (group.freeResults.empty()) {
    op.result.reset(new float[64 * maxN]);
  } else {
    op.result = std::move(group.freeResults.back());
    group.freeResults.pop_back();
  }
  for (unsigned i = 0; i < 128; ++i) {
    float acc[maxN / 2];
    for (uint32_t j = 0; j < op.n / 2; ++j) {
      acc[j] = threads[i].wgmma.acc[j];
      if (machine->options.tokens && isToken(acc[j]))
        acc[j] = resolve(group, threads[i], std::bit_cast<uint32_t>(acc[j]));
    }
    writeFragment(op.result.get(), op.n, i, acc);
  }
}

static void scatterResults(Thread *threads, const WgmmaOp &op) {
  const uint32_t first = token(op.serial, 0), count = op.n / 2;
  for (unsigned i = 0; i < 128; ++i) {
    float *acc = threads[i].wgmma.acc;
    if (!machine->options.tokens)
      readFragment(op.result.get(), op.n, i, acc);
    else
      for (uint32_t j = 0; j < count; ++j) acc[j] = std::bit_cast<float>(first + j);
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
  Thread *threads = &m.threadOf(cta, group * 128);
  checkUniform(threads);
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
