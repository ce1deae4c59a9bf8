// bindArguments: what a good call solves, and one pinned message for each way a call can be wrong.
#include "runtime/launch/Kernel.h"
#include <functional>
#include <gtest/gtest.h>
#include <limits>

using namespace quern;
using namespace quern::syntax;

namespace {

Dim sym(std::string name, int64_t mul = 1, int64_t div = 1) { return {std::move(name), mul, div}; }
Dim constant(int64_t value) { return {"", value, 1}; }

constexpr ElemType act{ElemType::Act, DType::F32}, anyFloat{ElemType::Float, DType::F32};
constexpr ElemType literal(DType type) { return {ElemType::Literal, type}; }

Param param(Param::Kind kind, std::string name, std::vector<Dim> dims, ElemType elem = act,
            std::string codec = "") {
  Param p;
  p.kind = kind, p.name = std::move(name), p.dims = std::move(dims), p.elem = elem,
  p.codec = std::move(codec);
  return p;
}

/// kernel gate_up(x: act[T, K], route: routing[T, E], w: code[E, N, K], b: float[E, N], s: f32) -> h: act[R,
/// N/2], y: f32[T, N] and kernel down(h: act[R, K], route: routing[T, E], half: float[N/2]) -> z: act[T, N]
struct Call {
  Program program;
  Codec other;
  std::vector<uint8_t> codes = std::vector<uint8_t>(4 * 6 * 64);
  std::vector<float> scales = std::vector<float>(64), numbers = std::vector<float>(4096);
  std::vector<int64_t> offsets{0, 3, 3, 5}, tokens{0, 1, 4, 2, 3, -1, -1, -1, -1, -1};
  std::vector<float> weights = std::vector<float>(10, 1.0f);
  TensorView x, b;
  PackedView w;
  RoutingView route;
  Arg s = 2.5;

  Call() {
    Codec codec;
    codec.name = "code";
    for (int i = 0; i < 16; ++i) codec.table[i] = float(i) / 4;
    program.codecs.push_back(codec);
    other = codec;
    other.name = "mine", other.block = 128; // the same codec under another name
    Kernel up;
    up.name = "gate_up";
    up.params = {param(Param::Tensor, "x", {sym("T"), sym("K")}),
                 param(Param::Routing, "route", {sym("T"), sym("E")}),
                 param(Param::Packed, "w", {sym("E"), sym("N"), sym("K")}, act, "code"),
                 param(Param::Tensor, "b", {sym("E"), sym("N")}, anyFloat),
                 param(Param::Scalar, "s", {}, literal(DType::F32))};
    up.outputs = {param(Param::Tensor, "h", {sym("R"), sym("N", 1, 2)}),
                  param(Param::Tensor, "y", {sym("T"), sym("N")}, literal(DType::F32))};
    up.routing = 1;
    Kernel down;
    down.name = "down";
    down.params = {param(Param::Tensor, "h", {sym("R"), sym("K")}),
                   param(Param::Routing, "route", {sym("T"), sym("E")}),
                   param(Param::Tensor, "half", {sym("N", 1, 2)}, anyFloat)};
    down.outputs = {param(Param::Tensor, "z", {sym("T"), sym("N")})};
    down.routing = 1;
    program.kernels = {up, down};
    x = tensor({5, 64}, DType::BF16);
    b = tensor({3, 6}, DType::F16);
    w.codec = &other, w.experts = 3, w.shape = {6, 64, 64}, w.dtype = DType::F16;
    w.codes = {codes.data(), codes.data(), codes.data()};
    w.scales = {scales.data(), scales.data(), scales.data()};
    route = {5, 3, 2, offsets.data(), tokens.data(), weights.data()};
  }
  TensorView tensor(std::vector<int64_t> shape, DType dtype = DType::F32) {
    std::vector<int64_t> strides(shape.size(), 1);
    return {numbers.data(), dtype, std::move(shape), std::move(strides)};
  }
  Kernel &up() { return program.kernels[0]; }
  Kernel &down() { return program.kernels[1]; }
  Expected<Binding> bind() { return bindArguments(program, up(), {x, route, w, b, s}); }
};

/// The message for a call that `change` made wrong.
std::string messageAfter(const std::function<void(Call &)> &change) {
  Call call;
  change(call);
  auto bound = call.bind();
  if (bound) return "no error";
  return bound.error().str();
}

std::string messageOf(Expected<Binding> bound) { return bound ? "no error" : bound.error().str(); }

TEST(Bind, SolvesDimensionsDtypesAndOutputs) {
  Call call;
  auto bound = call.bind();
  ASSERT_TRUE(bound) << bound.error().str();
  EXPECT_EQ(bound->dims,
            (std::map<std::string, int64_t>{{"T", 5}, {"K", 64}, {"E", 3}, {"N", 6}, {"R", 10}}));
  EXPECT_EQ(bound->act, DType::BF16);
  ASSERT_EQ(bound->outputs.size(), 2u);
  EXPECT_EQ(bound->outputs[0].name, "h");
  EXPECT_EQ(bound->outputs[0].dtype, DType::BF16);
  EXPECT_EQ(bound->outputs[0].shape, (std::vector<int64_t>{10, 3}));
  EXPECT_EQ(bound->outputs[1].name, "y");
  EXPECT_EQ(bound->outputs[1].dtype, DType::F32);
  EXPECT_EQ(bound->outputs[1].shape, (std::vector<int64_t>{5, 6}));
}

TEST(Bind, RComesFromTheRoutingAndHalvesAreSolved) {
  Call call;
  TensorView h = call.tensor({10, 8}, DType::F16), half = call.tensor({7});
  auto bound = bindArguments(call.program, call.down(), {h, call.route, half});
  ASSERT_TRUE(bound) << bound.error().str();
  EXPECT_EQ(bound->dims,
            (std::map<std::string, int64_t>{{"T", 5}, {"K", 8}, {"E", 3}, {"N", 14}, {"R", 10}}));
  EXPECT_EQ(bound->outputs[0].shape, (std::vector<int64_t>{5, 14}));
  EXPECT_EQ(bound->outputs[0].dtype, DType::F16);
  h.shape[0] = 9;
  EXPECT_EQ(messageOf(bindArguments(call.program, call.down(), {h, call.route, half})),
            "argument 'h': dimension 0 (R) is 9; expected 10 (R = 10 from argument 'route')");
}

TEST(Bind, NoTokens) {
  Call call;
  call.x = call.tensor({0, 64}, DType::F32);
  call.x.data = nullptr;
  std::vector<int64_t> none(4, 0);
  call.route = {0, 3, 2, none.data(), nullptr, nullptr};
  auto bound = call.bind();
  ASSERT_TRUE(bound) << bound.error().str();
  EXPECT_EQ(bound->dims.at("R"), 0);
  EXPECT_EQ(bound->outputs[0].shape, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(bound->outputs[1].shape, (std::vector<int64_t>{0, 6}));
}

TEST(Bind, NoDtypeVariableGivesF32) {
  Call call;
  call.up().params[0].elem = anyFloat;
  call.up().outputs.erase(call.up().outputs.begin());
  auto bound = call.bind();
  ASSERT_TRUE(bound);
  EXPECT_EQ(bound->act, DType::F32);
}

TEST(Bind, AnyNumberIsAScalar) {
  for (double value :
       {0.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
    EXPECT_EQ(messageAfter([&](Call &c) { c.s = value; }), "no error");
}

TEST(Bind, CountAndKinds) {
  Call call;
  EXPECT_EQ(messageOf(bindArguments(call.program, call.up(), {call.x, call.route})),
            "kernel 'gate_up': 2 arguments; expected 5: x, route, w, b, s");
  auto with = [&](std::vector<Arg> args) { return messageOf(bindArguments(call.program, call.up(), args)); };
  EXPECT_EQ(with({call.w, call.route, call.w, call.b, 1.0}),
            "argument 'x': a packed operand; expected a tensor [T, K]");
  EXPECT_EQ(with({call.x, call.x, call.w, call.b, 1.0}),
            "argument 'route': a tensor; expected a routing [T, E]");
  EXPECT_EQ(with({call.x, call.route, 3.0, call.b, 1.0}),
            "argument 'w': a number; expected a packed operand [E, N, K] of codec 'code'");
  EXPECT_EQ(with({call.x, call.route, call.w, call.b, call.route}),
            "argument 's': a routing; expected a number");
}

TEST(Bind, Tensors) {
  EXPECT_EQ(messageAfter([](Call &c) { c.x = c.tensor({5, 64, 1}, DType::BF16); }),
            "argument 'x': has 3 dimensions [5, 64, 1]; expected 2: [T, K]");
  EXPECT_EQ(messageAfter([](Call &c) { c.x = c.tensor({}, DType::BF16); }),
            "argument 'x': has 0 dimensions []; expected 2: [T, K]");
  EXPECT_EQ(messageAfter([](Call &c) { c.x.shape[0] = -5; }),
            "argument 'x': dimension 0 is -5; expected 0 or more");
  EXPECT_EQ(messageAfter([](Call &c) { c.x.data = nullptr; }), "argument 'x': a tensor [5, 64] without data");
  EXPECT_EQ(messageAfter([](Call &c) { c.x.strides.pop_back(); }),
            "argument 'x': internal error: 2 sizes but 1 strides\nPlease report this with the input.");
}

TEST(Bind, Dtypes) {
  EXPECT_EQ(messageAfter([](Call &c) { c.up().params[3].elem = literal(DType::F32); }),
            "argument 'b': dtype is f16; expected f32");
  EXPECT_EQ(messageAfter([](Call &c) { c.up().params[3].elem = act; }),
            "argument 'b': dtype is f16; expected bf16 (act = bf16 from argument 'x')");
  for (DType type : {DType::F32, DType::BF16, DType::F16})
    EXPECT_EQ(messageAfter([&](Call &c) { c.b.dtype = type; }), "no error");
}

TEST(Bind, Dimensions) {
  EXPECT_EQ(messageAfter([](Call &c) { c.x.shape[1] = 32; }),
            "argument 'w': dimension 2 (K) is 64; expected 32 (K = 32 from argument 'x')");
  EXPECT_EQ(messageAfter([](Call &c) { c.x.shape[0] = 4; }),
            "argument 'route': dimension 0 (T) is 5; expected 4 (T = 4 from argument 'x')");
  EXPECT_EQ(messageAfter([](Call &c) { c.b.shape[1] = 8; }),
            "argument 'b': dimension 1 (N) is 8; expected 6 (N = 6 from argument 'w')");
  EXPECT_EQ(messageAfter([](Call &c) { c.b.shape[0] = 1; }),
            "argument 'b': dimension 0 (E) is 1; expected 3 (E = 3 from argument 'route')");
  EXPECT_EQ(messageAfter([](Call &c) { c.up().params[3].dims[1] = constant(8); }),
            "argument 'b': dimension 1 is 6; expected 8");
  EXPECT_EQ(messageAfter([](Call &c) { c.up().params[3].dims[1] = constant(6); }), "no error");
  EXPECT_EQ(messageAfter([](Call &c) { c.up().params[3].dims[1] = sym("N", 1, 2); }),
            "argument 'b': dimension 1 (N/2) is 6; expected 3 (N = 6 from argument 'w')");
  EXPECT_EQ(messageAfter([](Call &c) { c.up().params[3].dims[1] = sym("M", 4); }),
            "argument 'b': dimension 1 (4*M) is 6; expected a multiple of 4");
  EXPECT_EQ(messageAfter([](Call &c) {
              c.up().params[3].dims[1] = sym("M", 1, 2);
              c.b.shape[1] = std::numeric_limits<int64_t>::max();
            }),
            "argument 'b': dimension 1 (M/2) is 9223372036854775807; expected M to fit in 63 bits");
}

TEST(Bind, SymbolsWithFactors) {
  Call call;
  call.up().params[3].dims[1] = sym("M", 3, 2); // 6 = 3 * M / 2
  call.up().outputs[1].dims[1] = sym("M", 5);
  auto bound = call.bind();
  ASSERT_TRUE(bound) << bound.error().str();
  EXPECT_EQ(bound->dims.at("M"), 4);
  EXPECT_EQ(bound->outputs[1].shape[1], 20);
}

TEST(Bind, WholeNumbers) {
  auto odd = [](Call &c) {
    c.w.shape.n = 7, c.w.shape.k = 64, c.b.shape[1] = 7;
    c.codes.resize(3 * 7 * 32);
  };
  EXPECT_EQ(messageAfter(odd), "output 'h': N/2 with N = 7 (from argument 'w') is no whole number");
  EXPECT_EQ(messageAfter([&](Call &c) {
              odd(c);
              c.up().params[3].dims[1] = sym("N", 1, 2);
              c.b.shape[1] = 3;
            }),
            "argument 'b': N/2 with N = 7 (from argument 'w') is no whole number");
  // Also where only the body divides: a local's columns, a loop's range, an index.
  auto inBody = [&](const std::function<void(Kernel &)> &change) {
    return messageAfter([&](Call &c) {
      odd(c);
      c.up().outputs[0].dims[1] = sym("N");
      change(c.up());
    });
  };
  std::string message = "kernel 'gate_up': N/2 with N = 7 (from argument 'w') is no whole number";
  EXPECT_EQ(inBody([](Kernel &k) {}), "no error");
  EXPECT_EQ(inBody([](Kernel &k) { k.locals = {{"z", sym("N", 1, 2)}}; }), message);
  EXPECT_EQ(inBody([](Kernel &k) { k.loops = {{{"j", sym("N", 1, 2)}}}; }), message);
  EXPECT_EQ(inBody([](Kernel &k) {
              Index index;
              index.offset = sym("N", 1, 2);
              auto access = std::make_shared<Expr>(), neg = std::make_shared<Expr>();
              access->indices = {index};
              neg->children = {access};
              Stmt stmt;
              stmt.value = neg;
              k.stmts = {stmt};
            }),
            message);
}

TEST(Bind, Outputs) {
  EXPECT_EQ(messageAfter([](Call &c) { c.up().outputs[1].dims[1] = sym("M"); }),
            "output 'y': no argument fixes the dimension M");
  EXPECT_EQ(messageAfter([](Call &c) { c.up().outputs[1].dims[1] = sym("N", int64_t(1) << 60); }),
            "output 'y': a tensor [5, 6917529027641081856, ...] does not fit in memory");
  EXPECT_EQ(messageAfter(
                [](Call &c) { c.up().outputs[1].dims[1] = sym("N", std::numeric_limits<int64_t>::max()); }),
            "output 'y': 9223372036854775807*N with N = 6 (from argument 'w') does not fit in 63 bits");
}

TEST(Bind, PackedOperands) {
  EXPECT_EQ(messageAfter([](Call &c) { c.w.shape.k = 63; }),
            "argument 'w': K is 63; expected an even K (two codes per byte)");
  EXPECT_EQ(messageAfter([](Call &c) {
              c.w.experts = 1, c.w.hasExpertDim = false;
              c.w.codes.resize(1), c.w.scales.resize(1);
            }),
            "argument 'w': a packed operand [6, 64] with 2 dimensions; expected 3: [E, N, K]");
  EXPECT_EQ(messageAfter([](Call &c) { c.up().params[2].dims.erase(c.up().params[2].dims.begin()); }),
            "argument 'w': a packed operand [3, 6, 64] with 3 dimensions; expected 2: [N, K]");
  EXPECT_EQ(
      messageAfter([](Call &c) { c.up().params[2].codec = "gone"; }),
      "argument 'w': internal error: codec 'gone' is not in the program\nPlease report this with the input.");
}

TEST(Bind, CodecsAreComparedByMeaning) {
  EXPECT_EQ(messageAfter([](Call &c) { c.other.name = "whatever", c.other.block = 4096; }), "no error");
  std::string start = "argument 'w': packed with codec 'mine', which is not the kernel's codec 'code': ";
  EXPECT_EQ(messageAfter([](Call &c) { c.other.table[3] = 0.5f; }), start + "table[3] is 0.5; expected 0.75");
  EXPECT_EQ(messageAfter([](Call &c) { c.other.table[15] = 0.5f; }),
            start + "table[15] is 0.5; expected 3.75");
  EXPECT_EQ(messageAfter([](Call &c) { c.other.table[0] = -0.0f; }), start + "table[0] is -0; expected 0");
  EXPECT_EQ(messageAfter([](Call &c) { c.other.highFirst = false; }),
            start + "its first nibble is low; expected high");
  EXPECT_EQ(messageAfter([](Call &c) { c.other.scale = ScaleType::E8M0; }),
            start + "its scales are e8m0; expected f32");
  EXPECT_EQ(messageAfter([](Call &c) { c.program.codecs[0].scale = ScaleType::BF16; }),
            start + "its scales are f32; expected bf16");
  EXPECT_EQ(messageAfter([](Call &c) {
              c.other.hasZero = true;
              c.w.zeros = {c.codes.data(), c.codes.data(), c.codes.data()};
            }),
            start + "it has zeros; expected none");
  EXPECT_EQ(messageAfter([](Call &c) { c.program.codecs[0].hasZero = true; }),
            start + "it has no zeros; expected one u4 zero per block");
  EXPECT_EQ(messageAfter([](Call &c) { c.other.name = "code", c.other.table[1] = 9; }),
            "argument 'w': packed with codec 'code', which is not the kernel's codec 'code': table[1] is 9; "
            "expected 0.25");
}

TEST(Bind, Routings) {
  EXPECT_EQ(messageAfter([](Call &c) { c.offsets[0] = 1; }), "argument 'route': offsets[0] is 1; expected 0");
  EXPECT_EQ(messageAfter([](Call &c) { c.offsets[2] = 2; }),
            "argument 'route': offsets[2] is 2; expected 3 (the one before) to 10 (T * top_k)");
  EXPECT_EQ(messageAfter([](Call &c) { c.offsets[3] = 11; }),
            "argument 'route': offsets[3] is 11; expected 3 (the one before) to 10 (T * top_k)");
  EXPECT_EQ(messageAfter([](Call &c) { c.tokens[4] = 5; }),
            "argument 'route': row_token[4] is 5; expected 0 to 4");
  EXPECT_EQ(messageAfter([](Call &c) { c.tokens[0] = -1; }),
            "argument 'route': row_token[0] is -1; expected 0 to 4");
  EXPECT_EQ(messageAfter([](Call &c) { c.tokens[5] = 99; }), "no error")
      << "rows beyond the live ones are not read";
  EXPECT_EQ(messageAfter([](Call &c) { c.route.offsets = nullptr; }),
            "argument 'route': a routing without data");
  EXPECT_EQ(messageAfter([](Call &c) { c.route.rowWeight = nullptr; }),
            "argument 'route': a routing without data");
  EXPECT_EQ(messageAfter([](Call &c) { c.route.topK = -2; }),
            "argument 'route': 5 tokens, 3 experts, top_k -2; expected a routing that fits in memory");
  EXPECT_EQ(messageAfter([](Call &c) { c.route.topK = std::numeric_limits<int64_t>::max(); }),
            "argument 'route': 5 tokens, 3 experts, top_k 9223372036854775807; expected a routing that fits "
            "in memory");
}

TEST(Bind, DenseKernel) {
  // kernel dense(x: act[T, K], w: code[N, K]) -> y: act[T, N]
  Call call;
  Kernel dense;
  dense.name = "dense";
  dense.params = {param(Param::Tensor, "x", {sym("T"), sym("K")}),
                  param(Param::Packed, "w", {sym("N"), sym("K")}, act, "code")};
  dense.outputs = {param(Param::Tensor, "y", {sym("T"), sym("N")})};
  call.w.experts = 1, call.w.hasExpertDim = false;
  call.w.codes.resize(1), call.w.scales.resize(1);
  auto bound = bindArguments(call.program, dense, {call.x, call.w});
  ASSERT_TRUE(bound) << bound.error().str();
  EXPECT_EQ(bound->dims, (std::map<std::string, int64_t>{{"T", 5}, {"K", 64}, {"N", 6}}));
  EXPECT_EQ(bound->outputs[0].shape, (std::vector<int64_t>{5, 6}));
}

} // namespace
