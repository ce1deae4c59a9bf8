// What the files of this folder share: the native objects that Python holds, and one binding function per
// area.
#pragma once
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

DType dtypeFromCode(int code); // 0 f32, 1 bf16, 2 f16 (DType's own values)

void bindPacking(nb::module_ &m);
void bindRouting(nb::module_ &m);
void bindKernels(nb::module_ &m);

} // namespace quern::python
