// What the happens-before detector remembers about a CTA's shared memory: who last wrote and read each 4-byte
// word through the generic proxy, and which async copy wrote and which wgmma groups read each 16-byte
// granule.
#pragma once
#include <cstdint>
#include <vector>

namespace quern::sim {

struct Cta;
struct Thread;

constexpr uint32_t inFlight =
    ~0u; // a write clock that nobody has observed: a cp.async that was not waited for
constexpr unsigned maxWarpgroups = 8;

enum class Access : uint8_t { Load, Store, Atomic };

struct Word {
  uint32_t writeClock = 0, readClock = 0; // 0: no access since the last async copy
  uint16_t writer = 0, reader = 0;        // thread of the cluster
  uint32_t readers = 0;                   // 1 + index of the list of concurrent readers of other warps
  bool written = false;                   // by a plain store
  bool atomic = false;                    // the reader was an atomic: it reads, and other atomics do not mind
};

struct Granule {
  int32_t agent = -1;                 // clock component of the mbarrier of the last async copy into it
  uint32_t epoch = 0;                 // its number on that mbarrier
  bool touched = false;               // some word was accessed through the generic proxy since
  uint32_t reads[maxWarpgroups] = {}; // 1 + the last commit group of each warpgroup that reads it by wgmma
};

class Shadow {
public:
  void reset(uint64_t bytes);
  /// More bytes at the end, for static shared variables.
  void grow(uint64_t bytes);

  struct Reader {
    uint16_t thread;
    bool atomic;
    uint32_t clock;
  };
  std::vector<Word> words;
  std::vector<Granule> granules;
  std::vector<std::vector<Reader>> readers;

  void addReader(Word &word, const Thread &thread, bool atomic);
  void forgetReaders(Word &word);
  /// A load or atomic that the clock does not cover and that conflicts with the access, or null. Loads
  /// conflict with stores and atomics, atomics with all but atomics.
  const Reader *conflict(const Word &word, const uint32_t *clock, Access access);

private:
  std::vector<uint32_t> freeLists;
  Reader last; // what conflict() returns for the word's own reader
};

/// A generic access by the current thread to the shared memory of `cta` at shared address `address`.
void genericAccess(Cta &cta, uint32_t address, uint32_t bytes, Access access, const char *what);
/// An async copy that the current thread issues; it completes as number `epoch` of clock component `agent`.
void asyncWrite(Cta &cta, uint32_t address, uint32_t bytes, uint32_t agent, uint32_t epoch, const char *what);

} // namespace quern::sim
