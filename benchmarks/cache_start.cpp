// What a process pays before its first kernel runs, with a full cache: the image by the public path, its
// parts, and a look-up that misses. Build: ninja quern-cache-start. Run: bin/quern-cache-start [folder]; the
// folder is filled to 1 GB the first time and may be used again.
#include "compiler/syntax/Syntax.h"
#include "runtime/cache/Store.h"
#include "runtime/launch/ImageFile.h"
#include "runtime/launch/ImageKey.h"
#include "runtime/launch/Images.h"
#include "runtime/launch/LoadCode.h"
#include <benchmark/benchmark.h>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

using namespace quern;

namespace {

std::shared_ptr<const syntax::Program> program() {
  static auto parsed = *syntax::parseProgram(*syntax::shippedFile("gpt_oss"), "gpt_oss.qn");
  return parsed;
}

jit::Request request() {
  jit::Request r;
  r.program = program().get(), r.kernel = "gate_up", r.act = DType::BF16;
  r.dims = {{"K", 2880}, {"N", 5760}};
  for (auto &param : program()->findKernel("gate_up")->params) r.params.push_back({DType::BF16}), (void)param;
  r.outputs = {{DType::BF16}};
  return r;
}

/// Entries of 100 KB of noise up to `bytes`, then the image itself.
void fill(uint64_t bytes) {
  auto &store = cache::Store::user();
  constexpr size_t size = 100 << 10;
  std::mt19937_64 random(1);
  for (uint64_t i = 0; i < bytes / size; ++i) {
    cache::Key key{"cpu", {}};
    key.add("filler", std::to_string(i));
    key.add("source", std::string(2000, 'x'));
    if (i % 512 == 0 && store.find(key) && i + 512 < bytes / size) {
      i += 511; // filled by an earlier run
      continue;
    }
    std::string noise(size, '\0');
    for (size_t at = 0; at < size; at += 8) {
      uint64_t word = random();
      noise.replace(at, 8, reinterpret_cast<char *>(&word), 8);
    }
    store.publish(key, {{{"elf", std::move(noise)}}});
  }
}

void key(benchmark::State &state) {
  jit::Request r = request();
  for (auto _ : state) benchmark::DoNotOptimize(imageKey(r).hash());
}

void find(benchmark::State &state) {
  cache::Key k = imageKey(request());
  for (auto _ : state)
    if (!cache::Store::user().find(k)) state.SkipWithError("not in the cache");
}

void findMiss(benchmark::State &state) {
  cache::Key k = imageKey(request());
  k.add("absent", "1");
  for (auto _ : state)
    if (cache::Store::user().find(k)) state.SkipWithError("in the cache");
}

void load(benchmark::State &state) {
  auto content = cache::Store::user().find(imageKey(request()));
  for (auto _ : state) {
    auto compiled = cpuFromContent(*content, "gate_up");
    auto code = loadCode(compiled->elf);
    if (!code || !code->find("gate_up_main")) state.SkipWithError("does not load");
  }
}

/// Everything from a parsed file to a kernel that can be called, in a process that has done nothing yet.
void firstKernel(benchmark::State &state) {
  for (auto _ : state) {
    int ends[2];
    if (pipe(ends)) return state.SkipWithError("no pipe");
    pid_t pid = fork();
    if (pid == 0) {
      execl("/proc/self/exe", "quern-cache-start", "--first", std::to_string(ends[1]).c_str(), nullptr);
      _exit(1);
    }
    close(ends[1]);
    double seconds = 0;
    if (read(ends[0], &seconds, sizeof seconds) != sizeof seconds) state.SkipWithError("the child failed");
    close(ends[0]);
    waitpid(pid, nullptr, 0);
    state.SetIterationTime(seconds);
  }
}

int first(int out) {
  auto start = std::chrono::steady_clock::now();
  auto image = cpuImage(request());
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!image || imageStats().compilations) return 1;
  return write(out, &seconds, sizeof seconds) == sizeof seconds ? 0 : 1;
}

BENCHMARK(key)->Unit(benchmark::kMicrosecond);
BENCHMARK(find)->Unit(benchmark::kMicrosecond);
BENCHMARK(findMiss)->Unit(benchmark::kMicrosecond);
BENCHMARK(load)->Unit(benchmark::kMicrosecond)->Iterations(200); // each one stays mapped
BENCHMARK(firstKernel)->Unit(benchmark::kMillisecond)->UseManualTime()->Iterations(50);

} // namespace

int main(int argc, char **argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--first") return first(std::atoi(argv[2]));
  benchmark::Initialize(&argc, argv);
  std::string folder = argc > 1 ? argv[1] : "";
  if (folder.empty()) {
    std::fprintf(stderr,
                 "usage: quern-cache-start [--benchmark_...] FOLDER (of the cache, filled to 1 GB)\n");
    return 2;
  }
  setenv("QUERN_CACHE_DIR", folder.c_str(), 1);
  fill(uint64_t(1) << 30);
  auto image = cpuImage(request());
  if (!image) {
    std::fprintf(stderr, "%s\n", image.error().str().c_str());
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
}
