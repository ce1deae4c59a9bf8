// A dimension is mul * symbol / div without a rest, so one size fixes the symbol.
#include "runtime/launch/DimSolver.h"
#include <fmt/format.h>
#include <numeric>

namespace quern {

std::string argumentPlace(std::string_view name) { return fmt::format("argument '{}'", name); }

void DimSolver::define(const std::string &symbol, int64_t value, std::string_view argument) {
  symbols[symbol] = {value, std::string(argument)};
}

Status DimSolver::match(const syntax::Dim &dim, int64_t size, int64_t position, std::string_view argument) {
  auto fail = [&](const std::string &expected) {
    std::string written = dim.isConstant() ? "" : fmt::format(" ({})", dim.str());
    return Status(
        Error::user(fmt::format("dimension {}{} is {}; expected {}", position, written, size, expected),
                    argumentPlace(argument)));
  };
  if (dim.isConstant()) {
    if (size != dim.mul) return fail(std::to_string(dim.mul));
    return {};
  }
  auto at = symbols.find(dim.sym);
  if (at == symbols.end()) {
    int64_t step = dim.mul / std::gcd(dim.mul, dim.div); // sizes that some value of the symbol gives
    if (size % step) return fail(fmt::format("a multiple of {}", step));
    int64_t product;
    if (__builtin_mul_overflow(size / step, dim.div / std::gcd(dim.mul, dim.div), &product))
      return fail(fmt::format("{} to fit in 63 bits", dim.sym));
    define(dim.sym, product, argument);
    return {};
  }
  Expected<int64_t> expected = evaluate(dim, argumentPlace(argument));
  if (!expected) return expected.takeError();
  if (*expected == size) return {};
  return fail(
      fmt::format("{} ({} = {} from argument '{}')", *expected, dim.sym, at->second.value, at->second.from));
}

Expected<int64_t> DimSolver::evaluate(const syntax::Dim &dim, const std::string &place) const {
  if (dim.isConstant()) return dim.mul;
  auto at = symbols.find(dim.sym);
  if (at == symbols.end())
    return Error::user(fmt::format("no argument fixes the dimension {}", dim.sym), place);
  int64_t product;
  if (__builtin_mul_overflow(dim.mul, at->second.value, &product))
    return Error::user(fmt::format("{} with {} = {} (from argument '{}') does not fit in 63 bits", dim.str(),
                                   dim.sym, at->second.value, at->second.from),
                       place);
  if (product % dim.div)
    return Error::user(fmt::format("{} with {} = {} (from argument '{}') is no whole number", dim.str(),
                                   dim.sym, at->second.value, at->second.from),
                       place);
  return product / dim.div;
}

} // namespace quern
