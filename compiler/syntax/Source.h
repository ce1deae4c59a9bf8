// The text of one .qn file and how an error points into it.
#pragma once
#include "compiler/support/Error.h"
#include "compiler/syntax/Ast.h"
#include <string>
#include <string_view>
#include <vector>

namespace quern::syntax {

/// Limits that keep every input cheap; LANGUAGE.md lists them (rules text.size, name.length, limit.*).
inline constexpr size_t maxFileBytes = 1 << 20;
inline constexpr size_t maxNameLength = 255;
inline constexpr int maxDepth = 256; // brackets, signs, chains of operators, calls and locals after inlining
inline constexpr int maxInlinedSize = 16384; // expression nodes of one statement after inlining
inline constexpr int maxKernels = 256;

/// A view of the text; both strings must outlive it.
class Source {
public:
  Source(std::string_view text, std::string_view fileName) : text(text), fileName(fileName) {}

  /// User error at `loc`: place "file:line:col", detail = the source line (cut around the caret) and a caret
  /// line.
  Error error(Loc loc, std::string message, std::string_view rule) const;

  const std::string_view text, fileName;
};

/// Length of the valid UTF-8 sequence that starts at `at`, or 0.
size_t utf8Length(std::string_view text, size_t at);

/// 'name' for messages, long names cut, control characters replaced.
std::string quoted(std::string_view name);

/// "; did you mean 'x'?" for the candidate nearest to `name` by edit distance, or "" when none is near.
std::string didYouMean(std::string_view name, const std::vector<std::string> &candidates);

} // namespace quern::syntax
