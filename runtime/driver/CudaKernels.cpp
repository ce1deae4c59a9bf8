// Loading: module, function, attributes; everything that a launch must not do.
#include "runtime/driver/CudaKernels.h"
#include "runtime/cache/Notice.h"
#include "runtime/driver/DeviceCode.h"
#include <fmt/format.h>

namespace quern::driver {

namespace {

/// The driver's log of one load, without the padding.
struct JitLog {
  std::string info = std::string(16 << 10, '\0'), error = std::string(16 << 10, '\0');
  std::string text() const {
    std::string text = error.c_str();
    if (info[0]) text += std::string(text.empty() || text.ends_with('\n') ? "" : "\n") + info.c_str();
    return text;
  }
};

void *value(size_t number) { return reinterpret_cast<void *>(number); }

/// Refusals that another form of the same kernel may pass.
bool isRefusedImage(cuda::Result result) {
  return result == cuda::errorInvalidImage || result == cuda::errorNoBinaryForGpu;
}

/// Refusals of what is in the image, not of the moment (no memory, no context).
bool isOfTheImage(cuda::Result result) {
  return isRefusedImage(result) || result == cuda::errorInvalidPtx ||
         result == cuda::errorUnsupportedPtxVersion || result == cuda::errorNotFound;
}

} // namespace

cuda::Result CudaKernels::loadModule(const std::string &bytes, cuda::Module &module, std::string &text) {
  JitLog log;
  cuda::JitOption options[] = {cuda::JitOption::InfoLogBuffer, cuda::JitOption::InfoLogBufferSizeBytes,
                               cuda::JitOption::ErrorLogBuffer, cuda::JitOption::ErrorLogBufferSizeBytes};
  void *values[] = {log.info.data(), value(log.info.size() - 1), log.error.data(),
                    value(log.error.size() - 1)};
  auto result = driver.api.moduleLoadDataEx(&module, bytes.c_str(), std::size(options), options, values);
  text = log.text();
  return result;
}

Error CudaKernels::loadError(cuda::Result result, const std::string &log, const std::string &place) const {
  Error error = driver.error("cuModuleLoadDataEx", result, place);
  if (!log.empty()) error.detail += (error.detail.empty() ? "" : "\n") + log;
  return error;
}

Expected<cuda::Module> CudaKernels::loadImageModule(const jit::GpuImage &image, const std::string &place,
                                                    std::string &refusal) {
  if (image.arch != device.arch)
    return Error::user(fmt::format("the kernel is for {}, and {} is {} ({})", image.arch, device.place,
                                   device.arch, device.name),
                       place);
  if (image.cubin.empty() && image.ptx.empty())
    return Error::internal("an image without cubin and PTX", place);
  cuda::Module module = nullptr;
  std::string log;
  cuda::Result refused = cuda::success;
  if (!image.cubin.empty()) {
    refused = loadModule(image.cubin, module, log);
    if (refused == cuda::success) return module;
    if (isOfTheImage(refused)) refusal = driver.describe(refused);
    if (!isRefusedImage(refused) || image.ptx.empty()) return loadError(refused, log, place);
  }
  auto result = loadModule(image.ptx, module, log);
  if (result == cuda::success) return module;
  // What fails for want of memory says nothing of the image, whatever its cubin was told.
  refusal = isOfTheImage(result) ? driver.describe(result) : "";
  Error error = loadError(result, log, place);
  if (refused) error.message += fmt::format("; its cubin: {}", driver.describe(refused));
  return error;
}

Status CudaKernels::prepare(CudaKernel &kernel, cuda::Module module, int64_t smemBytes, int cluster,
                            const std::string &place) {
  const cuda::Api &api = driver.api;
  if (auto result = api.moduleGetFunction(&kernel.function, module, kernel.name.c_str()))
    return driver.error("cuModuleGetFunction", result, place);
  // With lazy loading (the default since CUDA 12.2) the code would be loaded at the first launch, which may
  // be in a capture or in a timed region.
  if (api.funcLoad)
    if (auto result = api.funcLoad(kernel.function)) return driver.error("cuFuncLoad", result, place);
  int staticSmem = 0;
  if (auto result =
          api.funcGetAttribute(&staticSmem, cuda::FunctionAttribute::SharedSizeBytes, kernel.function))
    return driver.error("cuFuncGetAttribute", result, place);
  if (staticSmem + smemBytes > device.smemPerBlock)
    return Error::user(fmt::format("the kernel needs {} bytes of shared memory per block, and {} ({}) has {}",
                                   staticSmem + smemBytes, device.place, device.name, device.smemPerBlock),
                       place);
  if (smemBytes > 0) // without this, 48 KB is the most
    if (auto result = api.funcSetAttribute(
            kernel.function, cuda::FunctionAttribute::MaxDynamicSharedSizeBytes, static_cast<int>(smemBytes)))
      return driver.error("cuFuncSetAttribute", result, place);
  if (cluster > 1 && !device.clusters)
    return Error::user(
        fmt::format("the kernel uses clusters, and {} ({}) has none", device.place, device.name), place);
  if (cluster > 8) // the largest that every device with clusters takes
    if (auto result =
            api.funcSetAttribute(kernel.function, cuda::FunctionAttribute::NonPortableClusterSizeAllowed, 1))
      return driver.error("cuFuncSetAttribute", result, place);
  kernel.dynamicSmem = static_cast<uint64_t>(smemBytes);
  return {};
}

CudaKernel *CudaKernels::find(const jit::GpuImage &image) {
  std::shared_lock lock(mapsMutex);
  auto found = images.find(&image);
  if (found == images.end()) return nullptr;
  for (auto &loaded : found->second)
    if (loaded->cubin == image.cubin.data() && loaded->ptx == image.ptx.data() &&
        loaded->kernel.name == image.entry)
      return &loaded->kernel;
  return nullptr;
}

CudaKernel *CudaKernels::find(const std::string &kernel) {
  std::shared_lock lock(mapsMutex);
  auto found = deviceKernels.find(kernel);
  return found == deviceKernels.end() ? nullptr : found->second.get();
}

Expected<CudaKernel *> CudaKernels::load(const jit::GpuImage &image, std::string *refusal) {
  auto known = [&](CudaKernel *kernel) {
    if (refusal) *refusal = kernel->refusal;
    return kernel;
  };
  if (auto *hit = find(image)) return known(hit);
  std::lock_guard one(loading);
  if (auto *hit = find(image)) return known(hit);
  std::string place = fmt::format("kernel '{}' on {}", image.entry, device.place);
  ContextScope scope(driver, device.context);
  if (!scope) return driver.error(scope.call(), scope.code(), place);
  RelaxedCapture relaxed(driver);
  auto loaded = std::make_unique<Image>();
  auto module = loadImageModule(image, place, loaded->kernel.refusal);
  if (!module) return known(&loaded->kernel), module.takeError();
  loaded->kernel.name = image.entry;
  loaded->cubin = image.cubin.data();
  loaded->ptx = image.ptx.data();
  if (Status ok = prepare(loaded->kernel, *module, image.smemBytes, image.cluster, place); !ok) {
    driver.api.moduleUnload(*module); // nobody has seen it
    return ok.takeError();
  }
  std::unique_lock lock(mapsMutex);
  return known(&images[&image].emplace_back(std::move(loaded))->kernel);
}

Expected<CudaKernel *> CudaKernels::loadDevice(const std::string &name) {
  if (auto *hit = find(name)) return hit;
  std::string file = deviceFileOf(name);
  if (file.empty()) return Error::internal("no file of kernels/ defines this kernel", name);
  // Outside the lock of loads: it takes a second, and needs no device.
  auto compiled = compiledDeviceFile(file, device.arch, driver.version);
  if (!compiled) return compiled.takeError();
  std::lock_guard one(loading);
  if (auto *hit = find(name)) return hit;
  std::string place = fmt::format("kernel '{}' on {}", name, device.place);
  ContextScope scope(driver, device.context);
  if (!scope) return driver.error(scope.call(), scope.code(), place);
  RelaxedCapture relaxed(driver);
  cuda::Module &module = deviceModules[file];
  if (!module) {
    std::string log;
    cuda::Result result = loadModule((*compiled)->cubin, module, log);
    if (isOfTheImage(result) && (*compiled)->fromDisk) {
      cache::notice("refused image",
                    fmt::format("kernel '{}': the driver does not take the cached device code, which is "
                                "compiled anew: {}",
                                name, driver.describe(result)));
      auto fresh = compiledDeviceFile(file, device.arch, driver.version, *compiled);
      if (fresh) result = loadModule((*fresh)->cubin, module, log);
    }
    if (result) {
      deviceModules.erase(file);
      return loadError(result, log, place);
    }
  }
  auto kernel = std::make_unique<CudaKernel>();
  kernel->name = name;
  if (Status ok = prepare(*kernel, module, 0, 1, place); !ok) return ok.takeError();
  std::unique_lock lock(mapsMutex);
  return (deviceKernels[name] = std::move(kernel)).get();
}

} // namespace quern::driver
