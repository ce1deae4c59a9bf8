// Dimensions are rational multiples of one symbol, or constants; comparisons are exact in 128-bit integers.
#include "compiler/syntax/Dims.h"
#include <fmt/format.h>
#include <numeric>

namespace quern::syntax {

using Wide = __int128;

std::string Dim::str() const {
  if (isConstant()) return fmt::format("{}", mul);
  return fmt::format("{}{}{}", mul == 1 ? "" : fmt::format("{}*", mul), sym,
                     div == 1 ? "" : fmt::format("/{}", div));
}

Dim reduced(Dim dim) {
  int64_t common = std::gcd(dim.mul, dim.div);
  if (common > 1) {
    dim.mul /= common;
    dim.div /= common;
  }
  return dim;
}

int64_t DimFacts::divisor(const std::string &sym) const {
  auto found = divisors.find(sym);
  return found == divisors.end() ? 1 : found->second;
}

bool DimFacts::learn(const Dim &dim) {
  if (dim.isConstant()) return true;
  int64_t all =
      std::lcm(divisor(dim.sym), dim.div); // mul and div have no common factor, so div divides the symbol
  if (all > maxFactor) return false;
  divisors[dim.sym] = all;
  return true;
}

bool DimFacts::isWhole(const Dim &dim) const { return dim.isConstant() || divisor(dim.sym) % dim.div == 0; }

bool DimFacts::inRange(int64_t mul, const Dim &range, const Dim &offset, const Dim &size) const {
  // size - offset - mul * range >= 1 - mul, with each term (numerator / denominator) * symbol + constant.
  std::string sym;
  for (const Dim *dim : {&range, &offset, &size}) {
    if (dim->isConstant()) continue;
    if (!sym.empty() && dim->sym != sym) return false;
    sym = dim->sym;
  }
  Wide numerator = 0, denominator = 1,
       constant = Wide(mul) - 1; // slack = numerator / denominator * sym + constant
  auto add = [&](Wide factor, const Dim &dim) {
    if (dim.isConstant()) {
      constant += factor * dim.mul;
    } else {
      numerator = numerator * dim.div + factor * dim.mul * denominator;
      denominator *= dim.div;
    }
  };
  add(1, size);
  add(-1, offset);
  add(-Wide(mul), range);
  if (sym.empty()) return constant >= 0;
  // The symbol is a positive multiple of its divisor (ranges of size 0 run over nothing), so the smallest
  // value decides.
  return numerator >= 0 && numerator * divisor(sym) + constant * denominator >= 0;
}

std::optional<Dim> DimFacts::rangeOf(int64_t mul, const Dim &offset, const Dim &size) const {
  if (offset.isConstant() && size.isConstant()) {
    if (offset.mul >= size.mul) return std::nullopt;
    return Dim{"", (size.mul - offset.mul - 1) / mul + 1, 1};
  }
  Dim rest = size;
  if (!offset.isConstant()) {
    if (offset.sym != size.sym) return std::nullopt;
    Wide numerator = Wide(size.mul) * offset.div - Wide(offset.mul) * size.div,
         denominator = Wide(size.div) * offset.div;
    if (numerator <= 0 || numerator > maxDimension || denominator > maxDimension) return std::nullopt;
    rest = reduced({size.sym, int64_t(numerator), int64_t(denominator)});
  } else if (offset.mul >= mul) {
    return std::nullopt; // N - 1 and the like are no Dims
  }
  if (rest.div > maxDimension / mul) return std::nullopt;
  rest = reduced({rest.sym, rest.mul, rest.div * mul});
  if (rest.mul > maxFactor || rest.div > maxFactor || !isWhole(rest)) return std::nullopt;
  return rest;
}

bool DimFacts::lessEqual(const Dim &a, const Dim &b) {
  return a.sym == b.sym && Wide(a.mul) * b.div <= Wide(b.mul) * a.div;
}

static std::optional<Dim> checked(const std::string &sym, Wide mul, Wide div) {
  Wide a = mul, b = div;
  while (b != 0) {
    Wide rest = a % b;
    a = b;
    b = rest;
  }
  if (a > 1) mul /= a, div /= a;
  Wide limit = sym.empty() ? maxDimension : maxFactor;
  if (mul > limit || div > limit) return std::nullopt;
  return Dim{sym, int64_t(mul), int64_t(div)};
}

std::optional<Dim> addDims(const Dim &a, const Dim &b) {
  if (a.isConstant() && a.mul == 0) return b;
  if (b.isConstant() && b.mul == 0) return a;
  if (a.sym != b.sym) return std::nullopt;
  return checked(a.sym, Wide(a.mul) * b.div + Wide(b.mul) * a.div, Wide(a.div) * b.div);
}

std::optional<Dim> scaleDim(int64_t factor, const Dim &a) {
  if (a.isConstant() && a.mul == 0) return a;
  return checked(a.sym, Wide(factor) * a.mul, a.div);
}

} // namespace quern::syntax
