// normalize(): contractions and writes of the shipped kernels, written out as text, and the sharing of equal
// parts.
#include "syntax_support.h"
#include <fmt/format.h>

namespace quern::syntax::test {
namespace {

const char *rowName(RowAccess row) {
  static const char *names[] = {"none", "row", "token", "expert"};
  return names[static_cast<int>(row)];
}

std::string columnText(const Node &node) {
  std::string text = node.mul == 1 ? "j" : fmt::format("{}*j", node.mul);
  return node.offset == Dim{"", 0, 1} ? text : text + "+" + node.offset.str();
}

/// The value of node `i` as an expression: C0[2*j+1], b[expert, j], min(...), (a + b).
std::string nodeText(const NormalKernel &kernel, const Write &write, int i) {
  static const char *names[] = {"number", "scalar", "weight", "C",   "tensor", "-",       "+",     "-",
                                "*",      "/",      "min",    "max", "exp",    "sigmoid", "tanh",  "erf",
                                "<",      "<=",     ">",      ">=",  "==",     "!=",      "select"};
  const Node &node = write.nodes.at(i);
  const auto &params = kernel.kernel->params;
  auto operand = [&](size_t k) {
    EXPECT_LT(node.operands.at(k), i) << "operands stand before their users";
    return nodeText(kernel, write, node.operands.at(k));
  };
  switch (node.op) {
  case Op::Number: return fmt::format("{}", node.number);
  case Op::Scalar: return params.at(node.index).name;
  case Op::RowWeight: return "weight";
  case Op::ReadContraction: return fmt::format("C{}[{}]", node.index, columnText(node));
  case Op::ReadTensor:
    if (!node.hasColumn) return fmt::format("{}[{}]", params.at(node.index).name, rowName(node.row));
    if (node.row == RowAccess::None)
      return fmt::format("{}[{}]", params.at(node.index).name, columnText(node));
    return fmt::format("{}[{}, {}]", params.at(node.index).name, rowName(node.row), columnText(node));
  case Op::Neg: return "-" + operand(0);
  case Op::Add:
  case Op::Sub:
  case Op::Mul:
  case Op::Div:
  case Op::Lt:
  case Op::Le:
  case Op::Gt:
  case Op::Ge:
  case Op::Eq:
  case Op::Ne:
    EXPECT_EQ(node.operands.size(), 2u);
    return fmt::format("({} {} {})", operand(0), names[static_cast<int>(node.op)], operand(1));
  default: break;
  }
  std::string args;
  for (size_t k = 0; k < node.operands.size(); ++k) args += (k ? ", " : "") + operand(k);
  return fmt::format("{}({})", names[static_cast<int>(node.op)], args);
}

std::string textOf(const NormalKernel &kernel) {
  const auto &params = kernel.kernel->params;
  std::string out;
  for (const Contraction &c : kernel.contractions)
    out += fmt::format("[{}, {}]: {} by {} * {}{}\n", c.columns.str(), c.reduced.str(),
                       c.lhsParam >= 0 ? params.at(c.lhsParam).name : fmt::format("C{}", c.lhsContraction),
                       rowName(c.lhsRow), params.at(c.rhsParam).name, c.rhsByExpert ? " by expert" : "");
  for (const Write &write : kernel.writes)
    out += fmt::format("{}[j < {}] {} {}\n", kernel.kernel->outputs.at(write.output).name,
                       write.columns.str(), write.combine ? "+=" : "=",
                       nodeText(kernel, write, static_cast<int>(write.nodes.size()) - 1));
  return out;
}

std::string normalText(const std::string &text, const std::string &kernelName = "f") {
  auto program = parsed(text);
  const Kernel *kernel = program->findKernel(kernelName);
  if (!kernel) return "no kernel";
  auto normal = normalize(*program, *kernel);
  return normal ? textOf(*normal) : normal.error().str();
}

TEST(SyntaxNormalize, GptOss) {
  std::string g = "min((C0[2*j] + b[expert, 2*j]), 7)", u = "min(max((C0[2*j+1] + b[expert, 2*j+1]), -7), 7)";
  EXPECT_EQ(normalText(*shippedFile("gpt_oss"), "gate_up"),
            "[N, K]: x by token * w by expert\nh[j < N/2] = (((" + u + " + 1) * " + g +
                ") * sigmoid((1.702 * " + g + ")))\n");
  EXPECT_EQ(normalText(*shippedFile("gpt_oss"), "down"),
            "[N, K]: h by row * w by expert\ny[j < N] += ((C0[j] + b[expert, j]) * weight)\n");
}

TEST(SyntaxNormalize, Qwen3AndMixtralAreTheSameMaths) {
  std::string expected =
      "[N, K]: x by token * w by expert\nh[j < N/2] = ((C0[j] * sigmoid(C0[j])) * C0[j+N/2])\n";
  EXPECT_EQ(normalText(*shippedFile("qwen3"), "gate_up"), expected);
  std::string mixtral = normalText(*shippedFile("mixtral"), "gate_up");
  size_t at = mixtral.find("w13");
  ASSERT_NE(at, std::string::npos);
  EXPECT_EQ(mixtral.replace(at, 3, "w"), expected);
}

TEST(SyntaxNormalize, LowRankTermIsAContractionOfAContraction) {
  EXPECT_EQ(normalText(*shippedFile("linear"), "lora_linear"),
            "[N, K]: x by row * w\n[P, K]: x by row * A\n[N, P]: C1 by row * B\ny[j < N] = (C0[j] + (s * "
            "C2[j]))\n");
  std::string text = normalText(*shippedFile("gpt_oss_lora"), "gate_up");
  EXPECT_TRUE(text.starts_with("[N, K]: x by token * w by expert\n[P, K]: x by token * A by expert\n[N, P]: "
                               "C1 by row * B by expert\n"))
      << text;
  EXPECT_NE(text.find("((C0[2*j+1] + b[expert, 2*j+1]) + (s * C2[2*j+1]))"), std::string::npos) << text;
  // A local that is one sum is the same as the sum in parentheses.
  EXPECT_EQ(normalText("kernel f(x: act[T, K], A: f32[P, K], B: f32[N, P]) -> y: act[T, N] { a[t, p] = "
                       "sum(k) x[t, k] * A[p, k]\n y[t, n] = sum(p) a[t, p] * B[n, p] }"),
            normalText("kernel f(x: act[T, K], A: f32[P, K], B: f32[N, P]) -> y: act[T, N] { y[t, n] = "
                       "sum(p) B[n, p] * (sum(k) x[t, k] * A[p, k]) }"));
}

TEST(SyntaxNormalize, EqualPartsAreSharedAndUnusedOnesDropped) {
  auto program = parsed("fn f(a, unused) { spare = exp(a) return a * a }\n"
                        "kernel k(x: act[T, K], w: f32[N, K]) -> y: act[T, N], z: act[T, N] {\n"
                        "  y[t, n] = f(sum(k) x[t, k] * w[n, k] + 1.0, tanh(2.0))\n"
                        "  z[t, n] = (sum(k) x[t, k] * w[n, k] + 1.0) * (sum(q) w[n, q] * x[t, q] + 1.0)\n}");
  ASSERT_EQ(program->kernels.size(), 1u);
  auto normal = normalize(*program, program->kernels[0]);
  ASSERT_TRUE(normal);
  EXPECT_EQ(normal->contractions.size(), 1u);
  for (const Write &write : normal->writes) {
    EXPECT_EQ(write.nodes.size(), 4u); // C0, 1, C0 + 1, square
    EXPECT_EQ(nodeText(*normal, write, 3), "((C0[j] + 1) * (C0[j] + 1))");
  }
}

TEST(SyntaxNormalize, ZeroAndMinusZeroAreDifferentNumbers) {
  EXPECT_EQ(
      normalText("kernel f(x: act[T, N]) -> y: act[T, N] { y[t, n] = max(x[t, n], 0) - max(x[t, n], -0) }"),
      "y[j < N] = (max(x[row, j], 0) - max(x[row, j], -0))\n");
}

TEST(SyntaxNormalize, IndicesOfLocalsCompose) {
  EXPECT_EQ(normalText("kernel f(x: f32[T, N], b: f32[N], u: f32[T, N/8]) -> y: f32[T, N/8] {\n"
                       "  p[t, n] = x[t, 2*n] + b[n + N/2]\n"  // n < N/2
                       "  q[t, n] = p[t, n] * p[t, n + N/4]\n" // n < N/4
                       "  y[t, j] = q[t, 2*j] + u[t, j]\n}"),
            "y[j < N/8] = (((x[row, 4*j] + b[2*j+N/2]) * (x[row, 4*j+N/2] + b[2*j+3*N/4])) + u[row, j])\n");
}

TEST(SyntaxNormalize, EveryKindOfRead) {
  EXPECT_EQ(
      normalText("kernel f(h: act[R, N], x: act[T, N], a: f32[R], b: f32[T], c: f32[E], d: f32[N], route: "
                 "routing[T, E], s: f32)\n"
                 "    -> y: act[R, N] { y[r, n] = select(h[r, n] != s, x[r.token, n] / a[r], b[r.token] - "
                 "c[r.expert]) * -d[n] }"),
      "y[j < N] = (select((h[row, j] != s), (x[token, j] / a[row]), (b[token] - c[expert])) * -d[j])\n");
}

} // namespace
} // namespace quern::syntax::test
