// See driver_calls.h.
#include "driver_calls.h"
#include "compiler/syntax/Syntax.h"
#include "runtime/driver/Nvrtc.h"
#include "runtime/gpu/Execute.h"
#include "runtime/jit/Jit.h"
#include "runtime/launch/Request.h"
#include "runtime/oracle/Generate.h"

namespace quern::test {

Expected<std::unique_ptr<DeviceArguments>> DeviceArguments::make(const syntax::Program &program,
                                                                 const syntax::Kernel &kernel,
                                                                 const std::map<std::string, int64_t> &dims) {
  oracle::GenerateOptions options;
  options.dims = dims, options.layout = Layout::Gpu;
  auto generated = oracle::generate(program, kernel, options);
  if (!generated) return generated.takeError();
  auto owned = std::make_shared<oracle::Arguments>(std::move(*generated));
  auto made = std::make_unique<DeviceArguments>();
  made->storage.push_back(owned);
  auto array = [&](int64_t count) {
    auto values = std::make_shared<std::vector<int32_t>>(size_t(count + 1));
    made->storage.push_back(values);
    return values->data();
  };
  made->args = owned->args;
  for (Arg &arg : made->args)
    if (auto *r = std::get_if<RoutingView>(&arg)) {
      RoutingView view{r->tokens, r->experts, r->topK};
      int64_t rows = r->tokens * r->topK;
      view.device = {array(r->experts + 1), array(rows), reinterpret_cast<float *>(array(rows)), array(rows)};
      arg = view;
    }
  auto binding = bindArguments(program, kernel, made->args);
  if (!binding) return binding.takeError();
  for (const OutputSpec &spec : binding->outputs) {
    int64_t count = 1;
    std::vector<int64_t> strides(spec.shape.size());
    for (size_t d = spec.shape.size(); d-- > 0; count *= spec.shape[d]) strides[d] = count;
    made->outputs.push_back({array(count), spec.dtype, spec.shape, std::move(strides)});
  }
  return made;
}

const jit::GpuImage *ShippedCall::image() const {
  static std::map<const syntax::Kernel *, const jit::GpuImage *> images;
  auto &image = images[kernel];
  if (image) return image;
  auto binding = bindArguments(module->program(), *kernel, data->args);
  if (!binding) return ADD_FAILURE() << binding.error().str(), nullptr;
  auto compiled =
      jit::compileGpuThroughLibrary(makeRequest(module->program(), *kernel, *binding, data->args, "sm_90a"));
  if (!compiled) return ADD_FAILURE() << compiled.error().str(), nullptr;
  return image = new jit::GpuImage(
             std::move(*compiled)); // until the process ends: kernels are found by its address
}

Status ShippedCall::runImage(gpu::Backend &backend, gpu::Stream stream) const {
  auto loaded = backend.load(*image());
  if (!loaded) return loaded.takeError();
  auto binding = bindArguments(module->program(), *kernel, data->args);
  if (!binding) return binding.takeError();
  auto plan = gpu::makePlan(backend, stream, *image(), *loaded, *kernel, *binding, data->args);
  if (!plan) return plan.takeError();
  return gpu::execute(*plan, stream, data->args, data->outputs);
}

static gpu::Backend *&sharedDevice() {
  static gpu::Backend *device = nullptr;
  return device;
}

void LaunchPath::SetUp() {
  // Tests of other suites reset the fake, and with it the shared device's pool.
  if (fake.livePools.empty()) sharedDevice() = nullptr;
  fake.forget();
  if (auto library = jit::simLibrary(); !library) GTEST_SKIP() << library.error().str();
  if (auto found = driver::findNvrtc(); !found) GTEST_SKIP() << "no NVRTC: " << found.error().str();
}

void LaunchPath::TearDown() {
  EXPECT_FALSE(fake.misuse) << "the driver was used against its rules";
  EXPECT_TRUE(fake.contextStack().empty()) << "a context was left on the thread";
  EXPECT_EQ(fake.captureMode(), cuda::CaptureMode::Global) << "a relaxed capture mode was left on the thread";
  fake.forget();
}

ShippedCall LaunchPath::call(const std::string &file, const std::string &kernel,
                             std::map<std::string, int64_t> dims) {
  static std::map<std::string, std::shared_ptr<Module>> modules;
  auto &module = modules[file];
  if (!module) {
    auto loaded = Module::load(*syntax::shippedFile(file), file);
    if (!loaded) return ADD_FAILURE() << loaded.error().str(), ShippedCall();
    module = *loaded;
  }
  ShippedCall made{module, module->program().findKernel(kernel), nullptr};
  auto data = DeviceArguments::make(module->program(), *made.kernel, dims);
  if (data)
    made.data = std::move(*data);
  else
    ADD_FAILURE() << file << " " << kernel << ": " << data.error().str();
  return made;
}

std::vector<ShippedCall> LaunchPath::everyCall() {
  std::vector<ShippedCall> calls;
  for (std::string file : syntax::shippedFiles()) {
    auto program = syntax::parseProgram(*syntax::shippedFile(file), file);
    for (auto &kernel : (*program)->kernels) calls.push_back(call(file, kernel.name));
  }
  return calls;
}

gpu::Backend &LaunchPath::fresh(int ordinal) {
  static auto &kept = *new std::vector<std::unique_ptr<gpu::Backend>>;
  static auto &drivers = *new std::vector<std::unique_ptr<driver::Driver>>; // outlive their backends
  driver.reset();
  kept.push_back(backend(ordinal));
  drivers.push_back(std::move(driver));
  return *kept.back();
}

gpu::Backend &LaunchPath::shared() {
  if (!sharedDevice()) sharedDevice() = &fresh();
  return *sharedDevice();
}

} // namespace quern::test
