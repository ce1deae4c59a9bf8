// Finding what the command line names: files, shipped files and kernels.
#pragma once
#include "compiler/syntax/Syntax.h"
#include <memory>
#include <string>

namespace quern::tools {

struct SourceText {
  std::string name, text;
};

/// The text of a path, of "-" (standard input), or of a shipped file ("gpt_oss" or "gpt_oss.qn") when no such
/// path exists.
Expected<SourceText> loadText(const std::string &file);

Expected<std::shared_ptr<const syntax::Program>> loadProgram(const std::string &file);

/// The kernel called `name`; with an empty name the only kernel. Errors list what there is and suggest the
/// nearest.
Expected<const syntax::Kernel *> pickKernel(const syntax::Program &program, const std::string &name);

/// "gate_up(x: act[T, K], ...) -> h: act[R, N/2]"
std::string signature(const syntax::Kernel &kernel);

/// Prints the error and gives the exit code.
int report(const Error &error);

} // namespace quern::tools
