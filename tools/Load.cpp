// Files, shipped files, kernels by name, and signatures as text.
#include "tools/Load.h"
#include "compiler/syntax/Source.h"
#include "tools/Commands.h"
#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iostream>
#include <sstream>

namespace quern::tools {
using namespace syntax;

Expected<SourceText> loadText(const std::string &file) {
  std::ostringstream text;
  if (file == "-") {
    text << std::cin.rdbuf();
    return SourceText{"<stdin>", text.str()};
  }
  std::error_code code;
  if (!std::filesystem::exists(file, code)) {
    if (auto shipped = shippedFile(file))
      return SourceText{file.ends_with(".qn") ? file : file + ".qn", *shipped};
    std::vector<std::string> names;
    for (const std::string &n : shippedFiles()) names.push_back(n.substr(0, n.size() - 3));
    Error e = Error::system(
        fmt::format("found neither a file nor a shipped file of this name{}", didYouMean(file, names)), file);
    e.detail = fmt::format("shipped: {}", fmt::join(names, ", "));
    return e;
  }
  std::ifstream in(file, std::ios::binary);
  if (std::filesystem::is_directory(file, code) || !in || !(in.peek(), text << in.rdbuf() || in.eof()))
    return Error::system("cannot be read", file);
  return SourceText{file, text.str()};
}

Expected<std::shared_ptr<const Program>> loadProgram(const std::string &file) {
  auto source = loadText(file);
  if (!source) return source.takeError();
  return parseProgram(source->text, source->name);
}

Expected<const Kernel *> pickKernel(const Program &program, const std::string &name) {
  if (program.kernels.empty()) return Error::user("has no kernel", program.fileName);
  std::vector<std::string> names;
  for (const Kernel &k : program.kernels) names.push_back(k.name);
  if (const Kernel *found = program.findKernel(name)) return found;
  if (name.empty() && program.kernels.size() == 1) return &program.kernels[0];
  std::string message =
      name.empty() ? "has several kernels; name one with --kernel"
                   : fmt::format("has no kernel {}{}", syntax::quoted(name), didYouMean(name, names));
  Error e = Error::user(message, program.fileName);
  e.detail = fmt::format("kernels: {}", fmt::join(names, ", "));
  return e;
}

static std::string paramText(const Param &p) {
  std::string type = p.kind == Param::Packed          ? p.codec
                     : p.kind == Param::Routing       ? "routing"
                     : p.elem.kind == ElemType::Act   ? "act"
                     : p.elem.kind == ElemType::Float ? "float"
                                                      : std::string(name(p.elem.literal));
  std::vector<std::string> dims;
  for (const Dim &d : p.dims) dims.push_back(d.str());
  return fmt::format("{}: {}{}", p.name, type,
                     dims.empty() ? "" : fmt::format("[{}]", fmt::join(dims, ", ")));
}

std::string signature(const Kernel &kernel) {
  auto list = [](const std::vector<Param> &params) {
    std::vector<std::string> out;
    for (const Param &p : params) out.push_back(paramText(p));
    return fmt::format("{}", fmt::join(out, ", "));
  };
  return fmt::format("{}({}) -> {}", kernel.name, list(kernel.params), list(kernel.outputs));
}

int report(const Error &error) {
  fmt::print(stderr, "{}\n", error.str());
  return failure;
}

} // namespace quern::tools
