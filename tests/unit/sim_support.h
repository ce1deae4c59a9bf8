// Small kernels for the simulator, written as C++ functions that call its primitives directly.
#pragma once
#include "runtime/sim/Abi.h"
#include "runtime/sim/Sim.h"
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sim_tests {
using namespace quern::sim;
using testing::AllOf;
using testing::HasSubstr;

/// Shared memory at byte `offset`.
template <class T = char> T *smem(uint32_t offset) {
  return reinterpret_cast<T *>(static_cast<char *>(qsim_smem_base()) + offset);
}
template <class T> T loadShared(T *p) { return qsim_shared(p, sizeof(T), 0), *p; }
template <class T> void storeShared(T *p, T value) { qsim_shared(p, sizeof(T), 1), *p = value; }
template <class T> T loadGlobal(T *p) { return qsim_global(p, sizeof(T), 0), *p; }
template <class T> void storeGlobal(T *p, T value) { qsim_global(p, sizeof(T), 1), *p = value; }

/// A launch of `kernel(data)`, where `data` is what the kernel reads and writes; all of it is one buffer
/// "data".
template <class Data> struct KernelRun {
  Launch launch;
  Options options;
  Data *data;
  void *params[1];

  KernelRun(Data &d, void (*kernel)(Data &), unsigned block = 128, uint64_t smemBytes = 4096) : data(&d) {
    launch.block = block;
    launch.smemBytes = smemBytes;
    launch.buffers = {{"data", &d, sizeof d, true}};
    body = kernel;
    launch.entry = [](void **p) { body(*static_cast<Data *>(p[0])); };
  }
  Report operator()(uint64_t seed = 1) {
    params[0] = data;
    launch.params = params;
    options.seed = seed;
    return quern::sim::launch(launch, options);
  }
  inline static void (*body)(Data &) = nullptr;
};

/// Passes with every scheduler and copy mode, several seeds each; `reset` prepares the data of each run.
template <class Data, class Check> void expectClean(KernelRun<Data> run, Check check) {
  for (Scheduler scheduler : {Scheduler::Fifo, Scheduler::Random, Scheduler::Pct})
    for (CopyMode copies : {CopyMode::Eager, CopyMode::Lazy, CopyMode::Random})
      for (uint64_t seed = 1; seed <= 4; ++seed) {
        run.options.scheduler = scheduler;
        run.options.copies = copies;
        Report report = run(seed);
        ASSERT_TRUE(report.ok()) << "scheduler " << int(scheduler) << ", copies " << int(copies) << "\n"
                                 << report.str();
        check();
        if (testing::Test::HasFailure()) {
          ADD_FAILURE() << "scheduler " << int(scheduler) << ", copies " << int(copies) << ", seed " << seed;
          return;
        }
      }
}

/// Every seed of every scheduler reports the hazard: the detector does not need a lucky schedule.
template <class Data, class Matcher> void expectIssue(KernelRun<Data> run, Matcher text) {
  for (Scheduler scheduler : {Scheduler::Fifo, Scheduler::Random, Scheduler::Pct})
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      run.options.scheduler = scheduler;
      Report report = run(seed);
      ASSERT_FALSE(report.ok()) << "no issue with scheduler " << int(scheduler) << ", seed " << seed;
      ASSERT_THAT(report.str(), text) << "scheduler " << int(scheduler);
      ASSERT_THAT(report.str(), HasSubstr("seed " + std::to_string(seed)));
    }
}

} // namespace sim_tests
