// The tuner's own data: arguments of the timed call under both routings, a ragged call, and what is right for
// each. Seeded; nothing here belongs to a caller.
#pragma once
#include "runtime/oracle/Compare.h"
#include "runtime/oracle/Generate.h"
#include "runtime/tune/Tuner.h"

namespace quern::tune {

/// Rows of a call's outputs with their right values: all rows, or those of a few tokens.
struct Reference {
  std::vector<oracle::Output> outputs;
  /// Of each output, the row of the call that each reference row is; -1: no live row. Empty: all rows.
  std::vector<std::vector<int64_t>> rows;
};

struct Case {
  std::string name;      // "ragged", "uniform", "zipf"
  std::vector<Arg> args; // on the host
  Binding binding;
  std::vector<oracle::OutputBuffer> outputs;
  std::vector<TensorView> views; // of outputs
  Reference reference;

  /// Before a run: NaN in every element.
  void fill();
  /// After it: empty, or what is wrong.
  std::string verdict() const;
  /// 16 digits for the bytes of all outputs.
  std::string bits() const;
};

class Data {
  std::vector<oracle::Arguments> storage;
  Data() = default;

public:
  std::vector<Case> cases; // ragged, uniform, zipf (for a kernel without routing: the same call again)
  uint64_t bytes = 0;      // of all arguments and outputs

  /// Generates and asks the oracle; seconds for large weights. A user error when more than `limitBytes` (0:
  /// no limit) were needed, before anything is allocated.
  static Expected<Data> make(const Problem &problem, uint64_t seed, uint64_t limitBytes);
  Case &of(Skew skew) { return cases[skew == Skew::Uniform ? 1 : 2]; }
};

} // namespace quern::tune
