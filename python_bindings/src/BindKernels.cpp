// Loading .qn texts, describing their kernels, and calling them. A call is two steps, because Python
// allocates the outputs: `bind` matches the arguments and says what the outputs are; `run` computes, with the
// GIL released.
#include "python_bindings/src/Bindings.h"
#include "python_bindings/src/Raise.h"
#include <nanobind/stl/map.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace quern::python {

static std::vector<int64_t> toShape(nb::handle sequence) {
  std::vector<int64_t> out;
  out.reserve(nb::len(sequence));
  for (nb::handle h : sequence) out.push_back(nb::cast<int64_t>(h));
  return out;
}

static Arg toArg(nb::handle h) {
  if (nb::isinstance<nb::tuple>(h)) {
    nb::tuple t = nb::borrow<nb::tuple>(h);
    TensorView view;
    view.data = reinterpret_cast<void *>(nb::cast<uintptr_t>(t[0]));
    view.dtype = dtypeFromCode(nb::cast<int>(t[1]));
    view.shape = toShape(t[2]);
    view.strides = toShape(t[3]);
    return view;
  }
  if (nb::isinstance<PackedHandle>(h)) return nb::cast<PackedHandle &>(h).view;
  if (nb::isinstance<Routing>(h)) {
    const Routing &r = nb::cast<Routing &>(h);
    RoutingView view;
    view.tokens = r.tokens;
    view.experts = r.experts;
    view.topK = r.topK;
    view.offsets = r.offsets.data();
    view.rowToken = r.rowToken.data();
    view.rowWeight = r.rowWeight.data();
    return view;
  }
  if (nb::isinstance<DeviceRoutingHandle>(h)) return nb::cast<DeviceRoutingHandle &>(h).view;
  return nb::cast<double>(h);
}

std::vector<Arg> toArgs(nb::handle sequence) {
  std::vector<Arg> args;
  args.reserve(nb::len(sequence));
  for (nb::handle h : sequence) args.push_back(toArg(h));
  return args;
}

static std::string typeText(const syntax::Param &p) {
  using Param = syntax::Param;
  if (p.kind == Param::Routing || p.kind == Param::Packed || !p.dims.empty()) {
    std::string out = p.kind == Param::Routing                 ? "routing"
                      : p.kind == Param::Packed                ? p.codec
                      : p.elem.kind == syntax::ElemType::Act   ? "act"
                      : p.elem.kind == syntax::ElemType::Float ? "float"
                                                               : std::string(name(p.elem.literal));
    for (size_t i = 0; i < p.dims.size(); ++i) out += (i ? ", " : "[") + p.dims[i].str();
    return out + "]";
  }
  return std::string(name(p.elem.literal));
}

static nb::tuple describe(const std::vector<syntax::Param> &params) {
  static const char *kinds[] = {"tensor", "packed", "routing", "scalar"};
  nb::list out;
  for (const syntax::Param &p : params) out.append(nb::make_tuple(p.name, kinds[p.kind], typeText(p)));
  return nb::tuple(out);
}

/// [(name, params, outputs)], each param (name, kind, type as in the text).
static nb::list kernels(const ModuleHandle &handle) {
  nb::list out;
  for (const syntax::Kernel &k : handle.module->program().kernels)
    out.append(nb::make_tuple(k.name, describe(k.params), describe(k.outputs)));
  return out;
}

static nb::list codecs(const ModuleHandle &handle) {
  nb::list out;
  for (const syntax::Codec &c : handle.module->program().codecs) out.append(CodecHandle{&c, handle.module});
  return out;
}

static Call bindCall(const ModuleHandle &handle, size_t index, nb::list args) {
  const syntax::Program &program = handle.module->program();
  Call call;
  call.module = handle.module;
  call.kernel = &program.kernels.at(index);
  call.args = toArgs(args);
  call.binding = unwrap(bindArguments(program, *call.kernel, call.args), Family::Argument);
  return call;
}

nb::list outputSpecs(const Binding &binding) {
  nb::list out;
  for (const OutputSpec &spec : binding.outputs) {
    nb::list shape;
    for (int64_t d : spec.shape) shape.append(d);
    out.append(nb::make_tuple(int(spec.dtype), shape));
  }
  return out;
}

std::vector<TensorView> outputViews(const Binding &binding, const std::vector<uintptr_t> &pointers) {
  std::vector<TensorView> outputs;
  outputs.reserve(binding.outputs.size());
  for (size_t i = 0; i < binding.outputs.size(); ++i) {
    const OutputSpec &spec = binding.outputs[i];
    TensorView view{reinterpret_cast<void *>(pointers.at(i)), spec.dtype, spec.shape,
                    std::vector<int64_t>(spec.shape.size())};
    int64_t stride = 1;
    for (size_t d = spec.shape.size(); d-- > 0;) {
      view.strides[d] = stride;
      stride *= spec.shape[d];
    }
    outputs.push_back(std::move(view));
  }
  return outputs;
}

static void run(const Call &call, const std::vector<uintptr_t> &pointers) {
  std::vector<TensorView> outputs = outputViews(call.binding, pointers);
  Status status = [&] {
    nb::gil_scoped_release release;
    return call.module->run(*call.kernel, call.args, outputs);
  }();
  unwrap(std::move(status), Family::Argument);
}

void bindKernels(nb::module_ &m) {
  nb::class_<ModuleHandle>(m, "Module")
      .def_prop_ro("kernels", &kernels)
      .def_prop_ro("codecs", &codecs)
      .def("bind", &bindCall);
  nb::class_<Call>(m, "Call")
      .def_prop_ro("outputs", [](const Call &c) { return outputSpecs(c.binding); })
      .def_prop_ro("dims", [](const Call &c) { return c.binding.dims; })
      .def("run", &run);
  m.def("load", [](const std::string &text, const std::string &fileName) {
    return ModuleHandle{unwrap(Module::load(text, fileName), Family::Compile)};
  });
  m.def("shipped_file", [](const std::string &fileName) -> nb::object {
    auto text = syntax::shippedFile(fileName);
    return text ? nb::cast(*text) : nb::none();
  });
  m.def("shipped_files", [] { return syntax::shippedFiles(); });
  m.def("stats", [] {
    Stats s = stats();
    return nb::make_tuple(s.compilations, s.memoryHits, s.compileMs, s.diskHits);
  });
}

} // namespace quern::python
