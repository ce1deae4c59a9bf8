// Solves a kernel's named dimensions from the sizes that arguments have, remembering which argument fixed
// each.
#pragma once
#include "compiler/support/Error.h"
#include "compiler/syntax/Ast.h"
#include <map>
#include <string>
#include <string_view>

namespace quern {

class DimSolver {
public:
  struct Known {
    int64_t value;
    std::string from; // argument's name
  };

  void define(const std::string &symbol, int64_t value, std::string_view argument);
  /// Dimension number `position` of `argument` has `size` and is written `dim`: solves its symbol or compares
  /// with what is known.
  Status match(const syntax::Dim &dim, int64_t size, int64_t position, std::string_view argument);
  /// Value of `dim`; a user error at `place` when the division leaves a rest or a symbol is fixed by no
  /// argument.
  Expected<int64_t> evaluate(const syntax::Dim &dim, const std::string &place) const;
  const std::map<std::string, Known> &known() const { return symbols; }

private:
  std::map<std::string, Known> symbols;
};

/// "argument 'x'": the place of every error about an argument.
std::string argumentPlace(std::string_view name);

} // namespace quern
