// The wgmma primitives as threads call them.
#include "runtime/sim/WgmmaAbi.h"
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"
#include "runtime/sim/WgmmaOperands.h"
#include <algorithm>

using namespace quern::sim;

static void remember(Thread &t, uint64_t what) {
  t.wgmma.history = (t.wgmma.history ^ what) * 0x9E3779B97F4A7C15ull;
}

/// The thread's warpgroup; a block without whole warpgroups cannot use wgmma.
static unsigned warpgroupOf(const Thread &t) {
  if (t.tid / 128 >= t.cta->warpgroups.size())
    fatal("wgmma", "warps {} and up are no whole warpgroup of 128 threads", t.tid / 128 * 4);
  return t.tid / 128;
}

void qsim_wgmma(uint32_t isF16, uint32_t n, float *acc, const uint32_t *a, uint64_t desc) {
  step();
  Thread &t = self();
  const unsigned group = warpgroupOf(t);
  if (n < 8 || n > maxN || n % 8) fatal("wgmma", "n = {}; multiples of 8 from 8 to 256 are legal", n);
  machine->clocks.activate();
  remember(t, 0x20000 | n << 1 | isF16);
  WgmmaThread &w = t.wgmma;
  w.acc = acc;
  w.a = a;
  w.descriptor = desc;
  w.n = n;
  w.isF16 = isF16;
  Warpgroup &wg = t.cta->warpgroups[group];
  if (++wg.arrived < 128) return block(State::Wgmma);
  wg.arrived = 0;
  issueWgmma(*t.cta, group);
  const unsigned first = t.cta->firstThread + group * 128;
  for (unsigned i = first; i < first + 128; ++i)
    if (i != t.id) wake(i);
}

void qsim_wgmma_fence(float *acc, uint32_t nacc, const uint32_t *a, uint32_t na) {
  step();
  Thread &t = self();
  warpgroupOf(t);
  remember(t, 0x10000);
  WgmmaThread &w = t.wgmma;
  w.fenced = true;
  constexpr size_t ring = 256; // A registers that can be live: twice 64 of K for four row blocks
  for (uint32_t i = 0; i < na; ++i) {
    if (w.fencedA.size() < ring)
      w.fencedA.push_back(a[i]);
    else
      w.fencedA[w.fencedNext] = a[i];
    w.fencedNext = (w.fencedNext + 1) % ring;
  }
  if (nacc && machine->options.tokens) {
    const auto *bits = reinterpret_cast<const uint32_t *>(acc);
    w.known.assign(bits, bits + nacc);
  }
}

void qsim_wgmma_commit() {
  step();
  Thread &t = self();
  ++t.wgmma.commits;
  remember(t, 0x30000);
}

void qsim_wgmma_wait(uint32_t groups, float *acc, uint32_t nacc) {
  step();
  Machine &m = *machine;
  Thread &t = self();
  const unsigned group = warpgroupOf(t);
  m.clocks.activate();
  remember(t, 0x40000 | groups);
  maybeYield();
  Warpgroup &wg = t.cta->warpgroups[group];
  const uint32_t complete = t.wgmma.commits > groups ? t.wgmma.commits - groups : 0;
  retireWgmma(*t.cta, group, t.warp() % 4, complete);
  for (unsigned quarter = 0; quarter < 4; ++quarter) {
    const unsigned warp = group * 4 + quarter;
    if (m.options.warpWait && warp != t.warp()) continue;
    uint32_t &known = t.clock[m.warpAgent(*t.cta, warp)];
    known = std::max(known, complete);
  }
  if (!m.options.tokens) return;
  const WgmmaOp *op = nullptr;
  uint32_t serial = ~0u;
  for (uint32_t i = 0; i < nacc; ++i) {
    if (!isToken(acc[i])) continue;
    const uint32_t bits = std::bit_cast<uint32_t>(acc[i]);
    if (tokenSerial(bits) != serial) op = findOp(wg, serial = tokenSerial(bits));
    if (op && op->group >= complete) continue; // still in flight
    const uint32_t count = op ? op->n / 2 : 0;
    if (op && op->result && i + count <= nacc && areTokens(acc + i, count)) {
      readFragment(op->result.get(), op->n, t.tid % 128, acc + i);
      i += count - 1;
    } else {
      acc[i] = resolve(wg, t, bits);
    }
  }
  const auto *bits = reinterpret_cast<const uint32_t *>(acc);
  t.wgmma.known.assign(bits, bits + nacc);
}

void qsim_store_f32(float value) {
  if (!machine->options.tokens || !isToken(value)) return;
  issue("accumulator", "an accumulator register of wgmma number {} is used before wgmma.wait covers it",
        tokenSerial(std::bit_cast<uint32_t>(value)));
}
