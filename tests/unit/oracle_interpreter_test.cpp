// The oracle against plain loops written here by hand for each kernel.
#include "compiler/syntax/Syntax.h"
#include "runtime/launch/ParallelFor.h"
#include "runtime/oracle/Generate.h"
#include "runtime/oracle/Interpreter.h"
#include <cmath>
#include <gtest/gtest.h>
#include <limits>

using namespace quern;
using namespace quern::oracle;

namespace {
constexpr double notANumber = std::numeric_limits<double>::quiet_NaN();

struct Loaded {
  std::shared_ptr<const syntax::Program> program;
  const syntax::Kernel *kernel = nullptr;
};

Loaded load(std::string_view text, std::string_view kernel) {
  auto program = syntax::parseProgram(text, "test.qn");
  EXPECT_TRUE(program) << program.error().str();
  return {*program, (*program)->findKernel(std::string(kernel))};
}
Loaded loadShipped(std::string_view file, std::string_view kernel) {
  return load(*syntax::shippedFile(file), kernel);
}

std::vector<Output> run(const Loaded &l, const std::vector<Arg> &args) {
  auto out = interpret(*l.program, *l.kernel, args);
  EXPECT_TRUE(out) << out.error().str();
  return *out;
}

double at(const Arg &arg, std::vector<int64_t> index) {
  const TensorView &t = std::get<TensorView>(arg);
  int64_t offset = 0;
  for (size_t d = 0; d < index.size(); ++d) offset += index[d] * t.strides[d];
  return loadAs(t.dtype, t.data, offset);
}

std::vector<float> weights(const Arg &arg, int64_t expert, DType act) {
  const PackedView &p = std::get<PackedView>(arg);
  std::vector<float> values(size_t(p.shape.n * p.shape.k));
  std::vector<uint16_t> bits(values.size());
  decodeExpert(p, expert, act, act == DType::F32 ? static_cast<void *>(values.data()) : bits.data());
  if (act != DType::F32)
    for (size_t i = 0; i < bits.size(); ++i) values[i] = loadAs(act, bits.data(), int64_t(i));
  return values;
}

TensorView view(std::vector<float> &data, std::vector<int64_t> shape) {
  TensorView t{data.data(), DType::F32, shape, std::vector<int64_t>(shape.size(), 1)};
  for (size_t d = shape.size(); d-- > 1;) t.strides[d - 1] = t.strides[d] * shape[d];
  return t;
}
} // namespace

TEST(Interpreter, GptOssLayerAgainstLoops) {
  Loaded up = loadShipped("gpt_oss", "gate_up"), down = loadShipped("gpt_oss", "down");
  for (DType act : {DType::BF16, DType::F32, DType::F16})
    for (RoutingKind kind : {RoutingKind::Uniform, RoutingKind::Zipf, RoutingKind::One, RoutingKind::Empty}) {
      GenerateOptions options;
      options.dims = {{"T", 5}, {"E", 4}, {"N", 32}, {"K", 64}, {"top_k", 3}};
      options.act = act, options.routing = kind, options.seed = 11;
      auto arguments = generate(*up.program, *up.kernel, options);
      ASSERT_TRUE(arguments) << arguments.error().str();
      const std::vector<Arg> &a = arguments->args;
      const Routing &routing = *arguments->routing;
      std::vector<Output> h = run(up, a);
      ASSERT_EQ(h[0].shape, (std::vector<int64_t>{15, 16}));
      for (int64_t e = 0; e < 4; ++e) {
        std::vector<float> w = weights(a[2], e, act);
        for (int64_t r = routing.offsets[e]; r < routing.offsets[e + 1]; ++r) {
          EXPECT_EQ(h[0].rowExpert[r], e);
          for (int64_t j = 0; j < 16; ++j) {
            double pair[2], magnitude = 0;
            for (int64_t i = 0; i < 2; ++i) {
              pair[i] = at(a[3], {e, 2 * j + i});
              for (int64_t k = 0; k < 64; ++k) {
                double product = at(a[0], {routing.rowToken[r], k}) * double(w[(2 * j + i) * 64 + k]);
                pair[i] += product;
                magnitude += std::fabs(product);
              }
            }
            double g = std::min(pair[0], 7.0), u = std::max(-7.0, std::min(pair[1], 7.0));
            double expected = (u + 1) * g / (1 + std::exp(-1.702 * g));
            ASSERT_NEAR(h[0].values[r * 16 + j], expected, 1e-12 * (1 + magnitude));
            ASSERT_GT(h[0].magnitude[r * 16 + j], 0);
          }
        }
      }
      for (int64_t r = routing.liveRows(); r < 15; ++r)
        for (int64_t j = 0; j < 16; ++j) ASSERT_EQ(h[0].values[r * 16 + j], 0);

      GenerateOptions downOptions = options;
      downOptions.dims["K"] = 32, downOptions.dims["N"] = 48;
      auto downArguments = generate(*down.program, *down.kernel, downOptions);
      ASSERT_TRUE(downArguments) << downArguments.error().str();
      const std::vector<Arg> &d = downArguments->args;
      const Routing &route = *downArguments->routing;
      std::vector<double> y(5 * 48), magnitude(5 * 48);
      for (int64_t e = 0; e < 4; ++e) {
        std::vector<float> w = weights(d[2], e, act);
        for (int64_t r = route.offsets[e]; r < route.offsets[e + 1]; ++r)
          for (int64_t n = 0; n < 48; ++n) {
            double z = at(d[3], {e, n}), m = 0;
            for (int64_t k = 0; k < 32; ++k) {
              z += at(d[0], {r, k}) * double(w[n * 32 + k]);
              m += std::fabs(at(d[0], {r, k}) * double(w[n * 32 + k]));
            }
            y[route.rowToken[r] * 48 + n] += z * route.rowWeight[r];
            magnitude[route.rowToken[r] * 48 + n] += m * route.rowWeight[r];
          }
      }
      std::vector<Output> out = run(down, d);
      ASSERT_EQ(out[0].shape, (std::vector<int64_t>{5, 48}));
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_NEAR(out[0].values[i], y[i], 1e-12 * (1 + magnitude[i]));
        // The bound is sum |x||w|, and a little for the operations that follow.
        ASSERT_GE(out[0].magnitude[i], magnitude[i] * (1 - 1e-12));
        ASSERT_LE(out[0].magnitude[i], magnitude[i] * 1.2 + 1.0);
      }
    }
}

TEST(Interpreter, LowRankTermAndStrides) {
  Loaded l =
      load("codec c { table = [0, 1, 2, 3, 4, 5, 6, 7, -1, -2, -3, -4, -5, -6, -7, -8] first = low scale f32 "
           "per 32 }\n"
           "kernel main(x: f32[T, K], w: c[N, K], A: f32[P, K], B: f32[N, P], s: f32) -> y: f32[T, N] {\n"
           "  y[t, n] = sum(k) x[t, k] * w[n, k] + s * sum(p) (sum(k) x[t, k] * A[p, k]) * B[n, p]\n}",
           "main");
  // x is stored column by column and backwards: strides (1, -3).
  std::vector<float> x = {5, 2, 3, 1, 4, 6}, a = {1, -1}, b = {2, 0, -3};
  TensorView xView{x.data() + 3, DType::F32, {3, 2}, {1, -3}};
  std::vector<uint8_t> codes = {0x21, 0x43, 0x98}; // low nibble first: (1, 2), (3, 4), (-1, -2)
  float scale = 0.5f;
  PackedView w;
  w.codec = l.program->findCodec("c");
  w.hasExpertDim = false, w.shape = {3, 2, 32}, w.dtype = DType::F32;
  w.codes = {codes.data()}, w.scales = {&scale};
  std::vector<Output> y = run(l, {xView, w, view(a, {1, 2}), view(b, {3, 1}), 10.0});
  const double weightRows[3][2] = {{0.5, 1}, {1.5, 2}, {-0.5, -1}};
  for (int t = 0; t < 3; ++t)
    for (int n = 0; n < 3; ++n) {
      double x0 = x[3 + t], x1 = x[t];
      EXPECT_EQ(y[0].values[t * 3 + n],
                x0 * weightRows[n][0] + x1 * weightRows[n][1] + 10 * (x0 - x1) * b[n]);
    }
}

TEST(Interpreter, NaNAndSelect) {
  Loaded l = load("kernel main(x: f32[T, K], w: f32[N, K], v: f32[T, N]) -> lo: f32[T, N], pick: f32[T, N], "
                  "ne: f32[T, N] {\n"
                  "  lo[t, n] = min(v[t, n], 1.0) + max(v[t, n], 1.0) + 0 * sum(k) x[t, k] * w[n, k]\n"
                  "  pick[t, n] = select(v[t, n] < 2.0, 1.0, 5.0)\n"
                  "  ne[t, n] = select(v[t, n] != v[t, n], 1.0, 5.0)\n}",
                  "main");
  std::vector<float> x = {1, 1}, w = {1, 1, 1, 1, 1, 1}, v = {float(notANumber), 0.5, 3};
  std::vector<Output> out = run(l, {view(x, {1, 2}), view(w, {3, 2}), view(v, {1, 3})});
  EXPECT_TRUE(std::isnan(out[0].values[0]));
  EXPECT_EQ(out[0].values[1], 1.5);
  EXPECT_EQ(out[0].values[2], 4);
  EXPECT_EQ(out[1].values, (std::vector<double>{5, 1, 5}));
  EXPECT_EQ(out[2].values, (std::vector<double>{1, 5, 5}));
}

TEST(Interpreter, SameBitsForAnyThreadCount) {
  Loaded l = loadShipped("gpt_oss_lora", "gate_up");
  GenerateOptions options;
  options.dims = {{"T", 40}, {"E", 3}, {"N", 96}, {"K", 128}, {"P", 5}, {"top_k", 2}};
  auto arguments = generate(*l.program, *l.kernel, options);
  ASSERT_TRUE(arguments) << arguments.error().str();
  setNumThreads(1);
  std::vector<Output> one = run(l, arguments->args);
  setNumThreads(4);
  std::vector<Output> four = run(l, arguments->args);
  setNumThreads(0);
  EXPECT_EQ(one[0].values, four[0].values);
  EXPECT_EQ(one[0].magnitude, four[0].magnitude);
}
