// Devices: kernels, routing, re-tiling and decoding on data that lie where the device reaches them. Every
// pointer is a device address (for the simulator, a host address), memory belongs to torch, work goes on the
// caller's stream, and nothing waits for the device.
#include "python_bindings/src/Bindings.h"
#include "python_bindings/src/Raise.h"
#include "runtime/gpu/DeviceCode.h"
#include "runtime/gpu/Execute.h"
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace quern::python {
namespace {

/// A backend; it lives as long as the process.
struct DeviceHandle {
  gpu::Backend *backend = nullptr;
};

gpu::Stream toStream(uintptr_t stream) { return reinterpret_cast<gpu::Stream>(stream); }

/// What `work()` returns, computed with the GIL released; an error becomes an exception.
template <class Work> void withoutGil(Work work) {
  Status status = [&] {
    nb::gil_scoped_release release;
    return work();
  }();
  unwrap(std::move(status), Family::Argument);
}

DeviceHandle openDevice(const std::string &target, int ordinal) {
  auto backend = [&]() -> Expected<gpu::Backend *> {
    nb::gil_scoped_release release;
    return target == "sim" ? gpu::simBackend() : gpu::cudaBackend(ordinal);
  }();
  return {unwrap(std::move(backend), Family::Argument)};
}

/// A call as `prepare` found it, with the arguments of this one.
struct PreparedHandle {
  std::shared_ptr<Module> module; // owns what the call refers to
  std::shared_ptr<const PreparedCall> call;
  std::vector<Arg> args;
  gpu::Stream stream = nullptr;
};

PreparedHandle prepare(const DeviceHandle &device, const ModuleHandle &handle, size_t index, nb::handle args,
                       uintptr_t stream, const std::string &schedule) {
  const syntax::Kernel &kernel = handle.module->program().kernels.at(index);
  PreparedHandle prepared{handle.module, nullptr, toArgs(args), toStream(stream)};
  auto call = [&] {
    nb::gil_scoped_release release; // it may compile
    return handle.module->prepare(*device.backend, prepared.stream, kernel, prepared.args, schedule);
  }();
  prepared.call = unwrap(std::move(call), Family::Argument);
  return prepared;
}

/// Outputs at these addresses, as `outputs` describes them, contiguous.
void run(const PreparedHandle &prepared, const std::vector<uintptr_t> &pointers) {
  std::vector<TensorView> outputs = outputViews(prepared.call->binding, pointers);
  withoutGil(
      [&] { return prepared.module->launch(*prepared.call, prepared.stream, prepared.args, outputs); });
}

/// Arrays that torch allocated, contents as in quern::DeviceRouting.
DeviceRoutingHandle deviceRouting(int64_t tokens, int64_t experts, int64_t topK, uintptr_t offsets,
                                  uintptr_t rowToken, uintptr_t rowWeight, uintptr_t inverse) {
  DeviceRoutingHandle handle;
  handle.view.tokens = tokens, handle.view.experts = experts, handle.view.topK = topK;
  handle.view.device = {reinterpret_cast<int32_t *>(offsets), reinterpret_cast<int32_t *>(rowToken),
                        reinterpret_cast<float *>(rowWeight), reinterpret_cast<int32_t *>(inverse)};
  return handle;
}

/// Fills `out` from ids [tokens, topK]; weights may be null.
void routeIds(const DeviceHandle &device, uintptr_t stream, const DeviceRoutingHandle &out, uintptr_t ids,
              int idBytes, int64_t idStride0, int64_t idStride1, uintptr_t weights, int weightType,
              int64_t weightStride0, int64_t weightStride1) {
  gpu::RouteIds source{reinterpret_cast<const void *>(ids),
                       idBytes,
                       {idStride0, idStride1},
                       reinterpret_cast<const void *>(weights),
                       dtypeFromCode(weightType),
                       {weightStride0, weightStride1},
                       out.view.tokens,
                       out.view.topK,
                       out.view.experts};
  withoutGil([&] { return gpu::routeFromIds(*device.backend, toStream(stream), source, out.view.device); });
}

/// Fills `out` from dense scores [tokens, experts].
void routeScores(const DeviceHandle &device, uintptr_t stream, const DeviceRoutingHandle &out,
                 uintptr_t scores, int type, int64_t stride0, int64_t stride1) {
  gpu::RouteScores source{reinterpret_cast<const void *>(scores),
                          dtypeFromCode(type),
                          {stride0, stride1},
                          out.view.tokens,
                          out.view.topK,
                          out.view.experts};
  withoutGil(
      [&] { return gpu::routeFromScores(*device.backend, toStream(stream), source, out.view.device); });
}

void retile(const DeviceHandle &device, uintptr_t stream, PackedHandle &packed, int layout) {
  Layout to = layoutFromCode(layout);
  if (packed.view.layout == to) return;
  withoutGil([&] { return gpu::retileInPlace(*device.backend, toStream(stream), packed.view, to); });
  packed.view.layout = to;
}

/// Decodes all experts to out [E, N, K] (contiguous).
void decode(const DeviceHandle &device, uintptr_t stream, const PackedHandle &packed, int dtype,
            uintptr_t out) {
  DType type = dtypeFromCode(dtype);
  int64_t bytes = packed.view.shape.n * packed.view.shape.k * byteSize(type);
  withoutGil([&]() -> Status {
    for (int64_t e = 0; e < packed.view.experts; ++e)
      if (Status ok = gpu::dequantize(*device.backend, toStream(stream), packed.view, e, type,
                                      reinterpret_cast<char *>(out) + e * bytes);
          !ok)
        return ok;
    return {};
  });
}

} // namespace

void bindDevice(nb::module_ &m) {
  nb::class_<DeviceRoutingHandle>(m, "DeviceRouting");
  nb::class_<DeviceHandle>(m, "Device")
      .def_prop_ro("name", [](const DeviceHandle &d) { return d.backend->name(); })
      .def_prop_ro("arch", [](const DeviceHandle &d) { return d.backend->arch(); })
      .def_prop_ro("multiprocessors", [](const DeviceHandle &d) { return d.backend->multiprocessors(); })
      .def("prepare", &prepare)
      .def("route_ids", &routeIds)
      .def("route_scores", &routeScores)
      .def("retile", &retile)
      .def("decode", &decode);
  nb::class_<PreparedHandle>(m, "PreparedCall")
      .def_prop_ro("outputs", [](const PreparedHandle &p) { return outputSpecs(p.call->binding); })
      .def("run", &run);
  m.def("open_device", &openDevice);
  m.def("device_routing", &deviceRouting);
}

} // namespace quern::python
