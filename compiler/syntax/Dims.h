// Arithmetic on dimensions: what the range checks need to prove that every index is in range for all legal
// sizes.
#pragma once
#include "compiler/syntax/Ast.h"
#include <map>
#include <optional>

namespace quern::syntax {

/// Bounds on the whole numbers of dimensions, so that products of four of them fit in 128 bits.
inline constexpr int64_t maxDimension = int64_t(1) << 31;
inline constexpr int64_t maxFactor = 1 << 20;

/// `dim` with mul / div in lowest terms.
Dim reduced(Dim dim);

/// What is known of the symbols: N is a multiple of divisor(N) because a parameter or output has a dimension
/// such as N/2.
class DimFacts {
public:
  /// Learns from a declared dimension; false when the known divisor would pass maxFactor.
  bool learn(const Dim &dim);
  /// Is `dim` a whole number for all legal sizes?
  bool isWhole(const Dim &dim) const;

  /// Is mul * (range - 1) + offset < size for all legal sizes? (A range of 0 needs nothing.)
  bool inRange(int64_t mul, const Dim &range, const Dim &offset, const Dim &size) const;

  /// The largest range for which that holds, where it is a Dim and whole: for 2*j and 2*j+1 in N it is N/2,
  /// for j + N/2 in N too.
  std::optional<Dim> rangeOf(int64_t mul, const Dim &offset, const Dim &size) const;

  /// a <= b for all legal sizes? False also when they cannot be compared.
  static bool lessEqual(const Dim &a, const Dim &b);

private:
  int64_t divisor(const std::string &sym) const;
  std::map<std::string, int64_t> divisors;
};

/// a + b as one Dim, when it is one.
std::optional<Dim> addDims(const Dim &a, const Dim &b);
/// factor * a, when it stays within bounds.
std::optional<Dim> scaleDim(int64_t factor, const Dim &a);

} // namespace quern::syntax
