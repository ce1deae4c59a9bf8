// What the files of this folder share: the native objects that Python holds, and one binding function per
// area.
#pragma once
#include "compiler/syntax/Syntax.h"
#include "runtime/launch/Kernel.h"
#include "runtime/packing/Packed.h"
#include "runtime/routing/Routing.h"
#include <memory>
#include <nanobind/nanobind.h>

namespace quern::python {

namespace nb = nanobind;

/// A codec and whatever keeps it alive (the Program or Module whose text declares it).
struct CodecHandle {
  const syntax::Codec *codec = nullptr;
  std::shared_ptr<const void> owner;
};

/// A packed operand as kernels take it. The Python object `quern.Packed` owns the tensors that the pointers
/// lead to.
struct PackedHandle {
  PackedView view;
  CodecHandle codec;
};

/// A routing in device memory that torch owns.
struct DeviceRoutingHandle {
  RoutingView view;
};

/// A loaded .qn text.
struct ModuleHandle {
  std::shared_ptr<Module> module;
};

/// Arguments matched with a kernel, ready to run on the CPU.
struct Call {
  std::shared_ptr<Module> module;
  const syntax::Kernel *kernel = nullptr;
  std::vector<Arg> args;
  Binding binding;
};

/// Native arguments of a call: (data_ptr, dtype code, shape, strides) | Packed | Routing | DeviceRouting |
/// number.
std::vector<Arg> toArgs(nb::handle sequence);
/// [(dtype code, shape)] in declaration order.
nb::list outputSpecs(const Binding &binding);

DType dtypeFromCode(int code);   // 0 f32, 1 bf16, 2 f16 (DType's own values)
Layout layoutFromCode(int code); // 0 bnb, 1 cpu, 2 gpu

/// The outputs of a call at these addresses, contiguous.
std::vector<TensorView> outputViews(const Binding &binding, const std::vector<uintptr_t> &pointers);

void bindPacking(nb::module_ &m);
void bindRouting(nb::module_ &m);
void bindKernels(nb::module_ &m);
void bindDevice(nb::module_ &m);

} // namespace quern::python
