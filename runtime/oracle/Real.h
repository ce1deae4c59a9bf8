// A number of the oracle: its fp64 value, and the magnitude that bounds the error of a kernel that computes
// the same in fp32. An error of 2^-20 * magnitude is admitted; each operation carries the magnitudes of its
// operands to first order and adds its own fp32 rounding.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace quern::oracle {

struct Real {
  double value = 0, magnitude = 0;
};

/// fp32 rounds to 2^-24 |v|: 2^-4 in units of 2^-20. A library function may be off by a few ulp.
constexpr double rounding = 0x1p-4, functionRounding = 8 * rounding;
constexpr double magnitudeUnit = 0x1p-20;

inline Real rounded(double value, double magnitude, double ulps = rounding) {
  // A subnormal may be flushed: an error of its own size, which the gates admit by 2^-22 of the magnitude.
  double flushed = std::fabs(value) < 0x1p-125 ? std::fabs(value) * 0x1p22 : 0;
  return {value, magnitude + ulps * std::fabs(value) + flushed};
}
/// A constant or scalar: fp32 holds it to half an ulp.
inline Real constant(double value) {
  return double(float(value)) == value ? Real{value, 0} : rounded(value, 0);
}

inline Real negate(Real a) { return {-a.value, a.magnitude}; }
inline Real add(Real a, Real b) { return rounded(a.value + b.value, a.magnitude + b.magnitude); }
inline Real subtract(Real a, Real b) { return rounded(a.value - b.value, a.magnitude + b.magnitude); }
inline Real multiply(Real a, Real b) {
  return rounded(a.value * b.value, std::fabs(a.value) * b.magnitude + std::fabs(b.value) * a.magnitude);
}
inline Real divide(Real a, Real b) {
  double q = a.value / b.value;
  if (b.magnitude * magnitudeUnit >= std::fabs(b.value)) // the divisor's sign is not known
    return {q, std::numeric_limits<double>::infinity()};
  return rounded(q, (a.magnitude + std::fabs(q) * b.magnitude) / std::fabs(b.value));
}

/// NaN in either operand gives NaN, as in MLIR's arith.minimumf and PyTorch's minimum.
inline Real minimum(Real a, Real b) {
  double m = std::max(a.magnitude, b.magnitude);
  return {b.value < a.value || std::isnan(b.value) ? b.value : a.value, m}; // a comparison with NaN is false
}
inline Real maximum(Real a, Real b) { return negate(minimum(negate(a), negate(b))); }
inline Real clamp(Real x, Real low, Real high) { return minimum(maximum(x, low), high); }

inline Real exponential(Real a) {
  double v = std::exp(a.value);
  // The argument's own error is amplified by the result.
  return rounded(v, v * a.magnitude, functionRounding);
}
inline Real sigmoid(Real a) {
  double v = a.value >= 0 ? 1 / (1 + std::exp(-a.value)) : std::exp(a.value) / (1 + std::exp(a.value));
  return rounded(v, v * (1 - v) * a.magnitude, functionRounding);
}
inline Real hyperbolicTangent(Real a) {
  double v = std::tanh(a.value);
  return rounded(v, (1 - v * v) * a.magnitude, functionRounding);
}
inline Real errorFunction(Real a) {
  double slope = 2 / std::sqrt(std::numbers::pi) * std::exp(-a.value * a.value);
  return rounded(std::erf(a.value), slope * a.magnitude, functionRounding);
}

/// `holds`: the condition as the oracle finds it from a and b. Where a kernel's a and b may compare
/// otherwise, either branch is right.
inline Real select(bool holds, Real a, Real b, Real yes, Real no) {
  Real chosen = holds ? yes : no;
  chosen.magnitude = std::max(yes.magnitude, no.magnitude);
  double inDoubt = (a.magnitude + b.magnitude) * magnitudeUnit;
  if (inDoubt > 0 && std::fabs(a.value - b.value) <= inDoubt)
    chosen.magnitude += std::fabs(yes.value - no.value) / magnitudeUnit;
  return chosen;
}

} // namespace quern::oracle
