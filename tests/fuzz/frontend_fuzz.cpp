// libFuzzer target of the front end: no input crashes it, every error is complete, and what parses
// normalizes, prints, and parses back to the same text. Seeds: corpus/ (made by make_corpus.sh from the
// shipped files and tests/error); words: qn.dict.
//   frontend-fuzz -dict=tests/fuzz/qn.dict -max_len=4096 SCRATCH_FOLDER tests/fuzz/corpus
#include "compiler/syntax/Syntax.h"
#include <cstdio>
#include <cstdlib>

using namespace quern;
using namespace quern::syntax;

static void require(bool condition, const char *what, const std::string &detail) {
  if (condition) return;
  std::fprintf(stderr, "%s:\n%s\n", what, detail.c_str());
  std::abort();
}

/// Every node of the normal form refers to things that exist, so that nothing behind the front end can be
/// made to read out of bounds.
static void checkNormalForm(const Kernel &kernel, const NormalKernel &normal) {
  auto within = [](int index, size_t size) { return index >= 0 && static_cast<size_t>(index) < size; };
  for (size_t i = 0; i < normal.contractions.size(); ++i) {
    const Contraction &c = normal.contractions[i];
    bool lhs = c.lhsParam >= 0 ? within(c.lhsParam, kernel.params.size()) : within(c.lhsContraction, i);
    require(lhs && within(c.rhsParam, kernel.params.size()), "contraction refers to nothing", kernel.name);
  }
  require(normal.writes.size() == kernel.outputs.size(), "an output is not written", kernel.name);
  for (const Write &write : normal.writes) {
    require(!write.nodes.empty() && within(write.output, kernel.outputs.size()), "empty write", kernel.name);
    for (size_t i = 0; i < write.nodes.size(); ++i) {
      const Node &node = write.nodes[i];
      for (int operand : node.operands)
        require(within(operand, i), "operand does not stand before its user", kernel.name);
      if (node.op == Op::Scalar || node.op == Op::ReadTensor)
        require(within(node.index, kernel.params.size()), "read of no parameter", kernel.name);
      if (node.op == Op::ReadContraction)
        require(within(node.index, normal.contractions.size()), "read of no contraction", kernel.name);
    }
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string_view text(reinterpret_cast<const char *>(data), size);
  auto program = parseProgram(text, "fuzz.qn");
  if (!program) {
    const Error &error = program.error();
    require(error.kind == ErrorKind::User && !error.rule.empty() && !error.place.empty() &&
                !error.detail.empty() && error.str().size() < 2000,
            "incomplete error", error.str());
    return 0;
  }
  for (const Kernel &kernel : (*program)->kernels) {
    auto normal = normalize(**program, kernel);
    require(bool(normal), "a checked kernel does not normalize", kernel.name);
    checkNormalForm(kernel, *normal);
  }
  std::string printed = print(**program);
  if (printed.size() > 1 << 20) return 0; // printing spells out `use` and adds spaces
  auto again = parseProgram(printed, "printed.qn");
  require(bool(again), "printed text does not parse", again ? "" : again.error().str() + "\n" + printed);
  require(print(**again) == printed, "printed text changes when printed again", printed);
  return 0;
}
