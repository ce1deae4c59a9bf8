// The floating-point mode that Quern computes in: round to nearest, subnormals kept, no traps. A caller's
// mode (PyTorch can set flush to zero per thread) would otherwise make results depend on which thread ran a
// task.
#pragma once
#if defined(__x86_64__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace quern {

/// Sets the default mode for this thread while it lives, then restores the caller's.
class FloatEnvironment {
#if defined(__x86_64__)
  unsigned saved = _mm_getcsr();
  static constexpr unsigned standard = 0x1f80;

public:
  FloatEnvironment() {
    if (saved != standard) _mm_setcsr(standard);
  }
  ~FloatEnvironment() { _mm_setcsr(saved); }
#else
  std::fenv_t saved;

public:
  FloatEnvironment() {
    std::fegetenv(&saved);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatEnvironment() { std::fesetenv(&saved); }
#endif
  FloatEnvironment(const FloatEnvironment &) = delete;
  FloatEnvironment &operator=(const FloatEnvironment &) = delete;
};

} // namespace quern
