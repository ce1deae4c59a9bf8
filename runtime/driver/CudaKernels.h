// Kernels loaded on one device: generated images, and Quern's own device code compiled by NVRTC. Each is
// loaded once and never unloaded: an unload may come at any time, and would break a capture (only ending the
// process frees them).
#pragma once
#include "runtime/driver/Driver.h"
#include "runtime/jit/GpuImage.h"
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace quern::driver {

/// What gpu::LoadedKernel is on a CUDA device.
struct CudaKernel {
  cuda::Function function = nullptr;
  std::string name;
  uint64_t dynamicSmem = 0; // most dynamic shared memory that a launch may ask for
  std::string refusal;      // why the driver had to compile the PTX of an image with a cubin
};

/// The device that kernels are loaded on.
struct DeviceFacts {
  cuda::Context context = nullptr; // the primary one
  int ordinal = 0;
  std::string place;      // "cuda:0"
  std::string name, arch; // "NVIDIA H100 80GB HBM3", "sm_90a"
  int multiprocessors = 0;
  int64_t smemPerBlock = 0; // with opt-in
  bool pools = false, clusters = false, tensorMaps = false;
};

class CudaKernels {
  const Driver &driver;
  const DeviceFacts &device;

  struct Image {
    CudaKernel kernel;
    const char *cubin = nullptr, *ptx = nullptr; // of the image: another one may come to lie at its address
  };
  std::mutex loading;          // one load at a time
  std::shared_mutex mapsMutex; // for the lookup of what is loaded
  std::unordered_map<const jit::GpuImage *, std::vector<std::unique_ptr<Image>>> images;
  std::map<std::string, std::unique_ptr<CudaKernel>, std::less<>> deviceKernels;
  std::map<std::string, cuda::Module> deviceModules; // by source file; under `loading`

  CudaKernel *find(const jit::GpuImage &image);
  /// cuModuleLoadDataEx; `log` is what the driver's compiler says.
  cuda::Result loadModule(const std::string &bytes, cuda::Module &module, std::string &log);
  Error loadError(cuda::Result result, const std::string &log, const std::string &place) const;
  /// `refusal`: as of gpu::Backend::load.
  Expected<cuda::Module> loadImageModule(const jit::GpuImage &image, const std::string &place,
                                         std::string &refusal);
  Status prepare(CudaKernel &kernel, cuda::Module module, int64_t smemBytes, int cluster,
                 const std::string &place);

public:
  CudaKernels(const Driver &driver, const DeviceFacts &device) : driver(driver), device(device) {}
  /// The image's cubin, or its PTX through the driver's compiler when there is none or the driver refuses it.
  Expected<CudaKernel *> load(const jit::GpuImage &image, std::string *refusal);
  /// A kernel of kernels/ that is loaded already, or null.
  CudaKernel *find(const std::string &kernel);
  /// By name, from the file of kernels/ that defines it; that file is compiled once per process and
  /// architecture.
  Expected<CudaKernel *> loadDevice(const std::string &kernel);
};

} // namespace quern::driver
