// The CPU: a call is timed by the host's clock, from first to last instruction.
#include "runtime/cache/Digest.h"
#include "runtime/launch/Execute.h"
#include "runtime/launch/Images.h"
#include "runtime/launch/ParallelFor.h"
#include "runtime/tune/Machine.h"
#include "runtime/tune/Problem.h"
#include <algorithm>
#include <chrono>
#include <cstring>
#include <unistd.h>

namespace quern::tune {
namespace {

using Clock = std::chrono::steady_clock;
double usSince(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

uint64_t lastLevelBytes() {
  long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  uint64_t found = l3 > 0 ? uint64_t(l3) : l2 > 0 ? uint64_t(l2) : 0;
  return found ? found : 32 << 20;
}

class CpuMachine final : public Machine {
  jit::Request request;
  const syntax::Kernel &kernel;
  std::map<std::string, const jit::CpuImage *> images;
  uint64_t cacheBytes = lastLevelBytes();
  std::vector<char> scratch;

  /// Every thread writes its part: caches of one core only are flushed by that core.
  void flush() {
    if (scratch.empty()) scratch.resize(std::max<uint64_t>(2 * cacheBytes, 64 << 20));
    constexpr int64_t piece = 1 << 20;
    static unsigned char value = 0;
    ++value;
    parallelFor(int64_t(scratch.size()) / piece,
                [&](int64_t i, int) { std::memset(scratch.data() + i * piece, value, piece); });
  }

  Expected<const jit::CpuImage *> image(const std::string &schedule) {
    auto &kept = images[schedule];
    if (kept) return kept;
    jit::Request full = request;
    full.schedule = schedule, full.rowsPerExpert = 0; // as a call asks
    auto made = cpuImage(full);
    if (made) kept = *made;
    return made;
  }

public:
  CpuMachine(jit::Request request, const syntax::Kernel &kernel)
      : request(std::move(request)), kernel(kernel) {}

  DeviceIdentity identity() override { return cpuIdentity(); }
  uint64_t freeBytes() override {
    long pages = sysconf(_SC_AVPHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? uint64_t(pages) * uint64_t(size) : 0;
  }
  Status place(Data &) override { return {}; }

  Expected<Compiled> compile(const std::string &schedule) override {
    auto made = image(schedule);
    if (!made) return made.takeError();
    // Images are functions here; which bytes they are made of, their key says.
    jit::Request full = request;
    full.schedule = (*made)->schedule, full.rowsPerExpert = 0;
    return Compiled{(*made)->schedule, imageKey(full).hash().substr(0, 16), ""};
  }

  Status run(const std::string &schedule, Case &which) override {
    auto made = image(schedule);
    if (!made) return made.takeError();
    which.fill();
    return execute(**made, kernel, which.binding, which.args, which.views);
  }

  Expected<double> sample(const std::string &schedule, Case &which, Policy) override {
    auto made = image(schedule);
    if (!made) return made.takeError();
    flush();
    auto start = Clock::now();
    if (Status ok = execute(**made, kernel, which.binding, which.args, which.views); !ok)
      return ok.takeError();
    return usSince(start);
  }

  Expected<std::vector<std::pair<double, double>>> coldAndWarm() override {
    // What one core's own cache holds: neighbours may keep a shared last level full, so that a larger copy is
    // never warm. That the flush exceeds the last level follows from its size.
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    size_t size = std::clamp<size_t>(l2 > 0 ? size_t(l2) / 4 : 0, 128 << 10, 1 << 20);
    std::vector<char> from(size, 1), to(size, 2);
    auto copy = [&] {
      auto start = Clock::now();
      std::memcpy(to.data(), from.data(), size);
      asm volatile("" : : "r"(to.data()) : "memory"); // nobody reads it: the copy would be optimised away
      return usSince(start);
    };
    std::vector<std::pair<double, double>> pairs;
    for (int i = 0; i < 9; ++i) {
      flush();
      double cold = copy(), warm = copy();
      for (int again = 0; again < 3; ++again) warm = std::min(warm, copy());
      pairs.emplace_back(cold, warm);
    }
    return pairs;
  }
};

} // namespace

Expected<std::unique_ptr<Machine>> makeCpuMachine(const Problem &problem) {
  auto request = requestOf(problem);
  if (!request) return request.takeError();
  return std::unique_ptr<Machine>(std::make_unique<CpuMachine>(std::move(*request), **kernelOf(problem)));
}

} // namespace quern::tune
