// Routings: made from router outputs given by pointers and strides (in elements), read by kernels and shown
// to Python as tensors.
#include "python_bindings/src/Bindings.h"
#include "python_bindings/src/Raise.h"
#include <nanobind/ndarray.h>

namespace quern::python {

template <class T> using Vector = nb::ndarray<nb::pytorch, T, nb::ndim<1>, nb::device::cpu, nb::c_contig>;

/// A tensor over `data` that keeps the routing alive.
template <class T> static Vector<T> share(nb::handle self, std::vector<T> &data) {
  return Vector<T>(data.data(), {data.size()}, self);
}

void bindRouting(nb::module_ &m) {
  nb::class_<Routing>(m, "Routing")
      .def_ro("tokens", &Routing::tokens)
      .def_ro("experts", &Routing::experts)
      .def_ro("top_k", &Routing::topK)
      .def_prop_ro("offsets", [](nb::handle self) { return share(self, nb::cast<Routing &>(self).offsets); })
      .def_prop_ro("row_token",
                   [](nb::handle self) { return share(self, nb::cast<Routing &>(self).rowToken); })
      .def_prop_ro("row_weight",
                   [](nb::handle self) { return share(self, nb::cast<Routing &>(self).rowWeight); })
      .def_prop_ro("inverse", [](nb::handle self) { return share(self, nb::cast<Routing &>(self).inverse); });

  m.def("route_from_ids", [](uintptr_t ids, int idBytes, int64_t idStride0, int64_t idStride1,
                             uintptr_t weights, int weightType, int64_t weightStride0, int64_t weightStride1,
                             int64_t tokens, int64_t topK, int64_t experts) {
    DType type = dtypeFromCode(weightType);
    nb::gil_scoped_release release;
    return routeFromIds(reinterpret_cast<const void *>(ids), idBytes, idStride0, idStride1,
                        reinterpret_cast<const void *>(weights), type, weightStride0, weightStride1, tokens,
                        topK, experts);
  });

  m.def("route_from_scores", [](uintptr_t scores, int type, int64_t stride0, int64_t stride1, int64_t tokens,
                                int64_t experts, int64_t topK) {
    DType dtype = dtypeFromCode(type);
    auto routing = [&] {
      nb::gil_scoped_release release;
      return routeFromScores(reinterpret_cast<const void *>(scores), dtype, stride0, stride1, tokens, experts,
                             topK);
    }();
    return unwrap(std::move(routing), Family::Argument);
  });
}

} // namespace quern::python
