// Blocked so that a panel of 16 right-hand rows stays in the L2 cache while all left-hand rows pass over it.
#include "runtime/oracle/Contraction.h"
#include "runtime/launch/ParallelFor.h"

namespace quern::oracle {
namespace {
constexpr int64_t panelColumns = 16, groupRows = 4;

// Wider vectors where the machine has them. Not under the address sanitizer: its start-up comes after the
// choice.
#if defined(__clang__)
#if defined(__x86_64__) && !__has_feature(address_sanitizer)
#define QUERN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#endif
#ifndef QUERN_CLONES
#define QUERN_CLONES
#endif

/// out[4][16] = sum(k) lhs[4][k] * panel[k][16].
QUERN_CLONES void multiplyPanel(const double *const lhs[groupRows], const double *panel, int64_t reduced,
                                double *out) {
  double sums[groupRows][panelColumns] = {};
  for (int64_t k = 0; k < reduced; ++k)
    for (int64_t r = 0; r < groupRows; ++r)
      for (int64_t n = 0; n < panelColumns; ++n) sums[r][n] += lhs[r][k] * panel[k * panelColumns + n];
  for (int64_t i = 0; i < groupRows * panelColumns; ++i) out[i] = sums[i / panelColumns][i % panelColumns];
}
} // namespace

Matrix contract(const Matrix &lhs, int64_t columns, const LoadRhs &loadRhs) {
  int64_t reduced = lhs.columns;
  Matrix result(lhs.rows, columns);
  std::vector<double> values(lhs.elements.size()), magnitudes(lhs.elements.size());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = lhs.elements[i].value;
    magnitudes[i] = std::fabs(values[i]) + lhs.elements[i].magnitude;
  }
  auto task = [&](int64_t p, int) {
    int64_t first = p * panelColumns, width = std::min(panelColumns, columns - first);
    std::vector<double> panel(size_t(reduced * panelColumns));
    for (int64_t n = 0; n < width; ++n) loadRhs(first + n, panel.data() + n, panelColumns);
    auto pass = [&](const std::vector<double> &left, double Real::*field) {
      for (int64_t r0 = 0; r0 < lhs.rows; r0 += groupRows) {
        const double *group[groupRows];
        for (int64_t r = 0; r < groupRows; ++r)
          group[r] = left.data() + std::min(r0 + r, lhs.rows - 1) * reduced;
        double sums[groupRows * panelColumns];
        multiplyPanel(group, panel.data(), reduced, sums);
        for (int64_t r = 0; r < std::min(groupRows, lhs.rows - r0); ++r)
          for (int64_t n = 0; n < width; ++n)
            result.row(r0 + r)[first + n].*field = sums[r * panelColumns + n];
      }
    };
    pass(values, &Real::value);
    for (double &w : panel) w = std::fabs(w);
    pass(magnitudes, &Real::magnitude);
  };
  parallelFor((columns + panelColumns - 1) / panelColumns, task);
  return result;
}

} // namespace quern::oracle
