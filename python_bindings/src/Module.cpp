// The native module quern._quern: thin functions over quern_runtime. It links no LLVM; the compiler is opened
// by the runtime at the first miss. Tensors cross the boundary as data_ptr integers with dtype codes, shapes
// and strides, so that no torch header is needed.
#include "python_bindings/src/Bindings.h"
#include "python_bindings/src/Raise.h"
#include "runtime/launch/ParallelFor.h"
#include <nanobind/stl/string.h>

namespace quern::python {

DType dtypeFromCode(int code) {
  if (code < 0 || code > 2) throw nb::value_error("dtype code must be 0 (f32), 1 (bf16) or 2 (f16)");
  return DType(code);
}

/// Sets the Python exception that quern/errors.py makes from the parts of an Error.
static void translate(const std::exception_ptr &pointer, void *) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Raised &raised) {
    const Error &e = raised.error;
    nb::object exception = nb::module_::import_("quern.errors")
                               .attr("from_native")(int(raised.family), int(e.kind), e.str(), e.message,
                                                    e.place, e.rule, e.detail);
    PyErr_SetObject((PyObject *)Py_TYPE(exception.ptr()), exception.ptr());
  }
}

} // namespace quern::python

NB_MODULE(_quern, m) {
  using namespace quern::python;
  // Tensors that outlive the interpreter's teardown (globals of a script) are no leak.
  nb::set_leak_warnings(false);
  m.doc() = "Native part of quern. Not a public interface: use the package `quern`.";
  nb::register_exception_translator(translate);
  bindPacking(m);
  bindRouting(m);
  bindKernels(m);
  bindDevice(m);
  m.def("num_threads", &quern::numThreads);
  m.def("set_num_threads", &quern::setNumThreads);
  m.def("thread_library", [] { return std::string(quern::threadLibrary()); });
}
