// Module: images by request, and the run of one call: slots, segments, batches, parallel phases.
#include "compiler/syntax/Syntax.h"
#include "runtime/launch/Execute.h"
#include "runtime/launch/Request.h"
#include <atomic>
#include <chrono>
#include <fmt/format.h>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace quern {

namespace {
std::atomic<int64_t> compilations{0}, memoryHits{0}, compileUs{0};
} // namespace

Stats stats() { return {compilations.load(), memoryHits.load(), compileUs.load() / 1000.0}; }

struct Module::Impl {
  std::shared_ptr<const syntax::Program> program;
  std::shared_mutex mutex;
  std::unordered_map<std::string, const jit::CpuImage *> images;
  std::mutex compiling; // one at a time: a second caller of the same kernel waits and then hits

  const jit::CpuImage *find(const std::string &key) {
    std::shared_lock lock(mutex);
    auto found = images.find(key);
    return found == images.end() ? nullptr : found->second;
  }

  Expected<const jit::CpuImage *> image(const jit::Request &request) {
    std::string key = requestKey(request);
    if (auto *hit = find(key)) {
      memoryHits.fetch_add(1, std::memory_order_relaxed);
      return hit;
    }
    std::lock_guard one(compiling);
    if (auto *hit = find(key)) return hit;
    auto start = std::chrono::steady_clock::now();
    auto compiled = jit::compileThroughLibrary(request);
    if (!compiled) return compiled.takeError();
    compilations.fetch_add(1);
    compileUs.fetch_add(
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start)
            .count());
    std::unique_lock lock(mutex);
    images[key] = *compiled;
    return *compiled;
  }
};

Expected<std::shared_ptr<Module>> Module::load(std::string_view text, std::string_view fileName) {
  auto program = syntax::parseProgram(text, fileName);
  if (!program) return program.takeError();
  auto module = std::make_shared<Module>();
  module->impl = std::make_shared<Impl>();
  module->impl->program = *program;
  return module;
}

const syntax::Program &Module::program() const { return *impl->program; }

static Status checkOutputs(const Binding &binding, const std::vector<TensorView> &outputs) {
  if (outputs.size() != binding.outputs.size())
    return Error::internal(
        fmt::format("{} outputs given, {} expected", outputs.size(), binding.outputs.size()));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const OutputSpec &spec = binding.outputs[i];
    std::string place = fmt::format("output '{}'", spec.name);
    if (outputs[i].shape != spec.shape)
      return Error::user(fmt::format("shape [{}], expected [{}]", fmt::join(outputs[i].shape, ", "),
                                     fmt::join(spec.shape, ", ")),
                         place);
    if (outputs[i].dtype != spec.dtype)
      return Error::user(fmt::format("dtype {}, expected {}", name(outputs[i].dtype), name(spec.dtype)),
                         place);
    int64_t stride = 1;
    for (size_t d = spec.shape.size(); d-- > 0;) {
      if (spec.shape[d] > 1 && outputs[i].strides[d] != stride)
        return Error::user("must be contiguous", place);
      stride *= spec.shape[d];
    }
  }
  return {};
}

Status Module::run(const syntax::Kernel &kernel, const std::vector<Arg> &args,
                   const std::vector<TensorView> &outputs) {
  auto binding = bindArguments(*impl->program, kernel, args);
  if (!binding) return binding.takeError();
  if (Status ok = checkOutputs(*binding, outputs); !ok) return ok;
  auto image = impl->image(makeRequest(*impl->program, kernel, *binding, args));
  if (!image) return image.takeError();
  return execute(**image, kernel, *binding, args, outputs);
}

} // namespace quern
