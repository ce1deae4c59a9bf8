// Parsing, comparing and evaluating dimensions, and the column range check.
#include "compiler/dialect/Dim.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/MathExtras.h"
#include <map>
#include <numeric>
#include <string>

namespace mlir::quern {
namespace {

using llvm::StringRef;

bool isName(StringRef s) {
  return !s.empty() && !llvm::isDigit(s[0]) &&
         llvm::all_of(s, [](char c) { return llvm::isAlnum(c) || c == '_'; });
}

/// A decimal integer with an optional sign; no other spelling.
std::optional<int64_t> number(StringRef s) {
  int64_t value;
  StringRef digits = s;
  digits.consume_front("-");
  if (digits.empty() || !llvm::all_of(digits, llvm::isDigit) || s.getAsInteger(10, value))
    return std::nullopt;
  if (value == INT64_MIN) return std::nullopt; // its magnitude is not an int64
  return value;
}

using Wide =
    __int128; // holds a constant (2^31) times a factor (2^20) times a common denominator (2^20), and more

/// (sum of coefficient * symbol + constant) * denominator. The constant stands under the empty symbol.
class Linear {
  std::map<std::string, Wide> terms;
  const std::map<std::string, int64_t> &least; // smallest value of each symbol
  Wide denominator;

public:
  Linear(const std::map<std::string, int64_t> &least, Wide denominator)
      : least(least), denominator(denominator) {}
  void add(const Dim &dim, Wide factor) { terms[dim.sym] += factor * dim.mul * (denominator / dim.div); }
  void add(Wide constant) { terms[""] += constant * denominator; }
  /// Below zero for every value of the symbols.
  bool certainlyNegative() const {
    Wide largest = 0;
    for (const auto &[symbol, coefficient] : terms) {
      if (!symbol.empty() && coefficient > 0) return false;
      largest += coefficient * (symbol.empty() ? 1 : least.at(symbol));
    }
    return largest < 0;
  }
};

} // namespace

std::optional<Dim> parseDim(StringRef text) {
  Dim dim;
  StringRef rest = text;
  if (auto [left, right] = rest.split('*'); left.size() != rest.size()) {
    std::optional<int64_t> mul = number(left);
    if (!mul) return std::nullopt;
    dim.mul = *mul;
    rest = right;
    if (number(rest)) return std::nullopt; // "2*3"
  }
  if (auto [left, right] = rest.split('/'); left.size() != rest.size()) {
    std::optional<int64_t> div = number(right);
    if (!div || *div <= 0 || number(left)) return std::nullopt;
    dim.div = *div;
    rest = left;
  }
  if (std::optional<int64_t> constant = number(rest)) {
    dim.mul = *constant;
    return dim;
  }
  if (!isName(rest)) return std::nullopt;
  dim.sym = rest.str();
  int64_t common = std::gcd(dim.mul, dim.div);
  dim.mul /= common;
  dim.div /= common;
  return dim;
}

bool sameDim(StringRef a, StringRef b) {
  std::optional<Dim> x = parseDim(a), y = parseDim(b);
  return x && y && *x == *y;
}

std::optional<int64_t> evaluateDim(StringRef text,
                                   llvm::function_ref<std::optional<int64_t>(StringRef)> symbol) {
  std::optional<Dim> dim = parseDim(text);
  if (!dim) return std::nullopt;
  if (dim->isConstant()) return dim->mul;
  std::optional<int64_t> value = symbol(dim->sym);
  int64_t product;
  if (!value || llvm::MulOverflow(*value, dim->mul, product) || product % dim->div) return std::nullopt;
  return product / dim->div;
}

bool isWithinLimits(const Dim &dim) {
  int64_t limit = dim.isConstant() ? maxDimension : maxFactor;
  return dim.mul >= -limit && dim.mul <= limit && dim.div >= 1 && dim.div <= maxFactor;
}

bool certainlyOutOfRange(int64_t mul, const Dim &offset, const Dim &columns, const Dim &extent) {
  if (mul < -maxFactor || mul > maxFactor) return false;
  for (const Dim *dim : {&offset, &columns, &extent})
    if (!isWithinLimits(*dim)) return false;
  int64_t denominator = 1;
  std::map<std::string, int64_t> least; // a symbol is a multiple of what divides it
  for (const Dim *dim : {&offset, &columns, &extent}) {
    int64_t &value = least.try_emplace(dim->sym, 1).first->second;
    value = std::lcm(value, dim->div);
    denominator = std::lcm(denominator, dim->div);
    if (denominator > maxFactor) return false;
  }
  // The column is linear in j: both ends of [0, columns) in [0, extent) is enough, and one end outside is too
  // much.
  for (bool last : {false, true}) {
    Linear low(least, denominator), high(least, denominator); // column >= 0, extent - 1 - column >= 0
    low.add(offset, 1);
    high.add(extent, 1);
    high.add(offset, -1);
    high.add(-1);
    if (last) {
      low.add(columns, mul);
      low.add(-mul);
      high.add(columns, -mul);
      high.add(mul);
    }
    if (low.certainlyNegative() || high.certainlyNegative()) return true;
  }
  return false;
}

} // namespace mlir::quern
