// The one hot loop of the oracle: C[r, n] = sum(k) lhs[r, k] * rhs[n, k] in fp64, with sum |lhs||rhs| beside
// it.
#pragma once
#include "runtime/oracle/Real.h"
#include <cstdint>
#include <functional>
#include <vector>

namespace quern::oracle {

/// rows x columns, row-major.
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<Real> elements;
  Matrix() = default;
  Matrix(int64_t rows, int64_t columns) : rows(rows), columns(columns), elements(size_t(rows * columns)) {}
  Real *row(int64_t r) { return elements.data() + r * columns; }
  const Real *row(int64_t r) const { return elements.data() + r * columns; }
};

/// `loadRhs(n, out)` writes rhs[n, 0..K) to out[0], out[stride], ...; called from several threads, once per
/// n. Sums run in ascending k. The magnitude of lhs enters as (|lhs| + magnitude) * |rhs|.
using LoadRhs = std::function<void(int64_t n, double *out, int64_t stride)>;
Matrix contract(const Matrix &lhs, int64_t columns, const LoadRhs &loadRhs);

} // namespace quern::oracle
