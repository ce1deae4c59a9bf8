// The planted faults: one table (Faults*.cpp), read by Faults_test.cpp.
#pragma once
#include "tests/sim/Editor.h"
#include "tests/sim/Rig.h"

namespace quern::simtest {

/// A report that counts as having caught a fault: the detector ("numerics" is the oracle's), and what its
/// text must say (role, place, what is missing).
struct Catch {
  const char *detector;
  std::vector<const char *> says;
};

struct Fault {
  const char *name;
  const char *what; // the mistake, as a reviewer would put it
  const Subject *subject;
  const char *after; // the pass after which it is planted
  void (*plant)(Editor &e);
  std::vector<Catch> caughtBy; // any of these
  sim::Scheduler scheduler = sim::Scheduler::Random;
};

/// Kernels and schedules. Rows per expert: an expert with none, a tile and a bit, and rows beyond the live
/// ones.
extern const Subject sorted, paired, fused, fast, pairs, halved, combined, square, edge, split, ahead;

const std::vector<Fault> &syncFaults();    // barriers, phases, releases, fences, clusters
const std::vector<Fault> &clusterFaults(); // multicast, and sums that CTAs hand each other
const std::vector<Fault> &computeFaults(); // indices, swizzles, fragments, masks, tables

} // namespace quern::simtest
