// Codecs, packed operands, in-place re-tiling, reference decode and nested absmax, by pointers.
#include "python_bindings/src/Bindings.h"
#include "python_bindings/src/Raise.h"
#include "runtime/launch/ParallelFor.h"
#include <cstring>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <sys/mman.h>

namespace quern::python {

static const char *scaleName(syntax::ScaleType type) {
  return type == syntax::ScaleType::F32 ? "f32" : type == syntax::ScaleType::BF16 ? "bf16" : "e8m0";
}

static int64_t scaleBytes(syntax::ScaleType type) {
  return type == syntax::ScaleType::F32 ? 4 : type == syntax::ScaleType::BF16 ? 2 : 1;
}

Layout layoutFromCode(int code) {
  if (code < 0 || code > 2) throw nb::value_error("layout code must be 0 (bnb), 1 (cpu) or 2 (gpu)");
  return Layout(code);
}

template <class T> static std::vector<T *> toPointers(const std::vector<uintptr_t> &integers) {
  std::vector<T *> out;
  out.reserve(integers.size());
  for (uintptr_t i : integers) out.push_back(reinterpret_cast<T *>(i));
  return out;
}

/// The codec NAME of the shipped file NAME.qn.
static CodecHandle shippedCodec(const std::string &codecName) {
  auto text = syntax::shippedFile(codecName);
  if (!text)
    throw Raised(Error::user("there is no shipped codec of this name", "codec '" + codecName + "'"),
                 Family::Argument);
  std::shared_ptr<const syntax::Program> program =
      unwrap(syntax::parseProgram(*text, codecName + ".qn"), Family::Compile);
  const syntax::Codec *codec = program->findCodec(codecName);
  if (!codec)
    throw Raised(
        Error::user("the shipped file of this name declares no such codec", "codec '" + codecName + "'"),
        Family::Argument);
  return {codec, program};
}

static PackedHandle makePacked(const CodecHandle &codec, bool hasExpertDim, int64_t n, int64_t k,
                               int64_t block, int dtype, int layout, const std::vector<uintptr_t> &codes,
                               const std::vector<uintptr_t> &scales, const std::vector<uintptr_t> &zeros,
                               const std::string &argument) {
  PackedHandle handle;
  handle.codec = codec;
  PackedView &view = handle.view;
  view.codec = codec.codec;
  view.experts = int64_t(codes.size());
  view.hasExpertDim = hasExpertDim;
  view.shape = {n, k, block};
  view.dtype = dtypeFromCode(dtype);
  view.layout = layoutFromCode(layout);
  view.codes = toPointers<uint8_t>(codes);
  view.scales = toPointers<void>(scales);
  view.zeros = toPointers<uint8_t>(zeros);
  unwrap(checkPacked(view, argument), Family::Argument);
  return handle;
}

/// Re-tiles every expert in place, experts in parallel.
static void retile(PackedHandle &handle, int layout) {
  PackedView &view = handle.view;
  Layout from = view.layout, to = layoutFromCode(layout);
  if (from == to) return;
  nb::gil_scoped_release release;
  int64_t bytes = scaleBytes(view.codec->scale);
  parallelFor(view.experts, [&](int64_t e, int) {
    retileCodes(view.codes[e], view.shape, view.codec->highFirst, from, to);
    retileScales(view.scales[e], bytes, view.shape, from, to);
    if (!view.zeros.empty()) retileScales(view.zeros[e], 1, view.shape, from, to);
  });
  view.layout = to;
}

/// Decodes all experts to out[E, N, K] (contiguous, `dtype`).
static void decode(const PackedHandle &handle, int dtype, uintptr_t out) {
  DType type = dtypeFromCode(dtype);
  nb::gil_scoped_release release;
  const PackedView &view = handle.view;
  int64_t bytes = view.shape.n * view.shape.k * byteSize(type);
  parallelFor(view.experts, [&](int64_t e, int) {
    decodeExpert(view, e, type, reinterpret_cast<char *>(out) + e * bytes);
  });
}

/// The places that foldNested could not recover, as two strings of bytes: int64 indices and uint8 codes.
static nb::tuple findExceptions(uintptr_t q, uintptr_t absmax, int64_t count, uintptr_t code2,
                                uintptr_t absmax2, int64_t block2, float offset) {
  std::vector<int64_t> indices;
  std::vector<uint8_t> codes;
  {
    nb::gil_scoped_release release;
    for (NestedException e :
         findNestedExceptions(reinterpret_cast<const uint8_t *>(q), reinterpret_cast<const float *>(absmax),
                              count, reinterpret_cast<const float *>(code2),
                              reinterpret_cast<const float *>(absmax2), block2, offset)) {
      indices.push_back(e.index);
      codes.push_back(e.code);
    }
  }
  return nb::make_tuple(nb::bytes(reinterpret_cast<const char *>(indices.data()), indices.size() * 8),
                        nb::bytes(reinterpret_cast<const char *>(codes.data()), codes.size()));
}

static void fold(uintptr_t absmax, int64_t count, uintptr_t code2, uintptr_t absmax2, int64_t block2,
                 float offset, nb::bytes indices, nb::bytes codes, uintptr_t q) {
  std::vector<NestedException> list(codes.size());
  for (size_t i = 0; i < list.size(); ++i) {
    std::memcpy(&list[i].index, indices.c_str() + i * 8, 8);
    list[i].code = uint8_t(codes.c_str()[i]);
  }
  nb::gil_scoped_release release;
  foldNested(reinterpret_cast<const float *>(absmax), count, reinterpret_cast<const float *>(code2),
             reinterpret_cast<const float *>(absmax2), block2, offset, list, reinterpret_cast<uint8_t *>(q));
}

/// Asks Linux for 2 MB pages under fresh memory: a kernel streams these bytes at every call, and page walks
/// are a part of its time.
static void adviseHugePages(uintptr_t address, size_t bytes) {
  constexpr uintptr_t huge = 2u << 20;
  uintptr_t begin = (address + huge - 1) / huge * huge, end = (address + bytes) / huge * huge;
  if (begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
}

void bindPacking(nb::module_ &m) {
  nb::class_<CodecHandle>(m, "Codec")
      .def_prop_ro("name", [](const CodecHandle &c) { return c.codec->name; })
      .def_prop_ro("table",
                   [](const CodecHandle &c) {
                     return std::vector<float>(c.codec->table.begin(), c.codec->table.end());
                   })
      .def_prop_ro("high_first", [](const CodecHandle &c) { return c.codec->highFirst; })
      .def_prop_ro("scale", [](const CodecHandle &c) { return std::string(scaleName(c.codec->scale)); })
      .def_prop_ro("block", [](const CodecHandle &c) { return c.codec->block; })
      .def_prop_ro("has_zero", [](const CodecHandle &c) { return c.codec->hasZero; })
      .def("__repr__", [](const CodecHandle &c) { return "quern.Codec('" + c.codec->name + "')"; });
  m.def("shipped_codec", &shippedCodec);
  nb::class_<PackedHandle>(m, "Packed").def("retile", &retile).def("decode", &decode);
  m.def("make_packed", &makePacked);
  m.def("expand_nested", [](uintptr_t q, int64_t count, uintptr_t code2, uintptr_t absmax2, int64_t block2,
                            float offset, uintptr_t out) {
    nb::gil_scoped_release release;
    expandNested(reinterpret_cast<const uint8_t *>(q), count, reinterpret_cast<const float *>(code2),
                 reinterpret_cast<const float *>(absmax2), block2, offset, reinterpret_cast<float *>(out));
  });
  m.def("advise_huge_pages", &adviseHugePages);
  m.def("nested_exceptions", &findExceptions);
  m.def("fold_nested", &fold);
}

} // namespace quern::python
