// Whole calls of shipped kernels on the fake CUDA driver: compiled by the real compiler, launched on nothing.
#pragma once
#include "driver_fake.h"
#include "runtime/launch/Kernel.h"
#include <map>

namespace quern::test {

/// The arguments of one call as a device gets them. The fake's memory is the host's, and no kernel runs, so
/// that generated host arrays serve.
class DeviceArguments {
  std::vector<std::shared_ptr<void>> storage;

public:
  std::vector<Arg> args;
  std::vector<TensorView> outputs;

  /// Dimensions that are not given are chosen; packed operands are in the gpu layout.
  static Expected<std::unique_ptr<DeviceArguments>> make(const syntax::Program &program,
                                                         const syntax::Kernel &kernel,
                                                         const std::map<std::string, int64_t> &dims);
};

/// One kernel of a shipped file with arguments.
struct ShippedCall {
  std::shared_ptr<Module> module;
  const syntax::Kernel *kernel = nullptr;
  std::unique_ptr<DeviceArguments> data;

  Status run(gpu::Backend &backend, gpu::Stream stream) const {
    return module->runOnDevice(backend, stream, *kernel, data->args, data->outputs);
  }
  /// The image of this call, compiled once per kernel and process. For runs that load it anew each time.
  const jit::GpuImage *image() const;
  /// As run, but loads and plans anew.
  Status runImage(gpu::Backend &backend, gpu::Stream stream) const;
};

/// Calls on one device that all tests of the suite share, so that each kernel is compiled once. What the fake
/// has written down is forgotten between tests.
class LaunchPath : public FakeDriver {
protected:
  /// Skips without the compiler library or NVRTC, which these calls need.
  void SetUp() override;
  void TearDown() override;
  /// Fails the test when the arguments cannot be made.
  static ShippedCall call(const std::string &file, const std::string &kernel,
                          std::map<std::string, int64_t> dims = {});
  /// Every kernel of every shipped file.
  static std::vector<ShippedCall> everyCall();
  gpu::Backend &shared();
  /// Another one on device `ordinal`, never destroyed: what it has is found by its address.
  gpu::Backend &fresh(int ordinal = 0);
};

} // namespace quern::test
