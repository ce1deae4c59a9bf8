// Happens-before checks of accesses to shared memory.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"
#include <algorithm>
#include <cstring>

namespace quern::sim {

void Shadow::reset(uint64_t bytes) {
  words.assign(bytes / 4, Word());
  granules.assign(bytes / 16, Granule());
  readers.clear();
  freeLists.clear();
}

void Shadow::grow(uint64_t bytes) {
  words.resize(words.size() + bytes / 4);
  granules.resize(granules.size() + bytes / 16);
}

// Per word: its last reader, and the last concurrent reader of every other warp. Lanes of one warp stand for
// each other: they run the same code, and the random scheduler varies who is last.
void Shadow::addReader(Word &word, const Thread &thread, bool atomic) {
  const bool replaces = word.readClock == 0 || thread.clock[word.reader] >= word.readClock ||
                        (word.reader / 32 == thread.id / 32 && word.atomic == atomic);
  if (!replaces) {
    if (!word.readers) {
      if (freeLists.empty()) {
        readers.emplace_back();
        word.readers = uint32_t(readers.size());
      } else {
        word.readers = freeLists.back();
        freeLists.pop_back();
      }
    }
    auto &list = readers[word.readers - 1];
    const Reader old{word.reader, word.atomic, word.readClock};
    auto same = std::find_if(list.begin(), list.end(), [&](const Reader &r) {
      return r.thread / 32 == old.thread / 32 && r.atomic == old.atomic;
    });
    if (same == list.end())
      list.push_back(old);
    else
      *same = old;
  }
  word.reader = uint16_t(thread.id);
  word.readClock = thread.clock[thread.id];
  word.atomic = atomic;
}

void Shadow::forgetReaders(Word &word) {
  word.readClock = 0;
  if (!word.readers) return;
  readers[word.readers - 1].clear();
  freeLists.push_back(word.readers);
  word.readers = 0;
}

const Shadow::Reader *Shadow::conflict(const Word &word, const uint32_t *clock, Access access) {
  auto conflicts = [&](const Reader &r) {
    return r.clock > clock[r.thread] && (access == Access::Store || r.atomic == (access == Access::Load));
  };
  last = {word.reader, word.atomic, word.readClock};
  if (conflicts(last)) return &last;
  if (word.readers)
    for (const Reader &reader : readers[word.readers - 1])
      if (conflicts(reader)) return &reader;
  return nullptr;
}

static void checkWriter(const Cta &cta, const Word &word, uint32_t address, const char *what) {
  if (word.writeClock == inFlight)
    issue("race",
          "{} at {}, where a cp.async of {} may still write: it needs cp.async.wait by that thread, then a "
          "barrier",
          what, placeOf(cta, address), nameOf(word.writer));
  else
    issue("race", "{} at {} is not ordered after the store of {}: a barrier is missing between them", what,
          placeOf(cta, address), nameOf(word.writer));
}

/// Reads of a granule by wgmma that the current thread has not seen complete.
static void checkWgmmaReads(const Cta &cta, const Granule &granule, uint32_t address, const char *what) {
  const uint32_t *clock = self().clock;
  for (size_t group = 0; group < cta.warpgroups.size(); ++group) {
    if (!granule.reads[group]) continue;
    for (unsigned quarter = 0; quarter < 4; ++quarter) {
      const unsigned warp = unsigned(group) * 4 + quarter;
      if (granule.reads[group] <= clock[machine->warpAgent(cta, warp)]) continue;
      issue("race",
            "{} overwrites {}, which wgmma group {} of {} may still read: that warp must wait for the group "
            "and release the stage first",
            what, placeOf(cta, address), granule.reads[group] - 1, nameOfWarp(cta, warp));
      return;
    }
  }
}

void genericAccess(Cta &cta, uint32_t address, uint32_t bytes, Access access, const char *what) {
  Thread &t = self();
  Shadow &shadow = cta.shadow;
  const uint32_t first = cta.shadowIndex(address), end = first + bytes;
  const bool store = access != Access::Load;
  for (uint32_t g = first / 16; g <= (end - 1) / 16; ++g) {
    Granule &granule = shadow.granules[g];
    granule.touched = true;
    const uint32_t at = std::max(first, g * 16);
    if (granule.agent >= 0 && t.clock[granule.agent] < granule.epoch)
      issue("race", "{} at {} is not ordered after the async copy into it: wait on the copy's mbarrier first",
            what, placeOf(cta, cta.fromShadow(at)));
    if (store) checkWgmmaReads(cta, granule, cta.fromShadow(at), what);
  }
  for (uint32_t i = first / 4; i <= (end - 1) / 4; ++i) {
    Word &word = shadow.words[i];
    const uint32_t at = cta.fromShadow(std::max(first, i * 4));
    if (word.writeClock > t.clock[word.writer]) checkWriter(cta, word, at, what);
    if (!word.written && access != Access::Store && machine->options.poison &&
        shadow.granules[i / 4].agent < 0)
      issue("uninitialised", "{} at {}, which nobody has written", what, placeOf(cta, at));
    if (auto *other = shadow.conflict(word, t.clock, access))
      issue("race", "{} at {} is not ordered after the {} of {}: a barrier is missing between them", what,
            placeOf(cta, at), other->atomic ? "atomic" : "load", nameOf(other->thread));
    if (access != Access::Store) {
      shadow.addReader(word, t, access == Access::Atomic);
      continue;
    }
    shadow.forgetReaders(word);
    word.writer = uint16_t(t.id);
    word.writeClock = t.clock[t.id];
    word.written = true;
  }
}

void asyncWrite(Cta &cta, uint32_t address, uint32_t bytes, uint32_t agent, uint32_t epoch,
                const char *what) {
  Thread &t = self();
  Shadow &shadow = cta.shadow;
  const uint32_t first = cta.shadowIndex(address);
  for (uint32_t g = first / 16; g < (first + bytes) / 16; ++g) {
    Granule &granule = shadow.granules[g];
    const uint32_t at = cta.fromShadow(g * 16);
    checkWgmmaReads(cta, granule, at, what);
    if (granule.agent >= 0 && t.clock[granule.agent] < granule.epoch)
      issue("race",
            "{} overwrites {}, where an earlier async copy may still write: wait on its mbarrier first", what,
            placeOf(cta, at));
    for (uint32_t i = g * 4; granule.touched && i < g * 4 + 4; ++i) {
      Word &word = shadow.words[i];
      if (word.writeClock > t.clock[word.writer])
        checkWriter(cta, word, cta.fromShadow(i * 4), what);
      else if (word.written && word.writeClock > t.clock[machine->clocks.fenced(word.writer)])
        issue("proxy-fence",
              "{} overwrites {}, which {} stored through the generic proxy: fence.proxy.async is "
              "missing between them",
              what, placeOf(cta, cta.fromShadow(i * 4)), nameOf(word.writer));
      if (auto *reader = shadow.conflict(word, t.clock, Access::Store))
        issue("race", "{} overwrites {}, which {} may still read: a release by the reader is missing", what,
              placeOf(cta, cta.fromShadow(i * 4)), nameOf(reader->thread));
      shadow.forgetReaders(word);
      word = Word();
    }
    granule = Granule();
    granule.agent = int32_t(agent);
    granule.epoch = epoch;
  }
}

} // namespace quern::sim

using namespace quern::sim;

void qsim_fence_proxy_async() {
  step();
  Machine &m = *machine;
  Thread &t = self();
  m.clocks.activate();
  std::memcpy(t.clock + m.clocks.fenced(0), t.clock, m.clocks.threads * sizeof(uint32_t));
  // A barrier's init is a generic write as well.
  for (unsigned i = 0; i < t.cta->mbarrierCount; ++i)
    if (Mbarrier &barrier = t.cta->mbarriers[i]; barrier.initThread == t.id && !barrier.fenceClock)
      barrier.fenceClock = t.clock[t.id];
  maybeYield();
}

void qsim_shared(void *p, uint32_t bytes, uint32_t store) {
  step();
  Cta &cta = *self().cta;
  const char *what = store ? "st.shared" : "ld.shared";
  const uint32_t address = cta.address(p, bytes, what);
  if (address % (bytes & -bytes))
    fatal("misaligned", "{} of {} bytes at {}", what, bytes, placeOf(cta, address));
  if (machine->options.happensBefore)
    genericAccess(cta, address, bytes, store ? Access::Store : Access::Load, what);
}

void qsim_atomic(void *p, uint32_t bytes, uint32_t space) {
  if (space == 1) return qsim_global(p, bytes, 1);
  step();
  Cta &cta = *self().cta;
  const uint32_t address = cta.address(p, bytes, "atom.shared");
  if (address % bytes) fatal("misaligned", "atom.shared of {} bytes at {}", bytes, placeOf(cta, address));
  if (machine->options.happensBefore) genericAccess(cta, address, bytes, Access::Atomic, "atom.shared");
  maybeYield();
}
