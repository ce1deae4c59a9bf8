// See ImageKey.h. One table of fields: the key is the table in order.
#include "runtime/launch/ImageKey.h"
#include "compiler/syntax/Syntax.h"
#include "runtime/driver/ToolIdentity.h"
#include "runtime/jit/CompilerStamp.h"
#include "runtime/launch/CpuFeatures.h"
#include "runtime/launch/Images.h"
#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace quern {
namespace {

using jit::Request;

/// Raised when the parts of an entry (ImageFile.h) or their meaning change.
constexpr const char *imageFormat = "1";

void collectFns(const syntax::Program &program, const syntax::Expr &expr, std::set<int> &fns) {
  if (expr.kind == syntax::ExprKind::Call && expr.fnIndex >= 0 && fns.insert(expr.fnIndex).second) {
    const syntax::Fn &fn = program.fns[size_t(expr.fnIndex)];
    for (auto &[name, value] : fn.lets) collectFns(program, *value, fns);
    collectFns(program, *fn.result, fns);
  }
  for (auto &child : expr.children) collectFns(program, *child, fns);
}

std::string sourceText(const Request &r) { return kernelText(*r.program, r.kernel); }

std::string dimsText(const Request &r) {
  std::string text;
  for (auto &[symbol, value] : r.dims) text += fmt::format("{}{}={}", text.empty() ? "" : " ", symbol, value);
  return text;
}

std::string operandsText(const std::vector<jit::OperandKey> &operands) {
  std::string text;
  for (auto &o : operands)
    text += fmt::format("{}{} layout {} block {} {}", text.empty() ? "" : "; ", name(o.dtype), name(o.layout),
                        o.block, o.unitStride ? "dense" : "strided");
  return text;
}

/// Only the default schedule of a GPU looks at it: calls that name a schedule share their images.
std::string rowsText(const Request &r) {
  return r.schedule.empty() && r.target != "cpu" ? std::to_string(r.rowsPerExpert) : "any";
}

enum Targets { All, OnlyCpu };
struct Field {
  const char *name;
  Targets targets;
  std::string (*value)(const Request &);
};
constexpr Field table[] = {
    {"format", All, [](const Request &) { return std::string(imageFormat); }},
    {"target", All, [](const Request &r) { return r.target; }},
    {"kernel", All, [](const Request &r) { return r.kernel; }},
    {"source", All, sourceText},
    {"dims", All, dimsText},
    {"act", All, [](const Request &r) { return std::string(name(r.act)); }},
    {"params", All, [](const Request &r) { return operandsText(r.params); }},
    {"outputs", All, [](const Request &r) { return operandsText(r.outputs); }},
    {"schedule", All, [](const Request &r) { return r.schedule; }},
    {"rows per expert", All, rowsText},
    {"cpu features", OnlyCpu, [](const Request &r) { return r.features; }},
    {"compiler", All, [](const Request &) { return std::string(jit::compilerStamp); }},
    {"llvm", All, [](const Request &) { return std::string(jit::llvmVersion); }},
};

} // namespace

std::string kernelText(const syntax::Program &program, const std::string &name) {
  const syntax::Kernel *kernel = program.findKernel(name);
  if (!kernel) return "";
  std::set<std::string> codecs;
  for (auto &param : kernel->params)
    if (param.kind == syntax::Param::Packed) codecs.insert(param.codec);
  std::set<int> fns;
  for (auto &stmt : kernel->stmts) collectFns(program, *stmt.value, fns);
  syntax::Program part;
  for (auto &codec : codecs)
    if (const syntax::Codec *found = program.findCodec(codec)) part.codecs.push_back(*found);
  for (int fn : fns) part.fns.push_back(program.fns[size_t(fn)]);
  std::ranges::sort(part.fns, {}, &syntax::Fn::name);
  part.kernels.push_back(*kernel);
  return syntax::print(part);
}

Request resolved(const Request &request) {
  Request full = request;
  if (full.features.empty()) full.features = cpuFeatures();
  return full;
}

cache::Key imageKeyWithoutTool(const Request &request) {
  bool cpu = request.target == "cpu";
  cache::Key key{cpu ? "cpu" : "gpu", {}};
  for (const Field &field : table)
    if (cpu || field.targets == All) key.add(field.name, field.value(request));
  return key;
}

cache::Key imageKeyWith(const Request &request, const std::string &ptxas) {
  cache::Key key = imageKeyWithoutTool(request);
  if (request.target == "sm_90a") key.add("ptxas", ptxas);
  return key;
}

cache::Key imageKey(const Request &request) {
  return imageKeyWith(resolved(request), request.target == "sm_90a" ? driver::ptxasInUse() : "");
}

} // namespace quern
