// See SimBackend.h. A "device pointer" is a host pointer into one of the allocations made here; uploads and
// downloads must lie inside one, and its guard zones are looked at when it is released and at every
// synchronisation.
#include "runtime/gpu/SimBackend.h"
#include "runtime/config/Knobs.h"
#include "runtime/gpu/Timer.h"
#include "runtime/jit/Jit.h"
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <mutex>

namespace quern::gpu {
namespace {

constexpr uint64_t zone = 256; // bytes of guard on each side, and the alignment
constexpr unsigned char guardByte = 0xa5;
constexpr uint16_t fresh = 0x7fff; // NaN in f32, bf16 and f16; far outside any array as an index

std::mutex statsMutex;
SimStats total;

struct Free {
  void operator()(unsigned char *p) const { std::free(p); }
};

struct Allocation {
  std::unique_ptr<unsigned char, Free> memory; // zone, bytes, zone
  uint64_t bytes = 0;
  bool guardsIntact() const {
    auto intact = [](const unsigned char *p, uint64_t n) {
      return std::all_of(p, p + n, [](unsigned char c) { return c == guardByte; });
    };
    return intact(memory.get(), zone) && intact(memory.get() + zone + bytes, zone);
  }
};

/// What LoadedKernel stands for here.
struct SimKernel {
  std::string name;
  void (*entry)(void **params) = nullptr;
  unsigned registers = 0; // of a thread at launch; 0: no matter
};

Expected<sim::Options> optionsFromEnvironment() {
  sim::Options options;
  if (auto seed = config::value(config::Knob::SimSeed))
    options.seed = std::strtoull(seed->c_str(), nullptr, 0);
  auto text = config::value(config::Knob::SimOptions);
  return text ? parseSimOptions(*text, options) : options;
}

/// The host's clock: what the simulator takes says nothing about a GPU, but the way of a measurement is the
/// same.
class SimTimer final : public Timer {
  using Clock = std::chrono::steady_clock;
  Clock::time_point from, to;

public:
  Status start(Stream) override { return from = Clock::now(), Status(); }
  Status stop(Stream) override { return to = Clock::now(), Status(); }
  Expected<double> microseconds() override {
    return std::chrono::duration<double, std::micro>(to - from).count();
  }
  Status flush(Stream) override { return {}; } // caches are not modelled
  uint64_t cacheBytes() const override { return 0; }
  uint64_t freeBytes() override { return 0; } // the host's
  Status copy(void *destination, const void *source, uint64_t bytes, Stream) override {
    return std::memcpy(destination, source, bytes), Status();
  }
  Clocks clocks() override { return {}; }
};

class SimBackend final : public Backend {
  const jit::SimLibrary &library;
  std::mutex mutex;
  std::map<uintptr_t, Allocation> allocations; // by the address that callers see
  std::map<std::string, std::unique_ptr<SimKernel>> kernels;
  std::map<const jit::GpuImage *, std::unique_ptr<SimKernel>> images;
  std::string damage; // guard zones found overwritten at a release

  Status inside(const void *memory, uint64_t bytes, const char *what) {
    if (!bytes) return {};
    std::lock_guard lock(mutex);
    auto at = reinterpret_cast<uintptr_t>(memory);
    auto found = allocations.upper_bound(at);
    if (found == allocations.begin() || at + bytes > std::prev(found)->first + std::prev(found)->second.bytes)
      return Error::internal(fmt::format("{} of {} bytes outside any allocation", what, bytes), "simulator");
    return {};
  }

public:
  explicit SimBackend(const jit::SimLibrary &library) : library(library) {}

  std::string name() const override { return "simulator"; }
  std::string arch() const override { return "sim"; }
  int multiprocessors() const override {
    static const int count = [] {
      auto text = config::value(config::Knob::SimSms);
      return text ? std::clamp(std::atoi(text->c_str()), 1, 1024) : 4;
    }();
    return count;
  }
  bool checksRanges() const override { return true; }

  Expected<void *> allocate(uint64_t bytes, Stream) override {
    uint64_t whole = (bytes + 2 * zone + zone - 1) / zone * zone;
    Allocation a{{static_cast<unsigned char *>(std::aligned_alloc(zone, whole)), {}}, bytes};
    if (!a.memory) return Error::system(fmt::format("cannot allocate {} bytes", bytes), "simulator");
    std::memset(a.memory.get(), guardByte, whole);
    for (uint64_t i = 0; i < bytes; ++i) a.memory.get()[zone + i] = i % 2 ? fresh >> 8 : fresh & 255;
    void *data = a.memory.get() + zone;
    std::lock_guard lock(mutex);
    allocations.emplace(reinterpret_cast<uintptr_t>(data), std::move(a));
    return data;
  }
  void release(void *memory, Stream) override {
    std::lock_guard lock(mutex);
    auto found = allocations.find(reinterpret_cast<uintptr_t>(memory));
    if (found == allocations.end()) {
      damage = "a release of memory that was not allocated";
      return;
    }
    if (!found->second.guardsIntact())
      damage = fmt::format("bytes beside an allocation of {} bytes were overwritten", found->second.bytes);
    allocations.erase(found);
  }
  Status upload(void *device, const void *host, uint64_t bytes, Stream) override {
    if (Status ok = inside(device, bytes, "upload"); !ok) return ok;
    if (bytes) std::memcpy(device, host, bytes);
    return {};
  }
  Status download(void *host, const void *device, uint64_t bytes, Stream) override {
    if (Status ok = inside(device, bytes, "download"); !ok) return ok;
    if (bytes) std::memcpy(host, device, bytes);
    return {};
  }
  Status synchronize(Stream) override {
    std::lock_guard lock(mutex);
    for (const auto &[address, a] : allocations)
      if (!a.guardsIntact())
        damage = fmt::format("bytes beside an allocation of {} bytes were overwritten", a.bytes);
    if (damage.empty()) return {};
    return Error::internal(std::exchange(damage, {}), "simulator");
  }

  Status encodeTensorMap(void *map128, const void *base, DType dtype, int64_t columns, int64_t rows,
                         int64_t rowStride, int64_t boxRows) override {
    int64_t width = byteSize(dtype);
    std::string reason = library.encodeTensorMap(map128, int(width), base, uint64_t(columns), uint64_t(rows),
                                                 uint64_t(rowStride * width), 64, uint32_t(boxRows), true);
    if (reason.empty()) return {};
    return Error::internal(reason, "tensor map");
  }

  Expected<LoadedKernel *> load(const jit::GpuImage &image, std::string *) override {
    if (!image.simEntry)
      return Error::internal(fmt::format("'{}' was compiled for {}", image.entry, image.arch), "simulator");
    std::lock_guard lock(mutex);
    auto &kept = images[&image];
    if (!kept)
      kept = std::make_unique<SimKernel>(SimKernel{image.entry, image.simEntry, unsigned(image.registers)});
    return reinterpret_cast<LoadedKernel *>(kept.get());
  }
  Expected<LoadedKernel *> loadDevice(const std::string &kernel, Stream) override {
    std::lock_guard lock(mutex);
    auto &kept = kernels[kernel];
    if (!kept) {
      Error error;
      auto *entry = library.deviceKernel(kernel.c_str(), &error);
      if (!entry) return error;
      kept = std::make_unique<SimKernel>(SimKernel{kernel, entry});
    }
    return reinterpret_cast<LoadedKernel *>(kept.get());
  }

  Expected<std::unique_ptr<Timer>> timer() override {
    return std::unique_ptr<Timer>(std::make_unique<SimTimer>());
  }

  Status launch(LoadedKernel *loaded, const LaunchConfig &config, void **params,
                const std::vector<Range> &ranges, Stream) override {
    auto *kernel = reinterpret_cast<SimKernel *>(loaded);
    auto options = optionsFromEnvironment();
    if (!options) return options.takeError();
    sim::Launch launch;
    launch.entry = kernel->entry, launch.params = params;
    launch.grid = config.grid, launch.block = config.block, launch.cluster = config.cluster;
    launch.smemBytes = config.smemBytes;
    launch.registers = kernel->registers;
    for (const Range &r : ranges)
      if (r.bytes) launch.buffers.push_back({r.name, const_cast<void *>(r.data), r.bytes, r.writable});
    for (unsigned warp = 0; warp < config.block / 32; warp += 4)
      launch.roles.push_back(
          {fmt::format("warpgroup {}", warp / 4), warp, std::min(warp + 4, config.block / 32)});
    sim::Report report = library.launch(launch, *options);
    {
      std::lock_guard lock(statsMutex);
      ++total.launches;
      total.ctas += report.ctas, total.switches += report.switches, total.ms += report.ms;
      total.wgmmas += report.wgmmas, total.copies += report.copies, total.seed = report.seed;
    }
    if (report.ok()) return {};
    Error error = Error::internal(fmt::format("the simulator found {} problems in kernel '{}' (seed {})",
                                              report.issueCount, kernel->name, report.seed),
                                  "simulator");
    error.detail.clear();
    for (const std::string &issue : report.issues) error.detail += issue + "\n";
    if (report.issueCount > report.issues.size())
      error.detail += fmt::format("and {} more\n", report.issueCount - report.issues.size());
    error.detail += fmt::format("repeat with QUERN_SIM_SEED={}", report.seed);
    return error;
  }
};

} // namespace

std::string SimStats::str() const {
  return fmt::format("seed {}, {} launches, {} CTAs, {} switches, {} wgmma, {} async copies, {:.0f} ms", seed,
                     launches, ctas, switches, wgmmas, copies, ms);
}

SimStats simStats() {
  std::lock_guard lock(statsMutex);
  return total;
}

Expected<Backend *> simBackend() {
  static std::mutex creating;
  static Backend *backend = nullptr; // never destroyed: memory and kernels may be in use at exit
  std::lock_guard lock(creating);
  if (backend) return backend;
  auto library = jit::simLibrary();
  if (!library) return library.takeError();
  if (!*library) return Error::user("this build has no simulator", "target sim");
  return backend = new SimBackend(**library);
}

} // namespace quern::gpu
