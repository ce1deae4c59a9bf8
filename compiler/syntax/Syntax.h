// Entry points of the front end: text -> checked Program -> NormalForm. Plain C++, no MLIR. Safe on any
// input.
#pragma once
#include "compiler/support/Error.h"
#include "compiler/syntax/Ast.h"
#include "compiler/syntax/NormalForm.h"
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace quern::syntax {

/// Text of the file that `use NAME` names, or nullopt. The default finds the shipped kernels/NAME.qn
/// (embedded in the library).
using UseResolver = std::function<std::optional<std::string>(std::string_view name)>;

/// Text of the shipped file `name` ("gpt_oss" or "gpt_oss.qn"), or nullopt.
std::optional<std::string> shippedFile(std::string_view name);
/// Names of all shipped files, sorted, with ".qn".
std::vector<std::string> shippedFiles();

/// Lexes, parses and checks `text`. `fileName` is used in messages only. The first error is returned with
/// place "file:line:col", rule label, and detail = source line and caret.
Expected<std::shared_ptr<const Program>> parseProgram(std::string_view text, std::string_view fileName,
                                                      const UseResolver &use = shippedFile);

/// Inlines functions and local tensors: the form that both the `quern` dialect and nobody else is made from.
Expected<NormalKernel> normalize(const Program &program, const Kernel &kernel);

/// --emit=ast: prints the checked tree as .qn text that parses back to the same tree.
std::string print(const Program &program);

} // namespace quern::syntax
