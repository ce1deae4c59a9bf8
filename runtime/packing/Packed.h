// A packed 4-bit operand as kernels and tools see it, its reference decode, and bitsandbytes' nested absmax.
#pragma once
#include "compiler/syntax/Ast.h"
#include "runtime/packing/Layout.h"
#include <string>
#include <vector>

namespace quern {

/// A view of E experts' packed weights [E, N, K]; owns nothing. All experts share codec, shape, block, dtype
/// and layout.
struct PackedView {
  const syntax::Codec *codec = nullptr;
  int64_t experts = 1;      // 1 for a plain [N, K] operand
  bool hasExpertDim = true; // false: [N, K]
  WeightShape shape;
  DType dtype = DType::BF16; // dtype of the quantization state: decoded values are rounded to it first
  Layout layout = Layout::Bnb;
  std::vector<uint8_t *> codes; // one pointer per expert, 64-bit addressed
  std::vector<void *> scales;   // one per expert; element type codec->scale (bitsandbytes' nested absmax
                                // already expanded to f32)
  std::vector<uint8_t *> zeros; // one per expert when codec->hasZero, else empty; one byte 0..15 per block
};

/// Checks sizes that a view must satisfy: K even, block a power of two in 32..4096, pointers present. Each
/// expert has blocks of its own, the last one possibly short; a stack quantized as one tensor whose blocks
/// cross an expert's end has no such form and is refused where it is packed. User errors name `argument`.
Status checkPacked(const PackedView &view, std::string_view argument);

/// Reference decode of expert `e` to out[N*K] of `out` dtype, row-major, from any layout. Bit-identical to
/// bitsandbytes' dequantize_4bit: fp32 (table[code] - zero) * scale, one rounding to view.dtype, then to
/// `out` (subnormals are kept).
void decodeExpert(const PackedView &view, int64_t e, DType out, void *data);

/// absmax[i] = rn(rn(code2[q[i]] * absmax2[i / block2]) + offset): two fp32 roundings, no fused multiply-add.
void expandNested(const uint8_t *q, int64_t count, const float code2[256], const float *absmax2,
                  int64_t block2, float offset, float *absmax);

/// The inverse: recovers q from the expanded absmax. Where several codes give the same bits (or NaN is
/// involved), the true code cannot be known from absmax; those places are listed in `exceptions` when the
/// fold is made from the true q, so that fold(expand(q)) == q for every input. An absmax that no code gives
/// folds to code 0.
struct NestedException {
  int64_t index;
  uint8_t code;
};
std::vector<NestedException> findNestedExceptions(const uint8_t *q, const float *absmax, int64_t count,
                                                  const float code2[256], const float *absmax2,
                                                  int64_t block2, float offset);
void foldNested(const float *absmax, int64_t count, const float code2[256], const float *absmax2,
                int64_t block2, float offset, const std::vector<NestedException> &exceptions, uint8_t *q);

} // namespace quern
