// Scalar functions at their extremes, reads of every form, several outputs, strides.
#include "tests/unit/jit_support.h"
#include <cmath>
#include <fmt/format.h>
#include <limits>

namespace quern::jittest {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity(),
                notANumber = std::numeric_limits<float>::quiet_NaN();

Case make(const std::string &source, const std::string &kernel, std::map<std::string, int64_t> dims,
          DType act = DType::BF16) {
  Case c{source, kernel, {}};
  c.options.dims = std::move(dims);
  c.options.act = act;
  c.options.seed = seed();
  return c;
}

/// Every builtin, with its argument exactly b[n] (x is 0).
const char *functions = R"(use nf4
fn silu(v) { return v * sigmoid(v) }
kernel f(x: act[T, K], w: nf4[N, K], b: f32[N], s: f32) ->
    e: f32[T, N], g: f32[T, N], h: f32[T, N], i: f32[T, N], u: f32[T, N], m: f32[T, N], c: f32[T, N], q: f32[T, N], d: f32[T, N] {
  z[t, n] = sum(k) x[t, k] * w[n, k] + b[n]
  e[t, n] = exp(z[t, n])
  g[t, n] = sigmoid(z[t, n])
  h[t, n] = tanh(z[t, n])
  i[t, n] = erf(z[t, n])
  u[t, n] = silu(z[t, n])
  m[t, n] = min(z[t, n], s) + max(z[t, n], -s)
  c[t, n] = clamp(z[t, n], -s, s)
  q[t, n] = select(z[t, n] < s, 1.0, 2.0) + select(z[t, n] <= s, 10.0, 20.0) + select(z[t, n] > -s, 100.0, 200.0)
          + select(z[t, n] >= -s, 1000.0, 2000.0) + select(z[t, n] == s, 10000.0, 20000.0)
          + select(z[t, n] != s, 100000.0, 200000.0)
  d[t, n] = s / z[t, n]
})";

TEST(CoreFunctions, AtTheirExtremes) {
  std::vector<float> values = {
      0.0f,      -0.0f,     infinity, -infinity,  notANumber, 1.0f,    -1.0f,   1.5f,    -1.5f,
      88.72283f, 88.72284f, 88.8f,    -87.33654f, -87.33655f, -88.0f,  -103.0f, -104.0f, 89.0f,
      1e-30f,    -1e-30f,   1e-6f,    -1e-6f,     3e-4f,      5e-4f,   9.0f,    -9.0f,   7.9f,
      3.9f,      4.1f,      -4.1f,    1e30f,      -1e30f,     3.4e38f, 2e-38f,  0.4769f, 0.875f};
  for (float v = -100; v < 100; v += 0.37f) values.push_back(v);
  for (float v = -5; v < 5; v += 0.021f) values.push_back(v);
  for (float v = 1e-20f; v < 10; v *= 1.7f) values.push_back(v), values.push_back(-v);
  int64_t n = int64_t(values.size());
  Case c = make(functions, "f", {{"T", 2}, {"N", n}, {"K", 64}});
  Call call(c);
  ASSERT_TRUE(call.ok());
  call.fill("x", [](int64_t) { return 0.0f; });
  call.fill("b", [&](int64_t i) { return values[size_t(i)]; });
  call.args.back() = 1.5;
  call.expectCorrect();
  // Comparisons are exact, so is q; beside a NaN only != holds.
  const TensorView &q = call.outputs[7].view;
  auto at = [&](int64_t i) { return loadAs(DType::F32, q.data, i); };
  EXPECT_EQ(at(7), 2 + 10 + 100 + 1000 + 10000 + 200000.0f);
  EXPECT_EQ(at(8), 1 + 10 + 200 + 1000 + 20000 + 100000.0f);
  EXPECT_EQ(at(4), 2 + 20 + 200 + 2000 + 20000 + 100000.0f);
  EXPECT_EQ(loadAs(DType::F32, call.outputs[1].view.data, 3), 0.0f) << "sigmoid(-inf)";
  EXPECT_EQ(loadAs(DType::F32, call.outputs[1].view.data, 2), 1.0f) << "sigmoid(inf)";
  EXPECT_TRUE(std::isnan(loadAs(DType::F32, call.outputs[5].view.data, 4))) << "min and max of NaN";
  EXPECT_TRUE(std::isnan(loadAs(DType::F32, call.outputs[6].view.data, 4))) << "clamp of NaN";
}

/// Columns read at every stride and phase, outputs of different widths and dtypes, from two contractions.
const char *reads = R"(use nf4
use int4
kernel thirds(x: act[T, K], w: nf4[3*N, K], b: float[3*N], p: f32[T, N]) -> y: act[T, N], o: f32[T, 3*N] {
  z[t, n] = sum(k) x[t, k] * w[n, k]
  y[t, j] = z[t, 3*j+2] - z[t, 3*j] * b[3*j+1] + p[t, j]
  o[t, n] = z[t, n] + b[n]
}
kernel sparse(x: act[T, K], w: nf4[40*N, K]) -> y: f32[T, N] {
  z[t, n] = sum(k) x[t, k] * w[n, k]
  y[t, j] = z[t, 40*j+39] + z[t, 40*j]
}
kernel mixed(x: act[T, K], w: nf4[2*N, K], v: int4[N, K]) -> y: f32[T, N], g: bf16[T, N/2], f: f16[T, 2*N] {
  z[t, n] = sum(k) x[t, k] * w[n, k]
  u[t, n] = sum(k) x[t, k] * v[n, k]
  y[t, j] = z[t, j] + z[t, 2*j+1] * u[t, j] + z[t, j + N]
  g[t, j] = u[t, j + N/2] - u[t, j]
  f[t, n] = z[t, n]
}
kernel routed(x: act[T, K], route: routing[T, E], w: nf4[E, N, K], b: float[E], p: float[T, N], o: float[R, N], v: float[N], s: f32)
    -> h: act[R, N], y: f32[T, N] {
  z[r, n] = sum(k) x[r.token, k] * w[r.expert, n, k]
  h[r, n] = z[r, n] * b[r.expert] + p[r.token, n] * v[n]
  y[r.token, n] += (z[r, n] + o[r, n]) * r.weight * s
})";

TEST(CoreReads, EveryForm) {
  for (int64_t tokens : {1, 4, 33}) {
    Call(make(reads, "thirds", {{"T", tokens}, {"N", 37}, {"K", 128}})).expectCorrect();
    Call(make(reads, "sparse", {{"T", tokens}, {"N", 5}, {"K", 66}})).expectCorrect();
    Call(make(reads, "mixed", {{"T", tokens}, {"N", 70}, {"K", 192}})).expectCorrect();
    Call routed(make(reads, "routed", {{"T", tokens * 6}, {"E", 4}, {"N", 50}, {"K", 96}, {"top_k", 2}}));
    routed.expectCorrect();
    routed.setRowsPerExpert({tokens, 0, tokens * 4 + 1, tokens - 1});
    routed.expectCorrect();
  }
}
TEST(Reads, EveryFormInOtherDtypes) {
  for (DType act : {DType::F32, DType::F16}) {
    Call(make(reads, "thirds", {{"T", 19}, {"N", 32}, {"K", 100}}, act)).expectCorrect();
    Call(make(reads, "mixed", {{"T", 19}, {"N", 64}, {"K", 128}}, act)).expectCorrect();
    Call(make(reads, "routed", {{"T", 19}, {"E", 3}, {"N", 64}, {"K", 64}, {"top_k", 3}}, act))
        .expectCorrect();
  }
}

/// Inputs of any strides. The last stride decides between two kernels; all else is run time.
TEST(CoreStrides, OfActivations) {
  for (Strides how : allStrides) {
    SCOPED_TRACE(name(how));
    Call linear(make("linear", "linear_bias", {{"T", 21}, {"N", 64}, {"K", 128}}));
    ASSERT_TRUE(linear.ok());
    linear.setStrides("x", how);
    linear.expectCorrect();
    Call layer(
        make("gpt_oss", "gate_up", {{"T", 12}, {"E", 3}, {"N", 68}, {"K", 90}, {"top_k", 2}}, DType::F32));
    ASSERT_TRUE(layer.ok());
    layer.setStrides("x", how);
    layer.expectCorrect();
  }
}
TEST(Strides, OfEveryTensor) {
  for (Strides how : allStrides) {
    SCOPED_TRACE(name(how));
    for (const char *which : {"b", "p", "o", "v"}) {
      SCOPED_TRACE(which);
      Call routed(make(reads, "routed", {{"T", 9}, {"E", 4}, {"N", 50}, {"K", 96}, {"top_k", 2}}));
      ASSERT_TRUE(routed.ok());
      routed.setStrides(which, how);
      routed.expectCorrect();
    }
    for (const char *which : {"A", "B", "b"})
      for (DType act : {DType::BF16, DType::F32}) {
        SCOPED_TRACE(which);
        Call lora(make("gpt_oss_lora", "gate_up",
                       {{"T", 9}, {"E", 2}, {"N", 66}, {"K", 100}, {"P", 5}, {"top_k", 2}}, act));
        ASSERT_TRUE(lora.ok());
        lora.setStrides(which, how);
        lora.expectCorrect();
      }
  }
}

/// Dense right-hand sides: no packed operand at all, and a mixture of dtypes.
TEST(CoreDense, RightHandSides) {
  const char *text = R"(kernel dense(x: act[T, K], w: float[N, K], v: f16[N, K]) -> y: f32[T, N] {
    y[t, n] = sum(k) x[t, k] * w[n, k] + sum(k) x[t, k] * v[n, k]
  })";
  for (int64_t tokens : {0, 1, 5, 37})
    for (auto [n, k] : {std::pair<int64_t, int64_t>{33, 31}, {64, 64}})
      Call(make(text, "dense", {{"T", tokens}, {"N", n}, {"K", k}})).expectCorrect();
}

} // namespace
} // namespace quern::jittest
