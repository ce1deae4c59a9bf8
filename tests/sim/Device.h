// A device for tests that change a kernel: the simulator, with the code of the kernel under test exchanged,
// and the whole report of its launch kept. Device pointers are host pointers.
#pragma once
#include "runtime/gpu/Timer.h"
#include "runtime/sim/Sim.h"
#include <deque>
#include <map>
#include <memory>

namespace quern::simtest {

class Device final : public gpu::Backend {
  struct Code {
    std::string name;
    void (*entry)(void **params) = nullptr;
    bool tested = false;
  };
  std::deque<Code> kernels;
  std::map<void *, std::unique_ptr<char[]>> allocations;

public:
  /// Few, so that each CTA takes several tiles and the ring of stages goes round.
  int multiprocessorCount = 2;

  sim::Options options;                   // of the kernel under test
  void (*entry)(void **params) = nullptr; // its code
  sim::Report report;                     // of its last launch

  std::string name() const override { return "simulator"; }
  std::string arch() const override { return "sim"; }
  int multiprocessors() const override { return multiprocessorCount; }
  bool checksRanges() const override { return true; }
  Expected<void *> allocate(uint64_t bytes, gpu::Stream) override;
  void release(void *memory, gpu::Stream) override { allocations.erase(memory); }
  Status upload(void *device, const void *host, uint64_t bytes, gpu::Stream) override;
  Status download(void *host, const void *device, uint64_t bytes, gpu::Stream) override;
  Status synchronize(gpu::Stream) override { return {}; }
  Status encodeTensorMap(void *map128, const void *base, DType dtype, int64_t columns, int64_t rows,
                         int64_t rowStride, int64_t boxRows) override;
  Expected<gpu::LoadedKernel *> load(const jit::GpuImage &image, std::string *refusal = nullptr) override;
  Expected<gpu::LoadedKernel *> loadDevice(const std::string &kernel, gpu::Stream) override;
  /// Problems of the kernel under test are in `report`; those of another kernel are an error.
  Status launch(gpu::LoadedKernel *kernel, const gpu::LaunchConfig &config, void **params,
                const std::vector<gpu::Range> &ranges, gpu::Stream) override;
  Expected<std::unique_ptr<gpu::Timer>> timer() override {
    return Error::internal("nothing is measured on this device");
  }
};

} // namespace quern::simtest
