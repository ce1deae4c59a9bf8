// The state of a launch: the machine, the CTAs of the cluster that runs, their threads.
#pragma once
#include "runtime/sim/AsyncCopy.h"
#include "runtime/sim/Clock.h"
#include "runtime/sim/Fiber.h"
#include "runtime/sim/Issue.h"
#include "runtime/sim/Mbarrier.h"
#include "runtime/sim/Random.h"
#include "runtime/sim/RunQueue.h"
#include "runtime/sim/Shadow.h"
#include "runtime/sim/Sim.h"
#include "runtime/sim/Wgmma.h"
#include <chrono>
#include <map>

namespace quern::sim {

constexpr unsigned maxMbarriers = 64;            // per CTA
constexpr uint64_t maxDynamicShared = 227 << 10; // sm_90
constexpr uint64_t maxStaticShared = 48 << 10;
constexpr uint32_t staticBase = 256 << 10; // static variables lie here in the window
constexpr uint64_t windowBytes = 512 << 10;
constexpr unsigned registerFile = 65536;

enum class State : uint8_t {
  Ready,
  Mbarrier,
  NamedBarrier,
  ClusterBarrier,
  Wgmma,
  WarpMeeting,
  Registers,
  Done
};

/// A cp.async that has not been waited for.
struct CpAsync {
  uint32_t address;
  const char *source;
  uint32_t sourceBytes, group;
  bool landed;
};

struct Thread {
  Fiber fiber;
  Cta *cta = nullptr;
  unsigned id = 0, tid = 0; // in the cluster; in the block
  State state = State::Ready;
  uint32_t waitsFor = 0, waitDetail = 0; // barrier address and parity, barrier id, register count
  uint64_t waitPhase = 0;
  uint32_t *clock = nullptr;
  uint32_t registers = 0;
  WgmmaThread wgmma;
  std::vector<CpAsync> copies;
  uint32_t copyGroups = 0;
  uint64_t clusterArrived = 0, clusterWaited = 0;              // generations
  uint32_t exchanged = 0, exchangeLane = 0, exchangeClamp = 0; // what it brings to a warp meeting
  uint32_t warp() const { return tid / 32; }
  uint32_t lane() const { return tid % 32; }
  /// A release: what it does from now on is not covered by what others learn now.
  uint32_t *tick() { return ++clock[id], clock; }
};

struct NamedBarrier {
  unsigned arrived = 0, need = 0;
  std::vector<unsigned> waiters;
  MeetingClock clock;
};

/// Lanes that wait for each other in a shuffle, a vote or a __syncwarp.
struct WarpMeeting {
  const char *what = nullptr;
  uint32_t mask = 0, arrived = 0;
};

struct Cta {
  unsigned index = 0, rank = 0; // in the grid; in the cluster
  char *window = nullptr;
  uint32_t base = 0, bytes = 0; // dynamic shared memory
  uint32_t staticBytes = 0;
  struct Static {
    uint32_t offset, bytes;
  };
  std::map<uint32_t, Static> statics;
  unsigned firstThread = 0, alive = 0;
  Shadow shadow;
  std::vector<Mbarrier> mbarriers; // the first `mbarrierCount` live
  unsigned mbarrierCount = 0;
  NamedBarrier barriers[16];
  std::vector<Warpgroup> warpgroups;
  std::vector<WarpMeeting> meetings;
  int64_t freeRegisters = 0;
  std::vector<unsigned> registerWaiters;
  std::vector<uint32_t>
      remoteUse; // per thread of the cluster: its clock when it last touched this CTA remotely
  MeetingClock exitClock;
  bool exited = false;

  /// Shared address of a host pointer that must lie, with `size` bytes, in this CTA's shared memory.
  uint32_t address(const void *p, uint64_t size, const char *what);
  bool holds(uint64_t address, uint64_t size) const;
  /// Index of the byte in the shadow.
  uint32_t shadowIndex(uint32_t address) const {
    return address < staticBase ? address - base : bytes + (address - staticBase);
  }
  uint32_t fromShadow(uint32_t index) const {
    return index < bytes ? base + index : staticBase + (index - bytes);
  }
};

struct ClusterBarrier {
  uint64_t generation = 1; // the one that is being collected
  unsigned arrived = 0;
  std::vector<unsigned> waiters;
  MeetingClock collected;
  std::vector<uint32_t> released;
};

/// Registered global memory, by address.
class GlobalMap {
public:
  void reset(const std::vector<Buffer> &buffers);
  /// The buffer that holds all of [p, p + bytes), or null.
  const Buffer *find(const void *p, uint64_t bytes);
  /// For messages: the nearest buffer, and by how much the access misses it.
  Text describe(const void *p, uint64_t bytes) const;

private:
  std::vector<Buffer> sorted;
  std::vector<const char *> reach; // the largest end among the buffers up to this one
  size_t last = 0;
};

struct Machine {
  const Launch *launch = nullptr;
  Options options;
  Report report;
  IssueLog log;
  Random random;
  GlobalMap globals;
  RunQueue queue;
  Clocks clocks;
  CopyQueue copies;
  ClusterBarrier clusterBarrier;
  std::vector<Cta> ctas; // of the cluster that runs
  std::vector<Thread> threads;
  Thread *current = nullptr;
  unsigned alive = 0;
  bool stopped = false;
  uint64_t steps = 0;
  std::chrono::steady_clock::time_point started;

  Thread &threadOf(const Cta &cta, unsigned tid) { return threads[cta.firstThread + tid]; }
  uint32_t warpAgent(const Cta &cta, unsigned warp) const {
    return uint32_t(clocks.warp(cta.firstThread / 32 + warp));
  }
};

extern Machine *machine;

inline Thread &self() { return *machine->current; }

/// Makes a blocked thread ready.
void wake(unsigned thread);
/// Blocks the current thread until someone wakes it.
void block(State state);
/// Maybe lets others run; `weight` multiplies the probability.
void maybeYield(double weight = 1);
/// Every primitive starts with it: counts steps, so that an endless loop ends in an issue.
void step();
/// What blocked threads wait for, as one issue.
void reportDeadlock();
/// A thread returned from the kernel; issues for what it left behind.
void threadExits(Thread &thread);
/// CTA `rank` of the cluster, which must not have ended.
Cta &remoteCta(uint32_t rank, const char *what);
/// The current thread touches the CTA's shared memory: the CTA must not end before.
void noteRemoteUse(Cta &cta);
/// Fills fresh shared memory with NaN patterns, or with zeros.
void poison(char *p, uint64_t bytes, bool asNan);

} // namespace quern::sim
