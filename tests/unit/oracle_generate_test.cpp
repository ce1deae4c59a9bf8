// Generated arguments: complete, deterministic, and as the options ask.
#include "compiler/syntax/Syntax.h"
#include "runtime/oracle/Generate.h"
#include "runtime/oracle/Interpreter.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <numeric>
#include <set>

using namespace quern;
using namespace quern::oracle;

namespace {
struct Loaded {
  std::shared_ptr<const syntax::Program> program;
  const syntax::Kernel *kernel = nullptr;
};
Loaded loadShipped(std::string_view file, const std::string &kernel) {
  auto program = syntax::parseProgram(*syntax::shippedFile(file), "test.qn");
  EXPECT_TRUE(program) << program.error().str();
  return {*program, (*program)->findKernel(kernel)};
}

Arguments make(const Loaded &l, const GenerateOptions &options) {
  auto arguments = generate(*l.program, *l.kernel, options);
  EXPECT_TRUE(arguments) << arguments.error().str();
  return std::move(*arguments);
}
std::string errorOf(const Loaded &l, const GenerateOptions &options) {
  auto arguments = generate(*l.program, *l.kernel, options);
  return arguments ? "no error" : arguments.error().str();
}
} // namespace

TEST(Generate, MissingDimensionsAreChosenAndBind) {
  for (const std::string &file : syntax::shippedFiles()) {
    auto program = syntax::parseProgram(*syntax::shippedFile(file), file);
    ASSERT_TRUE(program) << program.error().str();
    for (const syntax::Kernel &kernel : (*program)->kernels) {
      GenerateOptions options;
      options.dims = {{"T", 3}};
      auto arguments = generate(**program, kernel, options);
      ASSERT_TRUE(arguments) << file << " " << arguments.error().str();
      EXPECT_EQ(arguments->dims.at("T"), 3);
      EXPECT_EQ(std::set<std::string>(arguments->chosen.begin(), arguments->chosen.end()).count("T"), 0u);
      EXPECT_FALSE(arguments->chosen.empty());
      auto binding = bindArguments(**program, kernel, arguments->args);
      EXPECT_TRUE(binding) << file << " " << binding.error().str();
    }
  }
}

TEST(Generate, SameSeedSameBytesOtherSeedOthers) {
  Loaded l = loadShipped("gpt_oss", "gate_up");
  GenerateOptions options;
  options.seed = 5;
  Arguments a = make(l, options), b = make(l, options);
  options.seed = 6;
  Arguments c = make(l, options);
  auto codes = [](const Arguments &x) {
    const PackedView &p = std::get<PackedView>(x.args[2]);
    return std::string(reinterpret_cast<char *>(p.codes[1]), size_t(p.shape.codeBytes()));
  };
  auto activations = [](const Arguments &x) {
    const TensorView &t = std::get<TensorView>(x.args[0]);
    return std::string(static_cast<char *>(t.data), size_t(t.shape[0] * t.shape[1] * 2));
  };
  EXPECT_EQ(codes(a), codes(b));
  EXPECT_EQ(activations(a), activations(b));
  EXPECT_EQ(a.routing->rowToken, b.routing->rowToken);
  EXPECT_EQ(a.routing->rowWeight, b.routing->rowWeight);
  EXPECT_NE(codes(a), codes(c));
  EXPECT_NE(activations(a), activations(c));
  EXPECT_NE(a.routing->rowToken, c.routing->rowToken);
}

TEST(Generate, EveryByteValueAndLayoutsAgree) {
  Loaded l = loadShipped("gpt_oss", "gate_up");
  GenerateOptions options;
  options.dims = {{"N", 64}, {"K", 64}, {"E", 3}};
  Arguments bnb = make(l, options);
  const PackedView &p = std::get<PackedView>(bnb.args[2]);
  for (int64_t e = 0; e < 3; ++e)
    EXPECT_EQ(std::set<uint8_t>(p.codes[e], p.codes[e] + p.shape.codeBytes()).size(), 256u);
  for (Layout layout : {Layout::Cpu, Layout::Gpu}) {
    options.layout = layout;
    Arguments other = make(l, options);
    const PackedView &q = std::get<PackedView>(other.args[2]);
    EXPECT_NE(std::memcmp(p.codes[2], q.codes[2], size_t(p.shape.codeBytes())), 0);
    std::vector<float> a(64 * 64), b(64 * 64);
    decodeExpert(p, 2, DType::F32, a.data());
    decodeExpert(q, 2, DType::F32, b.data());
    EXPECT_EQ(a, b);
  }
}

TEST(Generate, RoutingKinds) {
  Loaded l = loadShipped("gpt_oss", "gate_up");
  GenerateOptions options;
  options.dims = {{"T", 400}, {"E", 16}, {"top_k", 4}, {"N", 32}, {"K", 32}};
  options.block = 32;
  auto counts = [&](RoutingKind kind) {
    options.routing = kind;
    Arguments a = make(l, options);
    std::vector<int64_t> out;
    for (int e = 0; e < 16; ++e) {
      out.push_back(a.routing->offsets[e + 1] - a.routing->offsets[e]);
      std::set<int64_t> tokens(a.routing->rowToken.begin() + a.routing->offsets[e],
                               a.routing->rowToken.begin() + a.routing->offsets[e + 1]);
      if (kind == RoutingKind::Uniform || kind == RoutingKind::Zipf)
        EXPECT_EQ(int64_t(tokens.size()), out.back()) << "an expert twice in a token";
    }
    std::sort(out.begin(), out.end());
    return out;
  };
  auto uniform = counts(RoutingKind::Uniform), zipf = counts(RoutingKind::Zipf);
  EXPECT_EQ(std::accumulate(uniform.begin(), uniform.end(), 0), 1600);
  EXPECT_EQ(std::accumulate(zipf.begin(), zipf.end(), 0), 1600);
  EXPECT_LT(uniform.back(), 2 * uniform.front());
  EXPECT_GT(zipf.back(), 4 * zipf.front());
  auto one = counts(RoutingKind::One);
  EXPECT_EQ(one.back(), 1600);
  EXPECT_EQ(one[14], 0);
  EXPECT_EQ(counts(RoutingKind::Empty).back(), 0);
}

TEST(Generate, ExactModeGivesExactSums) {
  for (const char *file : {"gpt_oss", "mxfp4_test"}) {
    Loaded l = loadShipped("gpt_oss", "down");
    if (std::string(file) == "mxfp4_test") {
      auto program = syntax::parseProgram(
          "use mxfp4\nkernel down(h: act[R, K], route: routing[T, E], w: mxfp4[E, N, K], b: float[E, N]) "
          "-> y: f32[T, N] {\n z[r, n] = sum(k) h[r, k] * w[r.expert, n, k] + b[r.expert, n]\n"
          " y[r.token, n] += z[r, n] * r.weight\n}",
          "test.qn");
      ASSERT_TRUE(program);
      l = {*program, (*program)->findKernel("down")};
    }
    GenerateOptions options;
    options.exact = true;
    options.dims = {{"K", 512}};
    Arguments a = make(l, options);
    auto out = interpret(*l.program, *l.kernel, a.args);
    ASSERT_TRUE(out) << out.error().str();
    double largest = 0, smallest = 1e9;
    for (double v : (*out)[0].values) {
      EXPECT_EQ(v * 4096, std::round(v * 4096));
      EXPECT_EQ(v, double(float(v)));
      largest = std::max(largest, std::fabs(v));
      if (v != 0) smallest = std::min(smallest, std::fabs(v));
    }
    EXPECT_GT(largest, 8);
    EXPECT_LT(smallest, 1);
  }
}

TEST(Generate, ContractionsComeOutNearOne) {
  for (const char *file : {"linear", "gpt_oss_lora"}) {
    Loaded l = loadShipped(file, file == std::string("linear") ? "linear" : "down");
    GenerateOptions options;
    options.dims = {{"K", 1024}, {"N", 128}};
    Arguments a = make(l, options);
    auto out = interpret(*l.program, *l.kernel, a.args);
    ASSERT_TRUE(out) << out.error().str();
    double squares = 0;
    for (double v : (*out)[0].values) squares += v * v;
    double rms = std::sqrt(squares / double((*out)[0].values.size()));
    EXPECT_GT(rms, 0.3);
    EXPECT_LT(rms, 3);
  }
}

TEST(Generate, ErrorsNameTheDimension) {
  Loaded l = loadShipped("gpt_oss", "gate_up");
  auto with = [](std::map<std::string, int64_t> dims) {
    GenerateOptions options;
    options.dims = std::move(dims);
    return options;
  };
  EXPECT_EQ(errorOf(l, with({{"M", 3}})),
            "--dim M: kernel 'gate_up' has no dimension 'M'; expected one of T, K, E, N, top_k");
  EXPECT_EQ(errorOf(l, with({{"T", -1}})), "--dim T: found -1, expected a non-negative number");
  EXPECT_EQ(errorOf(l, with({{"top_k", 0}})), "--dim top_k: found 0, expected a positive number");
  EXPECT_EQ(errorOf(l, with({{"N", 7}})), "--dim N: N/2 is not whole for N = 7");
  EXPECT_EQ(errorOf(l, with({{"top_k", 9}})),
            "--dim top_k: found 9 choices per token, but there are only 8 experts");
  EXPECT_EQ(errorOf(l, with({{"N", int64_t(1) << 40}, {"K", int64_t(1) << 40}})),
            "--dim: 'x' would have more than 2^40 elements");
  EXPECT_NE(errorOf(l, with({{"K", 7}})).find("K is 7; expected an even K"), std::string::npos)
      << errorOf(l, with({{"K", 7}}));
}
