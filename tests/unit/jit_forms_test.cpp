// Kernels of unusual form: sums over sums with packed operands, no sum at all, fixed and repeated dimensions.
#include "tests/unit/jit_support.h"

namespace quern::jittest {
namespace {

const char *forms = R"(use nf4
use int4
kernel adapters(x: act[T, K], route: routing[T, E], w: nf4[E, N, K], A: int4[E, P, K], B: nf4[E, N, P], s: f32) -> y: f32[R, N] {
  y[r, n] = sum(k) x[r.token, k] * w[r.expert, n, k] + s * sum(p) (sum(k) x[r.token, k] * A[r.expert, p, k]) * B[r.expert, n, p]
}
kernel chain(x: act[T, K], A: float[P, K], B: nf4[Q, P], C: float[N, Q], b: float[N]) -> y: f32[T, N], z: act[T, P] {
  a[t, p] = sum(k) x[t, k] * A[p, k]
  c[t, q] = sum(p) a[t, p] * B[q, p]
  y[t, n] = sum(q) c[t, q] * C[n, q] + b[n]
  z[t, p] = a[t, p] * 2.0
}
kernel pointwise(x: act[T, N], b: float[N], s: f32) -> y: f32[T, N] {
  y[t, n] = x[t, n] * s + b[n]
}
kernel fixed(x: act[4, K], w: nf4[N, K]) -> y: act[4, N] {
  y[t, n] = sum(k) x[t, k] * w[n, k]
}
kernel square(x: act[N, K], w: nf4[N, K]) -> y: act[N, N] {
  y[t, n] = sum(k) x[t, k] * w[n, k]
}
kernel literal(x: bf16[T, 66], w: nf4[34, 66]) -> y: f16[T, 34] {
  y[t, n] = sum(k) x[t, k] * w[n, k]
}
kernel two(x: act[T, K], o: act[R, K], route: routing[T, E], w: nf4[E, N, K], v: nf4[N, K]) -> y: f32[R, N] {
  y[r, n] = sum(k) x[r.token, k] * w[r.expert, n, k] + sum(k) o[r, k] * v[n, k]
}
kernel copy(route: routing[T, E], x: float[T, N]) -> y: f32[R, N], z: f32[T, N] {
  y[r, n] = x[r.token, n]
  z[r.token, n] += x[r.token, n] * r.weight
}
kernel wide(x: act[T, K], w: nf4[N, K], b: float[4*N]) -> y: f32[T, N], g: bf16[T, 2*N] {
  z[t, n] = sum(k) x[t, k] * w[n, k]
  y[t, n] = z[t, n] + b[4*n+3] - b[n + N] + b[2*n + 2*N]
  g[t, j] = b[j]
})";

void check(const char *kernel, std::map<std::string, int64_t> dims, DType act = DType::BF16) {
  Case c{forms, kernel, {}};
  c.options.dims = std::move(dims), c.options.act = act, c.options.seed = seed();
  Call(c).expectCorrect();
}

/// Both factors of the second sum are computed: fp32 in the order of a packed operand.
TEST(CoreForms, PackedAdapters) {
  for (int64_t tokens : {2, 66}) {
    check("adapters", {{"T", tokens}, {"E", 2}, {"N", 96}, {"K", 128}, {"P", 64}, {"top_k", 1}});
    check("adapters", {{"T", tokens}, {"E", 2}, {"N", 34}, {"K", 66}, {"P", 6}, {"top_k", 2}}, DType::F32);
  }
}
/// The rank is longer than a block of columns, the segment longer than the schedule's.
TEST(CoreForms, LongAdapters) {
  check("adapters", {{"T", 700}, {"E", 2}, {"N", 32}, {"K", 64}, {"P", 160}, {"top_k", 1}});
}
TEST(CoreForms, ThreeSumsInARow) {
  for (int64_t tokens : {1, 3, 35})
    check("chain", {{"T", tokens}, {"N", 35}, {"K", 129}, {"P", 34}, {"Q", 33}});
}
TEST(CoreForms, WithoutASum) {
  check("pointwise", {{"T", 5}, {"N", 37}});
  check("copy", {{"T", 17}, {"E", 3}, {"N", 45}, {"top_k", 2}});
}
TEST(CoreForms, TwoSums) {
  for (int64_t tokens : {3, 40}) check("two", {{"T", tokens}, {"E", 3}, {"N", 64}, {"K", 128}, {"top_k", 2}});
}
TEST(CoreForms, Wide) { check("wide", {{"T", 17}, {"N", 45}, {"K", 64}}); }

TEST(Forms, Dimensions) {
  check("fixed", {{"N", 37}, {"K", 64}});
  check("square", {{"N", 37}, {"K", 64}});
  check("literal", {{"T", 9}});
}
TEST(Forms, InOtherDtypes) {
  for (DType act : {DType::F32, DType::F16}) {
    check("adapters", {{"T", 40}, {"E", 2}, {"N", 96}, {"K", 128}, {"P", 64}, {"top_k", 1}}, act);
    check("chain", {{"T", 9}, {"N", 64}, {"K", 128}, {"P", 64}, {"Q", 32}}, act);
    check("pointwise", {{"T", 5}, {"N", 37}}, act);
    check("fixed", {{"N", 37}, {"K", 64}}, act);
    check("square", {{"N", 37}, {"K", 64}}, act);
    check("two", {{"T", 17}, {"E", 3}, {"N", 64}, {"K", 128}, {"top_k", 2}}, act);
  }
}

} // namespace
} // namespace quern::jittest
