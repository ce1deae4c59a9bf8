// Runs a grid, cluster after cluster: set-up of CTAs and threads, the scheduler loop.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Machine.h"
#include <cstring>
#include <mutex>
#include <numeric>
#include <sys/mman.h>

namespace quern::sim {

Machine *machine = nullptr;

static StackPool stacks;

/// Shared memory of cluster rank `rank`: the start of a 4 GiB aligned window, so that the low 32 bits of a
/// host pointer into it are the shared address. Mapped once per process; null when there is no room.
static char *window(unsigned rank) {
  static char *windows[8] = {};
  constexpr uint64_t gap = 1ull << 32;
  static uint64_t next = 0x550000000000ull;
  for (int tries = 0; !windows[rank] && tries < 1024; ++tries, next += gap) {
    void *p = mmap(reinterpret_cast<void *>(next), windowBytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    if (reinterpret_cast<uint64_t>(p) % gap)
      munmap(p, windowBytes);
    else
      windows[rank] = static_cast<char *>(p);
  }
  return windows[rank];
}

void poison(char *p, uint64_t bytes, bool asNan) {
  if (!asNan) return void(std::memset(p, 0, bytes));
  // Negative NaNs as bf16, f16 and fp32, which look like no accumulator token.
  for (uint64_t i = 0; i + 2 <= bytes; i += 2) {
    const uint16_t value = 0xffc0 | (i / 2 & 0x3f);
    std::memcpy(p + i, &value, 2);
  }
}

void wake(unsigned thread) {
  machine->threads[thread].state = State::Ready;
  machine->queue.push(thread);
}

void block(State state) {
  self().state = state;
  leaveFiber(self().fiber);
}

void maybeYield(double weight) {
  Machine &m = *machine;
  if (m.options.yieldProbability <= 0 || !m.random.chance(weight * m.options.yieldProbability)) return;
  m.queue.demote(m.current->id);
  m.queue.push(m.current->id);
  leaveFiber(m.current->fiber);
}

void step() {
  Machine &m = *machine;
  if (++m.steps % 8192) return;
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - m.started;
  if (spent.count() > m.options.secondsLimit)
    fatal("timeout", "the launch runs for more than {} s: an endless loop?", m.options.secondsLimit);
}

static void fiberBody() {
  machine->launch->entry(machine->launch->params);
  threadExits(self());
}

static void resetCta(Machine &m, unsigned rank, unsigned index, uint32_t base) {
  const Launch &launch = *m.launch;
  Cta &cta = m.ctas[rank];
  cta.index = index;
  cta.rank = rank;
  cta.window = window(rank);
  cta.base = base;
  cta.bytes = uint32_t((launch.smemBytes + 15) / 16 * 16);
  cta.staticBytes = 0;
  cta.statics.clear();
  cta.firstThread = rank * launch.block;
  cta.alive = launch.block;
  cta.shadow.reset(cta.bytes);
  cta.mbarrierCount = 0;
  for (NamedBarrier &barrier : cta.barriers)
    barrier.arrived = 0, barrier.waiters.clear(), barrier.clock.empty = true;
  cta.warpgroups.resize(launch.block / 128);
  for (Warpgroup &group : cta.warpgroups) group.reset();
  cta.meetings.assign(launch.block / 32, WarpMeeting());
  cta.freeRegisters = 0;
  cta.registerWaiters.clear();
  cta.remoteUse.assign(launch.cluster > 1 ? launch.cluster * launch.block : 0, 0);
  cta.exitClock.empty = true;
  cta.exited = false;
  poison(cta.window + base, cta.bytes, m.options.poison);
}

static void resetThread(Machine &m, unsigned id, uint32_t registers) {
  Thread &t = m.threads[id];
  t.cta = &m.ctas[id / m.launch->block];
  t.id = id;
  t.tid = id % m.launch->block;
  t.clock = m.clocks.of(id);
  t.registers = registers;
  t.wgmma.commits = 0;
  t.wgmma.history = 1;
  t.wgmma.fenced = false;
  t.wgmma.fencedA.clear();
  t.wgmma.fencedNext = 0;
  t.wgmma.known.clear();
  t.copies.clear();
  t.copyGroups = 0;
  t.clusterArrived = t.clusterWaited = 0;
  startFiber(t.fiber, stacks.stack(id), fiberBody);
  wake(id);
}

static void runCluster(Machine &m, unsigned first) {
  const Launch &launch = *m.launch;
  const unsigned threads = launch.cluster * launch.block;
  m.clocks.reset(threads, launch.cluster * maxMbarriers);
  m.queue.reset(m.options.scheduler, threads, m.random);
  m.copies.reset();
  m.clusterBarrier.generation = 1;
  m.clusterBarrier.arrived = 0;
  m.clusterBarrier.waiters.clear();
  m.clusterBarrier.collected.empty = true;
  m.alive = threads;
  const uint32_t base = uint32_t(0x400 * (1 + m.random.below(4)));
  for (unsigned rank = 0; rank < launch.cluster; ++rank) resetCta(m, rank, first + rank, base);
  const unsigned most = std::min(registerFile / launch.block / 8 * 8, 248u);
  for (unsigned i = 0; i < threads; ++i) resetThread(m, i, launch.registers ? launch.registers : most);
  while (m.alive && !m.stopped) {
    if (m.queue.empty()) {
      if (m.copies.empty()) {
        reportDeadlock();
        m.stopped = true;
      } else {
        m.copies.landAny();
      }
      continue;
    }
    if (m.options.copies == CopyMode::Random && !m.copies.empty() && m.random.below(64) == 0)
      m.copies.landAny();
    if (m.queue.empty()) continue;
    m.current = &m.threads[m.queue.pop()];
    ++m.report.switches;
    enterFiber(m.current->fiber);
    m.current = nullptr;
  }
  m.report.ctas += launch.cluster;
}

/// Clusters in any order, as the hardware may start them.
static void runGrid(Machine &m) {
  std::vector<unsigned> order(m.launch->grid / m.launch->cluster);
  std::iota(order.begin(), order.end(), 0u);
  if (m.options.scheduler != Scheduler::Fifo)
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[m.random.below(i)]);
  for (unsigned cluster : order)
    if (!m.stopped) runCluster(m, cluster * m.launch->cluster);
}

static std::string illegal(const Launch &launch) {
  if (!launch.entry) return "there is no entry";
  if (launch.block == 0 || launch.block % 32 || launch.block > 1024)
    return fmt::format("{} threads per block: multiples of 32 up to 1024 are legal", launch.block);
  if (launch.cluster == 0 || launch.cluster > 8)
    return fmt::format("a cluster of {} CTAs: 1 to 8 are legal", launch.cluster);
  if (launch.grid % launch.cluster)
    return fmt::format("a grid of {} is no multiple of the cluster of {}", launch.grid, launch.cluster);
  if (launch.smemBytes > maxDynamicShared)
    return fmt::format("{} bytes of dynamic shared memory: at most {} exist", launch.smemBytes,
                       maxDynamicShared);
  if (launch.registers &&
      (launch.registers % 8 || launch.registers > 255 || launch.registers * launch.block > registerFile))
    return fmt::format("{} registers for each of {} threads: the file has {}", launch.registers, launch.block,
                       registerFile);
  for (unsigned rank = 0; rank < launch.cluster; ++rank)
    if (!window(rank)) return "no address space for a shared memory window";
  for (unsigned i = 0; i < launch.cluster * launch.block; i += 64)
    if (!stacks.stack(i)) return "no memory for the stacks of the threads";
  return "";
}

Report launch(const Launch &launch, const Options &options) {
  static std::mutex one;
  static Machine memory; // storage is reused from launch to launch
  std::lock_guard lock(one);
  Machine &m = memory;
  m.launch = &launch;
  m.options = options;
  m.report = Report();
  m.report.seed = options.seed;
  m.log.seen.clear();
  m.random.seed(options.seed);
  m.stopped = false;
  m.steps = 0;
  m.current = nullptr;
  m.started = std::chrono::steady_clock::now();
  machine = &m;
  if (std::string reason = illegal(launch); !reason.empty()) {
    m.report.issueCount = 1;
    m.report.issues.push_back("[launch] " + reason);
  } else {
    m.globals.reset(launch.buffers);
    m.ctas.resize(launch.cluster);
    m.threads.resize(launch.cluster * launch.block);
    runGrid(m);
  }
  machine = nullptr;
  m.report.ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - m.started).count();
  return std::move(m.report);
}

} // namespace quern::sim
