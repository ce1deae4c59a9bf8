// parseProgram: lex and parse, then check, each step only when the one before succeeded; and the shipped
// files.
#include "compiler/syntax/Syntax.h"
#include "compiler/syntax/Check.h"
#include "compiler/syntax/Normalize.h"
#include "compiler/syntax/Parser.h"
#include <algorithm>

namespace quern {
struct ShippedKernel {
  const char *name, *text;
};
extern const ShippedKernel shippedKernels[]; // generated from kernels/*.qn; ends with a null name
} // namespace quern

namespace quern::syntax {

Expected<std::shared_ptr<const Program>> parseProgram(std::string_view text, std::string_view fileName,
                                                      const UseResolver &use) {
  Source source(text, fileName);
  Expected<Program> parsed = Parser(source, use ? &use : nullptr).run();
  if (!parsed) return parsed.takeError();
  auto program = std::make_shared<Program>(std::move(*parsed));
  auto error = [&](const Failure &failure) {
    return source.error(failure.loc, failure.message, failure.rule);
  };
  FnChecker fns(*program);
  if (auto failure = fns.run()) return error(*failure);
  for (Kernel &kernel : program->kernels) {
    if (auto failure = KernelChecker(*program, fns, kernel).run()) return error(*failure);
    NormalKernel normal; // composed indices show only when locals are inlined
    if (auto failure = normalizeKernel(*program, kernel, normal)) return error(*failure);
  }
  return std::shared_ptr<const Program>(std::move(program));
}

std::optional<std::string> shippedFile(std::string_view name) {
  if (name.ends_with(".qn")) name.remove_suffix(3);
  for (const ShippedKernel *file = shippedKernels; file->name; ++file) {
    std::string_view stem = file->name;
    stem.remove_suffix(3);
    if (stem == name) return file->text;
  }
  return std::nullopt;
}

std::vector<std::string> shippedFiles() {
  std::vector<std::string> names;
  for (const ShippedKernel *file = shippedKernels; file->name; ++file) names.emplace_back(file->name);
  std::sort(names.begin(), names.end());
  return names;
}

const Codec *Program::findCodec(const std::string &name) const {
  for (const Codec &codec : codecs)
    if (codec.name == name) return &codec;
  return nullptr;
}

const Kernel *Program::findKernel(const std::string &name) const {
  for (const Kernel &kernel : kernels)
    if (kernel.name == name) return &kernel;
  return nullptr;
}

} // namespace quern::syntax
