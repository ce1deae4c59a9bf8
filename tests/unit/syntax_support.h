// Helpers of the front end's tests: files of the source tree, parsing that must succeed, and comparison of
// trees.
#pragma once
#include "compiler/syntax/Syntax.h"
#include <fstream>
#include <gtest/gtest.h>
#include <sstream>

namespace quern::syntax::test {

inline std::string readFile(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline std::string sourcePath(const std::string &name) { return std::string(QUERN_SOURCE_DIR) + "/" + name; }

/// The program, or a test failure with the error's text and an empty program.
inline std::shared_ptr<const Program> parsed(std::string_view text, std::string_view fileName = "test.qn") {
  auto program = parseProgram(text, fileName);
  if (program) return *program;
  ADD_FAILURE() << program.error().str() << "\nin:\n" << text;
  return std::make_shared<const Program>();
}

/// "label" of the error that `text` gives, or "ok".
inline std::string ruleOf(std::string_view text) {
  auto program = parseProgram(text, "test.qn");
  return program ? "ok" : program.error().rule;
}

inline bool same(const Index &a, const Index &b) {
  return a.kind == b.kind && a.var == b.var && a.mul == b.mul && a.offset == b.offset;
}
inline bool same(const Expr &a, const Expr &b) {
  if (a.kind != b.kind || a.name != b.name || a.callee != b.callee || a.fnIndex != b.fnIndex) return false;
  if (std::bit_cast<uint64_t>(a.number) != std::bit_cast<uint64_t>(b.number)) return false;
  auto equal = [](const auto &x, const auto &y) { return same(x, y); };
  auto equalChild = [](const ExprPtr &x, const ExprPtr &y) { return same(*x, *y); };
  return std::equal(a.indices.begin(), a.indices.end(), b.indices.begin(), b.indices.end(), equal) &&
         std::equal(a.children.begin(), a.children.end(), b.children.begin(), b.children.end(), equalChild);
}
inline bool same(const Param &a, const Param &b) {
  return a.kind == b.kind && a.name == b.name && a.elem.kind == b.elem.kind &&
         a.elem.literal == b.elem.literal && a.codec == b.codec && a.dims == b.dims;
}
inline bool same(const Fn &a, const Fn &b) {
  auto equalLet = [](const auto &x, const auto &y) {
    return x.first == y.first && same(*x.second, *y.second);
  };
  return a.name == b.name && a.params == b.params && same(*a.result, *b.result) &&
         std::equal(a.lets.begin(), a.lets.end(), b.lets.begin(), b.lets.end(), equalLet);
}
inline bool same(const Stmt &a, const Stmt &b) {
  auto equal = [](const auto &x, const auto &y) { return same(x, y); };
  return a.target == b.target && a.accumulate == b.accumulate && same(*a.value, *b.value) &&
         std::equal(a.indices.begin(), a.indices.end(), b.indices.begin(), b.indices.end(), equal);
}
inline bool same(const Codec &a, const Codec &b) {
  auto equalBits = [](float x, float y) { return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y); };
  return a.name == b.name && a.highFirst == b.highFirst && a.scale == b.scale && a.block == b.block &&
         a.hasZero == b.hasZero && std::equal(a.table.begin(), a.table.end(), b.table.begin(), equalBits);
}
inline bool same(const Kernel &a, const Kernel &b) {
  auto equal = [](const auto &x, const auto &y) { return same(x, y); };
  auto equalLocal = [](const Local &x, const Local &y) { return x.name == y.name && x.columns == y.columns; };
  auto equalLoops = [](const std::vector<LoopVar> &x, const std::vector<LoopVar> &y) {
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](const LoopVar &p, const LoopVar &q) {
      return p.name == q.name && p.range == q.range;
    });
  };
  return a.name == b.name &&
         std::equal(a.params.begin(), a.params.end(), b.params.begin(), b.params.end(), equal) &&
         std::equal(a.outputs.begin(), a.outputs.end(), b.outputs.begin(), b.outputs.end(), equal) &&
         std::equal(a.stmts.begin(), a.stmts.end(), b.stmts.begin(), b.stmts.end(), equal) &&
         a.routing == b.routing && a.rowVar == b.rowVar && a.rows == b.rows && a.dimSymbols == b.dimSymbols &&
         std::equal(a.locals.begin(), a.locals.end(), b.locals.begin(), b.locals.end(), equalLocal) &&
         std::equal(a.loops.begin(), a.loops.end(), b.loops.begin(), b.loops.end(), equalLoops);
}
inline bool same(const Program &a, const Program &b) {
  auto equal = [](const auto &x, const auto &y) { return same(x, y); };
  return std::equal(a.codecs.begin(), a.codecs.end(), b.codecs.begin(), b.codecs.end(), equal) &&
         std::equal(a.fns.begin(), a.fns.end(), b.fns.begin(), b.fns.end(), equal) &&
         std::equal(a.kernels.begin(), a.kernels.end(), b.kernels.begin(), b.kernels.end(), equal);
}

} // namespace quern::syntax::test
