// Sizes for generated data: dimensions given by name, the rest chosen.
#pragma once
#include "compiler/support/Error.h"
#include "compiler/syntax/Ast.h"
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quern::oracle {

/// Uniform: top_k distinct experts per token. Zipf: distinct, expert popularity ~ 1/rank with ranks shuffled.
/// One: every pair goes to one expert. Empty: every id is -1, so there is no live row.
enum class RoutingKind : uint8_t { Uniform, Zipf, One, Empty };
std::string_view name(RoutingKind kind);
std::optional<RoutingKind> parseRoutingKind(std::string_view text);

/// The dimensions of a kernel: those given, and choices for the rest.
struct ChosenDims {
  std::map<std::string, int64_t> dims; // every symbol; "top_k" and "R" with routing
  std::vector<std::string> chosen;
};
/// Errors: a name that the kernel does not have, a negative size, an inexact division, more choices per token
/// than experts.
Expected<ChosenDims> chooseDims(const syntax::Kernel &kernel, const std::map<std::string, int64_t> &given,
                                RoutingKind routing = RoutingKind::Uniform);

/// mul * dims[sym] / div. A missing symbol or an inexact division is a user error.
Expected<int64_t> extent(const syntax::Dim &dim, const std::map<std::string, int64_t> &dims);
/// The extents of all dimensions of a parameter or output; more than 2^40 elements are a user error.
Expected<std::vector<int64_t>> extents(const syntax::Param &param,
                                       const std::map<std::string, int64_t> &dims);

} // namespace quern::oracle
