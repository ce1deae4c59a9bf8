// What must hold when a wgmma is issued: one sequence in all 128 threads, B observed by all of them,
// registers fenced.
#include "runtime/sim/Machine.h"
#include "runtime/sim/WgmmaAbi.h"
#include "runtime/sim/WgmmaOperands.h"
#include <algorithm>
#include <cstring>

namespace quern::sim {

void checkUniform(const Thread *t) {
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
  const Thread *threads = &m.threadOf(cta, group * 128);
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

void checkReads(Cta &cta, unsigned group, const WgmmaOp &op) {
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

void checkFencedRegisters(const Thread &t) {
  const WgmmaThread &w = t.wgmma;
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

} // namespace quern::sim
