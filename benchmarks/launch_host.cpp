// What a cached call costs the host: Module::runOnDevice of the expert layers of gpt-oss-20b (32 experts) on
// the fake CUDA driver (tests/support/fake_cuda), whose calls cost some tens of nanoseconds each. The kernels
// are compiled by the first call; everything timed is a repeated call with the same arguments.
#include "compiler/syntax/Syntax.h"
#include "runtime/gpu/Backend.h"
#include "runtime/launch/Kernel.h"
#include "tests/support/fake_cuda/fake_cuda.h"
#include <benchmark/benchmark.h>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>

namespace {

using namespace quern;

constexpr int64_t experts = 32, hidden = 2880, topK = 4;

[[noreturn]] void stop(const std::string &text) {
  std::fprintf(stderr, "%s\n", text.c_str());
  std::exit(2);
}

test::FakeCuda &fake() {
  static test::FakeCuda *control = [] {
    void *library = dlopen(QUERN_FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
    if (!library) stop(dlerror());
    return reinterpret_cast<test::FakeCuda *(*)()>(dlsym(library, "fakeCuda"))();
  }();
  return *control;
}

/// The arguments of one kernel. Nothing dereferences the addresses; they are 256-byte aligned.
struct Call {
  std::shared_ptr<Module> module;
  const syntax::Kernel *kernel = nullptr;
  gpu::Backend *backend = nullptr;
  gpu::Stream stream = reinterpret_cast<gpu::Stream>(0x5100);
  std::vector<Arg> args;
  std::vector<TensorView> outputs;
  uintptr_t next = 0x7f0000000000;

  void *address(int64_t bytes) {
    void *here = reinterpret_cast<void *>(next);
    next += uintptr_t(bytes + 255) / 256 * 256;
    return here;
  }
  TensorView tensor(DType type, std::vector<int64_t> shape) {
    int64_t count = 1;
    std::vector<int64_t> strides(shape.size());
    for (size_t d = shape.size(); d-- > 0; count *= shape[d]) strides[d] = count;
    return {address(count * byteSize(type)), type, std::move(shape), std::move(strides)};
  }
  PackedView packed(int64_t n) {
    PackedView view;
    view.codec = module->program().findCodec("nf4");
    view.experts = experts, view.shape = {n, hidden, view.codec->block}, view.layout = Layout::Gpu;
    for (int64_t e = 0; e < experts; ++e) {
      view.codes.push_back(static_cast<uint8_t *>(address(view.shape.codeBytes())));
      view.scales.push_back(address(view.shape.scaleCount() * 4));
    }
    return view;
  }
  RoutingView routing(int64_t tokens) {
    RoutingView view{tokens, experts, topK};
    int64_t rows = tokens * topK;
    view.device = {static_cast<int32_t *>(address((experts + 1) * 4)),
                   static_cast<int32_t *>(address(rows * 4)), static_cast<float *>(address(rows * 4)),
                   static_cast<int32_t *>(address(rows * 4))};
    return view;
  }

  Call(const std::string &name, int64_t tokens) {
    auto opened = gpu::cudaBackend(0);
    if (!opened) stop(opened.error().str());
    backend = *opened;
    auto loaded = Module::load(*syntax::shippedFile("gpt_oss"), "gpt_oss.qn");
    if (!loaded) stop(loaded.error().str());
    module = *loaded;
    kernel = module->program().findKernel(name);
    bool up = name == "gate_up";
    int64_t columns = up ? 2 * hidden : hidden, rows = tokens * topK;
    args = {tensor(DType::BF16, {up ? tokens : rows, hidden}), routing(tokens), packed(columns),
            tensor(DType::BF16, {experts, columns})};
    outputs = {up ? tensor(DType::BF16, {rows, hidden}) : tensor(DType::F32, {tokens, hidden})};
  }
  void run() {
    Status ok = module->runOnDevice(*backend, stream, *kernel, args, outputs);
    if (!ok) stop(ok.error().str());
  }
};

/// `current`: the device's context is current on the thread, as under PyTorch.
void cachedCall(benchmark::State &state, const std::string &name) {
  test::FakeCuda &driver = fake();
  Call call(name, state.range(0));
  driver.contextStack() = {driver.contextOf(0)};
  call.run(); // compiles, loads, uploads tables
  uint64_t before = driver.numCalls;
  call.run();
  auto calls = double(driver.numCalls - before);
  for (auto _ : state) call.run();
  state.counters["driver calls"] = calls;
  driver.contextStack().clear();
}

} // namespace

int main(int argc, char **argv) {
  setenv("QUERN_CUDA_LIBRARY", QUERN_FAKE_CUDA, 1);
  fake().reset();
  fake().recording = false;
  for (const char *name : {"gate_up", "down"})
    benchmark::RegisterBenchmark(name, [name](benchmark::State &state) { cachedCall(state, name); })
        ->ArgName("tokens")
        ->Arg(8)
        ->Arg(4096)
        ->Unit(benchmark::kMicrosecond);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
