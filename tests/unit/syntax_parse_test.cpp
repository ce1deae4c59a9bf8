// What parses, and into which tree: one test per construct, the shipped files, the manual's examples, print
// and parse again.
#include "syntax_support.h"
#include <cmath>
#include <regex>

namespace quern::syntax::test {
namespace {

/// The value of the only statement or of the only fn, printed: precedence becomes visible through what
/// print() must bracket.
std::string valueOf(const std::string &expression) {
  auto program = parsed("fn f(a, b, c) { return " + expression + " }");
  if (program->fns.empty()) return "";
  std::string text = print(*program);
  size_t begin = text.find("return ") + 7;
  return text.substr(begin, text.rfind("\n}") - begin);
}

const Expr &resultOf(const Program &program) { return *program.fns.back().result; }

TEST(SyntaxParse, OperatorsAssociateToTheLeftAndSignsBindTightest) {
  EXPECT_EQ(valueOf("a - (b - c)"), "a - (b - c)");
  EXPECT_EQ(valueOf("(a - b) - c"), "a - b - c");
  EXPECT_EQ(valueOf("a + (b + c)"), "a + (b + c)");
  EXPECT_EQ(valueOf("(a * b) + (c / a)"), "a * b + c / a");
  EXPECT_EQ(valueOf("(a + b) * c"), "(a + b) * c");
  EXPECT_EQ(valueOf("a / (b * c)"), "a / (b * c)");
  EXPECT_EQ(valueOf("-a * b"), "-a * b");
  EXPECT_EQ(valueOf("-(a * b)"), "-(a * b)");
  EXPECT_EQ(valueOf("a - -b"), "a - -b");
  EXPECT_EQ(valueOf("select(a + 1 <= b, -a, min(b, c))"), "select(a + 1.0 <= b, -a, min(b, c))");
  auto program = parsed("fn f(a, b) { return -a * b - 2 }");
  const Expr &top = resultOf(*program);
  EXPECT_EQ(top.kind, ExprKind::Sub);
  EXPECT_EQ(top.children[0]->kind, ExprKind::Mul);
  EXPECT_EQ(top.children[0]->children[0]->kind, ExprKind::Neg);
  EXPECT_EQ(top.loc.column, 28u);
}

TEST(SyntaxParse, NumbersAreReadExactly) {
  for (auto [text, value] : {std::pair("7", 7.0),
                             {"1.702", 1.702},
                             {"1e-5", 1e-5},
                             {"2.5E+3", 2500.0},
                             {"0.000e99", 0.0},
                             {"3.4e38", 3.4e38},
                             {"1e-45", 1e-45}}) {
    auto program = parsed(std::string("fn f() { return ") + text + " }");
    ASSERT_FALSE(program->fns.empty());
    EXPECT_EQ(resultOf(*program).number, value) << text;
  }
  EXPECT_EQ(ruleOf("fn f() { return 3.5e38 }"), "number.range");
  EXPECT_EQ(ruleOf("fn f() { return 1e-46 }"), "number.range");
}

TEST(SyntaxParse, BuiltinsAndFnsAreResolved) {
  auto program = parsed("fn half(a) { return a / 2 }\nfn g(a) { b = half(a)\n return clamp(b, half(b), "
                        "erf(tanh(exp(sigmoid(max(a, b)))))) }");
  ASSERT_EQ(program->fns.size(), 2u);
  const Fn &g = program->fns[1];
  EXPECT_EQ(g.lets[0].second->callee, Builtin::UserFn);
  EXPECT_EQ(g.lets[0].second->fnIndex, 0);
  EXPECT_EQ(g.result->callee, Builtin::Clamp);
  EXPECT_EQ(g.result->children[1]->fnIndex, 0);
  for (auto [name, id] : {std::pair("<", ExprKind::Lt),
                          {"<=", ExprKind::Le},
                          {">", ExprKind::Gt},
                          {">=", ExprKind::Ge},
                          {"==", ExprKind::Eq},
                          {"!=", ExprKind::Ne}}) {
    auto select = parsed(std::string("fn f(a) { return select(a ") + name + " 0, a, 1) }");
    ASSERT_FALSE(select->fns.empty());
    EXPECT_EQ(resultOf(*select).children[0]->kind, id);
  }
}

TEST(SyntaxParse, ShippedCodecsAreThoseOfTheirOwners) {
  auto codecOf = [](const std::string &name) { return parsed(*shippedFile(name))->codecs.at(0); };
  Codec nf4 = codecOf("nf4"), fp4 = codecOf("fp4"), mxfp4 = codecOf("mxfp4"), int4 = codecOf("int4.qn");
  EXPECT_TRUE(nf4.highFirst && fp4.highFirst && !mxfp4.highFirst && !int4.highFirst);
  EXPECT_EQ(nf4.block, 64);
  EXPECT_EQ(fp4.block, 64);
  EXPECT_EQ(mxfp4.block, 32);
  EXPECT_EQ(int4.block, 128);
  EXPECT_EQ(nf4.scale, ScaleType::F32);
  EXPECT_EQ(mxfp4.scale, ScaleType::E8M0);
  EXPECT_EQ(int4.scale, ScaleType::BF16);
  EXPECT_EQ(nf4.table[1], -0.6961928009986877f);
  EXPECT_EQ(nf4.table[7], 0.0f);
  EXPECT_EQ(nf4.table[15], 1.0f);
  const float twelfths[8] = {0, 0.0625f, 8, 12, 4, 6, 2, 3}; // bitsandbytes' FP4 is a float table over twelve
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(fp4.table[i], twelfths[i] / 12) << i;
    EXPECT_EQ(fp4.table[i + 8], i == 0 ? 0.0f : -twelfths[i] / 12) << i;
    int exponent = i >> 1, mantissa = i & 1; // e2m1: subnormal 0.5, else 2^(e-1) * (1 + m/2)
    float magnitude = exponent == 0 ? 0.5f * mantissa : std::ldexp(1.0f + 0.5f * mantissa, exponent - 1);
    EXPECT_EQ(mxfp4.table[i], magnitude) << i;
    EXPECT_EQ(mxfp4.table[i + 8], -magnitude) << i;
  }
  EXPECT_TRUE(std::signbit(mxfp4.table[8]));
  for (int i = 0; i < 16; ++i) EXPECT_EQ(int4.table[i], i - 8);
}

TEST(SyntaxParse, CodecFieldsStandInAnyOrderAndZeroIsOptional) {
  auto program = parsed("codec c { scale bf16 per 128 zero u4 per 128 first = low table = [0, 1, 2, 3, 4, 5, "
                        "6, 7, 8, 9, 10, 11, 12, 13, -14, 1.5e1] }");
  ASSERT_EQ(program->codecs.size(), 1u);
  const Codec &codec = program->codecs[0];
  EXPECT_TRUE(codec.hasZero);
  EXPECT_FALSE(codec.highFirst);
  EXPECT_EQ(codec.block, 128);
  EXPECT_EQ(codec.table[14], -14.0f);
  EXPECT_EQ(codec.table[15], 15.0f);
  EXPECT_EQ(program->findCodec("c"), &codec);
  EXPECT_EQ(program->findCodec("d"), nullptr);
}

TEST(SyntaxParse, KernelFieldsAreFilledByTheChecks) {
  auto program = parsed(*shippedFile("gpt_oss_lora"), "gpt_oss_lora.qn");
  const Kernel *kernel = program->findKernel("gate_up");
  ASSERT_NE(kernel, nullptr);
  EXPECT_EQ(kernel->routing, 1);
  EXPECT_EQ(kernel->rowVar, "r");
  EXPECT_EQ(kernel->rows.str(), "R");
  EXPECT_EQ(kernel->dimSymbols, (std::vector<std::string>{"T", "K", "E", "N", "P"}));
  ASSERT_EQ(kernel->locals.size(), 1u);
  EXPECT_EQ(kernel->locals[0].columns.str(), "N");
  ASSERT_EQ(kernel->loops.size(), 2u);
  std::string loops;
  for (const LoopVar &loop : kernel->loops[0]) loops += loop.name + "<" + loop.range.str() + " ";
  EXPECT_EQ(loops, "n<N k<K p<P ");
  EXPECT_EQ(kernel->loops[1][0].range.str(), "N/2");
  EXPECT_EQ(kernel->params[6].kind, Param::Scalar);
  EXPECT_EQ(kernel->params[3].elem.kind, ElemType::Float);
  EXPECT_EQ(kernel->outputs[0].elem.kind, ElemType::Act);
  EXPECT_EQ(program->findKernel("down")->stmts[1].accumulate, true);
  auto dense = parsed(*shippedFile("linear"));
  EXPECT_EQ(dense->findKernel("linear_bias")->routing, -1);
  EXPECT_EQ(dense->findKernel("linear_bias")->rows.str(), "T");
}

TEST(SyntaxParse, FactorsOfASumStandInEitherOrderAndTheRowsComeFirstInTheTree) {
  auto one =
      parsed("kernel f(x: act[T, K], w: f32[N, K]) -> y: act[T, N] { y[t, n] = sum(k) x[t, k] * w[n, k] }");
  auto other =
      parsed("kernel f(x: act[T, K], w: f32[N, K]) -> y: act[T, N] { y[t, n] = sum(k) w[n, k] * x[t, k] }");
  EXPECT_TRUE(same(*one, *other));
}

TEST(SyntaxParse, RangesOfLocals) {
  auto columns = [](const std::string &read, const std::string &outputColumns) {
    auto program = parsed("kernel f(x: f32[T, N], v: f32[T, 12]) -> y: f32[T, " + outputColumns +
                          "], q: f32[T, N/4], p: f32[T, 1] {\n  z[t, n] = " + read +
                          "\n  y[t, j] = z[t, j]\n  q[t, j] = x[t, 4*j+3]\n  p[t, j] = v[t, j + 11]\n}");
    return program->kernels.empty() ? "" : program->kernels[0].locals[0].columns.str();
  };
  EXPECT_EQ(columns("x[t, n]", "N"), "N");
  EXPECT_EQ(columns("x[t, n] + x[t, n + N/2]", "N/2"), "N/2");
  EXPECT_EQ(columns("x[t, n + N/2] + x[t, n]", "N/2"), "N/2");
  EXPECT_EQ(columns("x[t, n + N/4]", "N/4"), "3*N/4");
  EXPECT_EQ(columns("x[t, 2*n] * x[t, 2*n+1]", "N/2"), "N/2");
  EXPECT_EQ(columns("x[t, 2*n + N/2]", "N/4"), "N/4");
  EXPECT_EQ(columns("v[t, n]", "12"), "12");
  EXPECT_EQ(columns("v[t, 5*n + 1]", "3"), "3"); // 1, 6, 11
  EXPECT_EQ(columns("v[t, n + 4]", "2"), "8");
}

TEST(SyntaxParse, ARangeThatIsNotWholeForSomeLegalSizeIsRefused) {
  auto rule = [](const std::string &more) {
    return ruleOf("kernel f(x: f32[T, N]" + more +
                  ") -> y: f32[T, 1] { z[t, n] = x[t, 2*n]\n y[t, j] = z[t, j] }");
  };
  EXPECT_EQ(rule(""), "range.unknown"); // N may be odd
  EXPECT_EQ(rule(", b: f32[N/2]"), "param.unused");
}

TEST(SyntaxParse, DimensionsAreKeptInLowestTerms) {
  auto program = parsed("kernel f(x: f32[T, 2*N/4], z: f32[T, 6*N/3]) -> y: f32[T, N/2] { y[t, n] = x[t, n] "
                        "+ z[t, 2*n + 2*N/4] }");
  ASSERT_EQ(program->kernels.size(), 1u);
  EXPECT_EQ(program->kernels[0].params[0].dims[1].str(), "N/2");
  EXPECT_EQ(program->kernels[0].params[1].dims[1].str(), "2*N");
}

TEST(SyntaxParse, IndicesOutOfRangeForSomeLegalSizeAreRefused) {
  auto rule = [](const std::string &index, const std::string &size, const std::string &columns) {
    return ruleOf("kernel f(x: f32[T, " + size + "], u: f32[T, N/12]) -> y: f32[T, " + columns +
                  "] { y[t, j] = x[t, " + index + "] * u[t, j] }");
  };
  EXPECT_EQ(rule("j", "N", "N/12"), "ok");
  EXPECT_EQ(rule("12*j + 11", "N", "N/12"), "ok");
  EXPECT_EQ(rule("12*j + 12", "N", "N/12"), "access.range");
  EXPECT_EQ(rule("j + 11", "N", "N/12"), "ok"); // N is at least 12, and then N - 1 is just reached
  EXPECT_EQ(rule("j + 12", "N", "N/12"), "access.range");
  EXPECT_EQ(rule("j + N/2", "N", "N/12"), "ok");
  EXPECT_EQ(rule("6*j + N/2", "N", "N/12"), "ok");
  EXPECT_EQ(rule("7*j + N/2", "N", "N/12"), "access.range");
  EXPECT_EQ(rule("j", "M", "N/12"), "access.range");
  EXPECT_EQ(rule("j", "64", "N/12"), "access.range");
  EXPECT_EQ(rule("j + M/1", "N", "N/12"), "dim.unknown");
  EXPECT_EQ(rule("j + N/5", "N", "N/12"), "dim.whole");
}

TEST(SyntaxParse, RoutedKernelsReadByRowTokenAndExpert) {
  auto program = parsed(R"(
    kernel f(x: act[T, K], h: float[R, K], a: f32[R], b: f32[T], c: f32[E], d: f32[K], e: float[E, K], route: routing[T, E], s: f32)
        -> y: act[R, K], z: f32[T, K] {
      y[r, k] = x[r.token, k] * h[r, k] + a[r] + b[r.token] - c[r.expert] * d[k] / e[r.expert, k]
      z[r.token, k] += s * h[r, k] * r.weight
    })");
  ASSERT_EQ(program->kernels.size(), 1u);
  EXPECT_EQ(program->kernels[0].routing, 7);
  EXPECT_EQ(program->kernels[0].stmts[1].indices[0].kind, Index::Token);
}

TEST(SyntaxParse, UnusedThingsThatAreHarmless) {
  parsed("use nf4\nfn f(a, unused) { spare = a return a }\n"
         "kernel k(h: act[R, K], route: routing[T, E], w: f32[N, K]) -> y: act[R, N] { y[r, n] = sum(k) h[r, "
         "k] * w[n, k] }");
}

TEST(SyntaxParse, PrintedTextParsesToTheSameTree) {
  std::vector<std::string> names = shippedFiles();
  EXPECT_EQ(names.size(), 9u);
  for (const std::string &name : names) {
    auto program = parsed(*shippedFile(name), name);
    auto again = parsed(print(*program), name);
    EXPECT_TRUE(same(*program, *again)) << print(*program);
    EXPECT_EQ(print(*program), print(*again));
  }
}

TEST(SyntaxParse, PrintedGptOssIsReadable) {
  std::string text = print(*parsed(*shippedFile("gpt_oss")));
  EXPECT_NE(text.find("fn swiglu_clamped(gate, up) {\n  g = min(gate, 7.0)\n  u = clamp(up, -7.0, 7.0)\n  "
                      "return (u + 1.0) * g * sigmoid(1.702 * g)\n}\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("  h[r, j] = swiglu_clamped(y[r, 2*j], y[r, 2*j + 1])\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  y[r.token, n] += z[r, n] * r.weight\n"), std::string::npos) << text;
}

TEST(SyntaxParse, TheManualsExamplesCompile) {
  std::string manual = readFile(sourcePath("compiler/LANGUAGE.md"));
  std::regex block("```qn\n([^`]*)```");
  int count = 0;
  for (std::sregex_iterator it(manual.begin(), manual.end(), block), end; it != end; ++it, ++count) {
    auto program = parsed((*it)[1].str(), "LANGUAGE.md");
    EXPECT_TRUE(same(*program, *parsed(print(*program))));
  }
  EXPECT_EQ(count, 4);
}

TEST(SyntaxParse, AFileOfAnotherNameIsUsedThroughTheResolver) {
  auto use = [](std::string_view name) -> std::optional<std::string> {
    return name == "mine" ? std::optional<std::string>("codec ternary { table = [0, 1, -1, 0, 0, 0, 0, 0, 0, "
                                                       "0, 0, 0, 0, 0, 0, 0] first = high scale f32 per 32 }")
                          : std::nullopt;
  };
  auto program = parseProgram("use mine\nkernel k(x: act[T, K], w: ternary[N, K]) -> y: act[T, N] { y[t, n] "
                              "= sum(k) x[t, k] * w[n, k] }",
                              "a.qn", use);
  ASSERT_TRUE(program) << program.error().str();
  EXPECT_EQ((*program)->codecs[0].name, "ternary");
  EXPECT_FALSE(shippedFile("no_such_file"));
  EXPECT_EQ(*shippedFile("nf4"), *shippedFile("nf4.qn"));
}

} // namespace
} // namespace quern::syntax::test
