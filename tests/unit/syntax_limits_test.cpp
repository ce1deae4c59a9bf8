// Hostile input: one clear error or success, in linear time, with no deep recursion. Sizes are chosen so that
// a quadratic step or a recursion per level would time out or overflow the stack of the small thread that
// runs them.
#include "syntax_support.h"
#include <chrono>
#include <pthread.h>

namespace quern::syntax::test {
namespace {

/// Runs parse, normalize, print on a thread with a stack of 512 KiB (several times that with sanitizers,
/// whose frames are larger); fails above 10 seconds.
std::string ruleOnSmallStack(const std::string &text) {
  struct Job {
    const std::string &text;
    std::string rule;
  } job{text, ""};
  auto body = [](void *argument) -> void * {
    Job &job = *static_cast<Job *>(argument);
    auto program = parseProgram(job.text, "test.qn");
    job.rule = program ? "ok" : program.error().rule;
    if (program) {
      for (const Kernel &kernel : (*program)->kernels) EXPECT_TRUE(normalize(**program, kernel));
      EXPECT_TRUE(parseProgram(print(**program), "printed.qn"));
    } else {
      EXPECT_LT(program.error().str().size(), 1000u);
    }
    return nullptr;
  };
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
  size_t stackBytes = 4 << 20;
#else
  size_t stackBytes = 512 << 10;
#endif
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stackBytes);
  auto start = std::chrono::steady_clock::now();
  pthread_t thread;
  EXPECT_EQ(pthread_create(&thread, &attributes, body, &job), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  return job.rule;
}

std::string times(int count, const std::string &part) {
  std::string out;
  out.reserve(count * part.size());
  for (int i = 0; i < count; ++i) out += part;
  return out;
}

std::string fnOf(const std::string &value) { return "fn f(a) { return " + value + " }"; }
std::string kernelOf(const std::string &body) {
  return "kernel f(x: f32[T, K], w: f32[K, K]) -> y: f32[T, K] {\n" + body + "\n}";
}

TEST(SyntaxLimits, BracketsSignsAndOperatorsByTheMillion) {
  const int many = 1'000'000;
  for (const char *open : {"(", "[", "{"}) EXPECT_EQ(ruleOnSmallStack(times(many, open)), "syntax");
  EXPECT_EQ(ruleOnSmallStack(fnOf(times(many, "("))), "limit.depth");
  EXPECT_EQ(ruleOnSmallStack(fnOf(times(many, "-") + "a")), "limit.depth");
  EXPECT_EQ(ruleOnSmallStack(fnOf(times(200'000, "min(") + "a")), "limit.depth");
  EXPECT_EQ(ruleOnSmallStack(fnOf("a" + times(500'000, "+a"))), "limit.depth");
  EXPECT_EQ(ruleOnSmallStack(fnOf("a" + times(500'000, "*a"))), "limit.depth");
  EXPECT_EQ(ruleOnSmallStack(kernelOf("y[r, n] = " + times(100'000, "(sum(k) "))), "limit.depth");
  EXPECT_EQ(ruleOnSmallStack(kernelOf("y[r, n] = sum(k) " + times(100'000, "(sum(k) "))), "limit.depth");
}

TEST(SyntaxLimits, DepthIsAllowedUpToTheLimit) {
  EXPECT_EQ(ruleOnSmallStack(fnOf("a" + times(255, "+a"))), "ok");
  EXPECT_EQ(ruleOnSmallStack(fnOf("a" + times(256, "+a"))), "limit.depth");
  EXPECT_EQ(ruleOnSmallStack(fnOf(times(255, "-") + "a")), "ok");
  EXPECT_EQ(ruleOnSmallStack(fnOf(times(256, "-") + "a")), "limit.depth");
  EXPECT_EQ(ruleOnSmallStack(fnOf(times(255, "(") + "a" + times(255, ")"))), "ok"); // the body's brace is one
  EXPECT_EQ(ruleOnSmallStack(fnOf(times(256, "(") + "a" + times(256, ")"))), "limit.depth");
}

TEST(SyntaxLimits, InliningIsBoundedBeforeItHappens) {
  std::string doubling = "fn f0(a) { return a + 1.0 }\n";
  for (int i = 1; i < 200; ++i) {
    std::string previous = "h" + std::to_string(i - 1);
    doubling += "fn h" + std::to_string(i) + "(a) { return " + (i == 1 ? "f0" : previous) + "(a) * " +
                (i == 1 ? "f0" : previous) + "(a + 1.0) }\n";
  }
  EXPECT_EQ(ruleOnSmallStack(doubling), "limit.inline");
  std::string locals = "z0[r, n] = x[r, n]\n"; // each local reads the one before twice
  for (int i = 1; i < 100; ++i) {
    std::string previous = "z" + std::to_string(i - 1) + "[r, n]";
    locals += "z" + std::to_string(i) + "[r, n] = " + previous + " * " + previous + "\n";
  }
  EXPECT_EQ(ruleOnSmallStack(kernelOf(locals)), "limit.inline");
  std::string chain = "z0[r, n] = x[r, n]\n";
  for (int i = 1; i < 20'000; ++i)
    chain += "z" + std::to_string(i) + "[r, n] = z" + std::to_string(i - 1) + "[r, n]\n";
  EXPECT_EQ(ruleOnSmallStack(kernelOf(chain)), "limit.depth");
  std::string calls = "fn h0(a) { return a }\n";
  for (int i = 1; i < 20'000; ++i)
    calls += "fn h" + std::to_string(i) + "(a) { return h" + std::to_string(i - 1) + "(a) }\n";
  EXPECT_EQ(ruleOnSmallStack(calls), "limit.depth");
}

TEST(SyntaxLimits, LongFilesTakeLinearTime) {
  std::string fns, lets = "fn f(a) {\n", statements, uses, sums, codecs;
  for (int i = 0; i < 30'000; ++i) fns += "fn h" + std::to_string(i) + "(a) { return a }\n";
  EXPECT_EQ(ruleOnSmallStack(fns), "ok");
  EXPECT_EQ(ruleOnSmallStack(fns + fnOf("missing(a)")), "fn.unknown");
  for (int i = 0; i < 5'000; ++i) lets += "  v" + std::to_string(i) + " = a + 1\n";
  EXPECT_EQ(ruleOnSmallStack(lets + "return a }"), "ok");
  for (int i = 5'000; i < 50'000; ++i) lets += "  v" + std::to_string(i) + " = a + 1\n";
  EXPECT_EQ(ruleOnSmallStack(lets + "return a }"), "limit.inline");
  for (int i = 0; i < 20'000; ++i) statements += "z" + std::to_string(i) + "[r, n] = x[r, n]\n";
  EXPECT_EQ(ruleOnSmallStack(kernelOf(statements)), "output.unwritten");
  for (int i = 0; i < 4'000; ++i) { // a balanced tree of sums with a variable each
    sums += "min(sum(k" + std::to_string(i) + ") x[r, k" + std::to_string(i) + "] * w[n, k" +
            std::to_string(i) + "], ";
    if (i % 200 == 199) sums += "0" + times(200, ")") + " + ";
  }
  EXPECT_EQ(ruleOnSmallStack(kernelOf("y[r, n] = " + sums + "0")), "ok");
  for (int i = 0; i < 1'000; ++i)
    codecs +=
        "codec c" + std::to_string(i) +
        " { table = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] first = low scale f32 per 32 }\n";
  EXPECT_EQ(ruleOnSmallStack(codecs), "ok");
  for (int i = 0; i < 256; ++i)
    codecs += "kernel k" + std::to_string(i) +
              "(x: act[T, K], w: c7[N, K]) -> y: act[T, N] { y[t, n] = sum(k) x[t, k] * w[n, k] }\n";
  EXPECT_EQ(ruleOnSmallStack(codecs), "ok");
}

TEST(SyntaxLimits, TenMegabyteLineAndOddBytes) {
  EXPECT_EQ(ruleOnSmallStack(std::string(10 << 20, 'a')), "text.size");
  EXPECT_EQ(ruleOnSmallStack(std::string(1 << 20, 'a')), "name.length");
  EXPECT_EQ(ruleOnSmallStack(std::string(1 << 20, '7')), "name.length");
  EXPECT_EQ(ruleOnSmallStack(std::string(1 << 20, ' ')), "file.empty");
  EXPECT_EQ(ruleOnSmallStack(std::string(1 << 20, '\n')), "file.empty");
  EXPECT_EQ(ruleOnSmallStack(std::string(1 << 20, '#')), "file.empty");
  EXPECT_EQ(ruleOnSmallStack(std::string(1 << 20, '\0')), "text.nul");
  EXPECT_EQ(ruleOnSmallStack(std::string(1 << 20, '\xFF')), "text.utf8");
  EXPECT_EQ(ruleOnSmallStack(""), "file.empty");
  EXPECT_EQ(ruleOnSmallStack("\xEF\xBB\xBF" + fnOf("a")), "ok"); // byte order mark
  EXPECT_EQ(ruleOnSmallStack("fn f(a) {\r\n  return a # \xE2\x82\xAC\r\n}\r\n"), "ok");
  for (int c = 1; c < 256; ++c) { // every byte value in a fn's body
    std::string rule = ruleOf(fnOf(std::string("a ") + char(c) + " a"));
    EXPECT_FALSE(rule.empty()) << c;
    if (c >= 128) EXPECT_EQ(rule, "text.utf8") << c;
  }
  for (const char *bad : {"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\xC3", "\xE2\x82", "\x80"})
    EXPECT_EQ(ruleOf(std::string("# ") + bad), "text.utf8");
}

TEST(SyntaxLimits, EveryPrefixAndEveryDroppedTokenOfTheShippedFilesIsHandled) {
  for (const std::string &name : shippedFiles()) {
    std::string text = *shippedFile(name);
    for (size_t end = 0; end < text.size(); ++end) {
      auto program = parseProgram(text.substr(0, end), name);
      if (!program) {
        EXPECT_FALSE(program.error().rule.empty());
        EXPECT_FALSE(program.error().detail.empty());
      }
      program = parseProgram(text.substr(0, end) + text.substr(end + 1), name);
      if (!program) EXPECT_FALSE(program.error().rule.empty());
    }
  }
}

} // namespace
} // namespace quern::syntax::test
