// The key of an image: every field of a request changes it, and nothing else does.
#include "compiler/syntax/Syntax.h"
#include "runtime/driver/ToolIdentity.h"
#include "runtime/jit/CompilerStamp.h"
#include "runtime/launch/CpuFeatures.h"
#include "runtime/launch/ImageKey.h"
#include "runtime/launch/Images.h"
#include "tests/support/private_cache.h"
#include "tests/unit/driver_support.h"
#include <clocale>
#include <fmt/format.h>
#include <functional>
#include <map>
#include <set>

namespace quern {
namespace {

std::shared_ptr<const syntax::Program> parse(std::string_view text, const char *file = "a.qn") {
  auto program = syntax::parseProgram(text, file);
  if (!program) throw std::runtime_error(program.error().str());
  return *program;
}

constexpr std::string_view source = R"(use nf4
fn twice(v) { return v * 2.0 }
fn half(v) { return twice(v) * 0.25 }
fn unused(v) { return v * 3.0 }
kernel first(x: act[T, K], w: nf4[N, K]) -> y: f32[T, N] {
  y[t, n] = half(sum(k) x[t, k] * w[n, k])
}
kernel second(x: act[T, K], w: nf4[N, K]) -> y: f32[T, N] {
  y[t, n] = sum(k) x[t, k] * w[n, k]
}
)";

jit::Request makeRequest(const syntax::Program &program, const std::string &target = "cpu") {
  jit::Request r;
  r.program = &program, r.kernel = "first", r.target = target;
  r.dims = {{"K", 64}, {"N", 32}};
  r.act = DType::BF16;
  r.params = {{DType::BF16, Layout::Cpu, 64, true}, {DType::F32, Layout::Cpu, 64, true}};
  r.outputs = {{DType::F32, Layout::Cpu, 64, true}};
  r.features = "+avx2", r.schedule = "", r.rowsPerExpert = 8;
  return r;
}

std::string keyOf(const jit::Request &r, const std::string &ptxas = "13.0.88") {
  return imageKeyWith(r, ptxas).text();
}

struct Change {
  const char *field;
  std::function<void(jit::Request &)> apply;
};

/// One change of each field, at least. The structured bindings stop compiling when a record gains a field.
std::vector<Change> changes(const syntax::Program &other) {
  jit::Request r;
  [[maybe_unused]] auto &[program, kernel, dims, act, params, outputs, features, schedule, rows, target] = r;
  jit::OperandKey o;
  [[maybe_unused]] auto &[dtype, layout, block, unitStride] = o;
  using R = jit::Request;
  std::vector<Change> all = {
      {"program", [&other](R &r) { r.program = &other; }},
      {"kernel", [](R &r) { r.kernel = "second"; }},
      {"dims value", [](R &r) { r.dims["K"] = 128; }},
      {"dims more", [](R &r) { r.dims["P"] = 16; }},
      {"dims less", [](R &r) { r.dims.erase("N"); }},
      {"act", [](R &r) { r.act = DType::F16; }},
      {"params less", [](R &r) { r.params.pop_back(); }},
      {"params order", [](R &r) { std::swap(r.params[0], r.params[1]); }},
      {"outputs more", [](R &r) { r.outputs.push_back(r.outputs[0]); }},
      {"params to outputs", [](R &r) { r.outputs.push_back(r.params[1]), r.params.pop_back(); }},
      {"features", [](R &r) { r.features = "-avx2"; }},
      {"schedule", [](R &r) { r.schedule = "rows=4"; }},
      {"rowsPerExpert", [](R &r) { r.rowsPerExpert = 16; }},
      {"target", [](R &r) { r.target = r.target == "cpu" ? "sm_90a" : "cpu"; }},
  };
  for (int i = 0; i < 3; ++i) {
    auto operand = [i](R &r) -> jit::OperandKey & { return i < 2 ? r.params[size_t(i)] : r.outputs[0]; };
    all.push_back({"dtype", [=](R &r) { operand(r).dtype = DType::F16; }});
    all.push_back({"layout", [=](R &r) { operand(r).layout = Layout::Gpu; }});
    all.push_back({"layout bnb", [=](R &r) { operand(r).layout = Layout::Bnb; }});
    all.push_back({"block", [=](R &r) { operand(r).block = 128; }});
    all.push_back({"unitStride", [=](R &r) { operand(r).unitStride = false; }});
  }
  return all;
}

TEST(ImageKey, EveryFieldOfTheRequestChangesIt) {
  auto program = parse(source);
  std::string edited(source);
  edited.replace(edited.find("0.25"), 4, "0.26");
  auto other = parse(edited);
  for (const char *target : {"cpu", "sm_90a"}) {
    jit::Request base = makeRequest(*program, target);
    std::map<std::string, std::string> seen{{keyOf(base), "nothing"}};
    for (auto &[field, apply] : changes(*other)) {
      // The features do not reach a GPU's code, and a CPU's default schedule does not look at the rows.
      if (std::string(field) == (base.target == "cpu" ? "rowsPerExpert" : "features")) {
        jit::Request changed = base;
        apply(changed);
        EXPECT_EQ(keyOf(changed), keyOf(base)) << target << ": " << field;
        continue;
      }
      jit::Request changed = base;
      apply(changed);
      auto [at, fresh] = seen.emplace(keyOf(changed), field);
      EXPECT_TRUE(fresh) << target << ": " << field << " gives the key of a change of " << at->second;
    }
  }
}

TEST(ImageKey, AssemblerCompilerAndLlvmAreInIt) {
  auto program = parse(source);
  jit::Request gpu = makeRequest(*program, "sm_90a"), cpu = makeRequest(*program);
  EXPECT_NE(keyOf(gpu, "13.0.88"), keyOf(gpu, "13.0.89"));
  EXPECT_NE(keyOf(gpu, "13.0.88"), keyOf(gpu, "none"));
  EXPECT_EQ(keyOf(cpu, "13.0.88"), keyOf(cpu, "none"));
  for (auto &r : {gpu, cpu}) {
    EXPECT_NE(keyOf(r).find("\ncompiler=" + std::string(jit::compilerStamp) + "\n"), std::string::npos);
    EXPECT_NE(keyOf(r).find("\nllvm=" + std::string(jit::llvmVersion) + "\n"), std::string::npos);
  }
  EXPECT_EQ(jit::compilerStamp.size(), 32u);
  EXPECT_EQ(imageKeyWithoutTool(gpu).text() + "ptxas=13.0.88\n", keyOf(gpu));
}

TEST(ImageKey, AScheduleStandsForEveryNumberOfRows) {
  auto program = parse(source);
  jit::Request a = makeRequest(*program, "sm_90a"), b = a;
  a.rowsPerExpert = 8, b.rowsPerExpert = 512;
  EXPECT_NE(keyOf(a), keyOf(b)) << "the default schedule looks at them";
  a.schedule = b.schedule = "bm=64";
  EXPECT_EQ(keyOf(a), keyOf(b));
}

TEST(ImageKey, WhatTheKernelDoesNotUseIsNotInIt) {
  auto program = parse(source);
  std::string key = keyOf(makeRequest(*program));
  std::string text(source);
  auto same = [&](std::string edited, const char *what, const char *file = "a.qn") {
    ASSERT_NE(edited, file == std::string("a.qn") ? text : "") << what;
    auto other = parse(edited, file);
    EXPECT_EQ(keyOf(makeRequest(*other)), key) << what;
  };
  auto replaced = [&](std::string_view from, std::string_view to) {
    std::string edited = text;
    return edited.replace(edited.find(from), from.size(), to);
  };
  same("# a comment\n" + text, "a comment");
  same(replaced("kernel second", "\n\n  kernel second"), "lines and spaces");
  same(replaced("* 3.0", "* 4.0"), "a function that it does not call");
  same(text.substr(0, text.find("kernel second")), "another kernel");
  same("use mxfp4\n" + text, "another codec");
  same(text, "the file's name", "/somewhere/else/b.qn");
  std::string moved = text;
  std::string twice = "fn twice(v) { return v * 2.0 }\n", unused = "fn unused(v) { return v * 3.0 }\n";
  moved.erase(moved.find(unused), unused.size());
  same(unused + moved, "the order of declarations");
  auto differs = parse(replaced("v * 2.0", "v * 2.5"));
  EXPECT_NE(keyOf(makeRequest(*differs)), key) << "a function that is called by one that it calls";
}

TEST(ImageKey, ACodecsNumbersAreInIt) {
  auto text = [](const char *last, const char *first, const char *scale, const char *zero) {
    return fmt::format(
        "codec c {{\n  table = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, {}]\n  first = "
        "{}\n  scale {} per 64\n{}}}\nkernel first(x: act[T, K], w: c[N, K]) -> y: f32[T, N] "
        "{{\n  y[t, n] = sum(k) x[t, k] * w[n, k]\n}}\n",
        last, first, scale, zero);
  };
  std::set<std::string> keys;
  for (auto &each :
       {text("15", "low", "f32", ""), text("15.000001", "low", "f32", ""), text("15", "high", "f32", ""),
        text("15", "low", "bf16", ""), text("15", "low", "f32", "  zero u4 per 64\n")}) {
    auto program = parse(each);
    keys.insert(keyOf(makeRequest(*program)));
  }
  EXPECT_EQ(keys.size(), 5u);
}

TEST(ImageKey, NothingOfTheProcessIsInIt) {
  auto program = parse(source);
  jit::Request r = makeRequest(*program);
  std::string before = imageKey(r).text();
  auto cwd = std::filesystem::current_path();
  {
    test::Environment home("HOME", "/elsewhere"), lang("LANG", "tr_TR.UTF-8"), tmp("TMPDIR", "/var/tmp");
    std::filesystem::current_path("/");
    std::setlocale(LC_ALL, "");
    auto again = parse(source, "/other/path.qn");
    EXPECT_EQ(imageKey(makeRequest(*again)).text(), before);
    std::setlocale(LC_ALL, "C");
  }
  std::filesystem::current_path(cwd);
  for (const char *never : {"/home", "/tmp", QUERN_SOURCE_DIR, QUERN_BINARY_DIR, "a.qn"})
    EXPECT_EQ(before.find(never), before.npos) << never;
}

TEST(ImageKey, FeaturesComeFromTheKnob) {
  auto program = parse(source);
  jit::Request r = makeRequest(*program);
  r.features.clear();
  test::Environment off("QUERN_CPU_FEATURES", "-quern-test");
  std::string without = imageKey(r).text();
  test::Environment on("QUERN_CPU_FEATURES", "+quern-test");
  EXPECT_NE(imageKey(r).text(), without);
  EXPECT_NE(imageKey(r).text().find("+quern-test"), std::string::npos);
  EXPECT_EQ(resolved(r).features, cpuFeatures());
}

TEST(ImageKey, PtxasIsAskedOncePerContent) {
  test::Folder folder;
  std::string asked = (folder.path / "asked").string();
  auto tool = [&](const char *name, const char *version) {
    return folder.tool(name, fmt::format("echo x >> {}\necho 'Cuda, release 13.0, V{}'", asked, version));
  };
  std::string first = tool("one", "13.0.1");
  test::Environment use("QUERN_PTXAS", first);
  auto program = parse(source);
  jit::Request r = makeRequest(*program, "sm_90a");
  std::string key = imageKey(r).text();
  EXPECT_TRUE(key.ends_with("\nptxas=13.0.1\n")) << key;
  imageKey(r);
  EXPECT_EQ(std::filesystem::file_size(asked), 2u) << "one line: it was started once";
  std::filesystem::remove(first);
  tool("one", "13.0.20"); // the same path, another content
  EXPECT_TRUE(imageKey(r).text().ends_with("\nptxas=13.0.20\n"));
  test::Environment mute("QUERN_PTXAS", folder.tool("mute", "exit 1"));
  EXPECT_NE(imageKey(r).text().find("\nptxas=content "), std::string::npos) << imageKey(r).text();
}

TEST(ToolIdentity, ReleasesCompareAsNumbers) {
  using driver::releaseOf;
  EXPECT_LT(releaseOf("12.9.86"), releaseOf("13.0.1"));
  EXPECT_LT(releaseOf("13.2"), releaseOf("13.10.1"));
  EXPECT_EQ(releaseOf("content 1"), releaseOf(""));
  EXPECT_EQ(releaseOf("13"), (driver::ToolRelease{13, 0}));
}

TEST(ToolIdentity, TheNewestKeptToolIsFound) {
  test::Folder folder;
  auto store = cache::Store::open((folder.path / "cache").string(), 1 << 20);
  cache::Key key{"gpu", {}};
  key.add("source", "x");
  EXPECT_EQ(driver::newestTool(*store, key), "");
  for (const char *version : {"12.9.1", "13.10.3", "13.2.7", "12.9.1"})
    driver::rememberTool(*store, key, version);
  EXPECT_EQ(driver::newestTool(*store, key), "13.10.3");
  EXPECT_EQ(driver::newestTool(*store, key, 12), "12.9.1");
  key.add("more", "y");
  EXPECT_EQ(driver::newestTool(*store, key), "");
}

} // namespace
} // namespace quern
