// The gates of the numerics contract (LANGUAGE.md, numerics): a kernel's output against the fp64 oracle, per
// row, per 16x16 tile and per element. A global norm would hide a missing tile, so there is none.
#pragma once
#include "runtime/oracle/Interpreter.h"
#include <memory>

namespace quern::oracle {

/// The figures of the contract, in their one place.
struct Gates {
  /// Relative L2 error of a row or tile, beside one rounding to the output's dtype.
  double relativeL2 = 2e-4;
  /// Per element: error <= elementScale * magnitude + half an ulp, magnitude = sum |x||w| as
  /// Output::magnitude has it.
  double elementScale = 0x1p-20;
  /// Sums that cancel leave a row or tile with a small norm and fp32's usual error: beside relativeL2, this
  /// much of ||magnitude|| is allowed. The standard deviation of a plain fp32 sum of K normal products is
  /// about 2^-25.6 of its magnitude, for any K.
  double cancellation = 0x1p-22;
  int64_t tile = 16;

  /// For decode=fast: a weight is off by up to three roundings to 8 bits (LANGUAGE.md, numerics).
  static Gates fast() { return {1.6e-2, 0x1p-7, 0x1p-12, 16}; }
};

/// A row range and column range of an output, and its worst element.
struct Place {
  int64_t row0 = 0, row1 = 0, column0 = 0, column1 = 0;
  int64_t row = 0, column = 0; // of the worst element
  int64_t expert = -1;         // of that element's row; -1 when rows are tokens or the row is not live
  double found = 0, expected = 0;
  double relative = 0; // ||error|| / ||expected||
  double ratio = 0; // ||error|| / what the gate allows; > 1 fails; infinite when NaN or infinity do not match
  std::string str() const;
};

struct Comparison {
  std::string output;
  bool pass = true;
  Place tile, row, element; // the worst of each kind, by ratio
  int64_t mismatchedNaN =
      0;                 // NaN found and number expected, or the reverse; infinities that differ count too
  int64_t unwritten = 0; // elements that still hold the mark of OutputBuffer
  int64_t failedTiles = 0, tiles = 0;
  bool guardsBroken = false;   // set by the caller from OutputBuffer::guardsIntact
  std::string verdict() const; // "ok", or what failed first, with its place
};

/// `found`: contiguous, of the shape of `expected`.
Comparison compare(const Output &expected, const TensorView &found, const Gates &gates = {});

/// Storage for one output, filled with a NaN of a pattern that no computation yields, with guard zones on
/// both sides.
class OutputBuffer {
  std::unique_ptr<std::byte[]> storage;
  int64_t bytes = 0;

public:
  explicit OutputBuffer(const OutputSpec &spec);
  TensorView view;
  void fill();
  bool guardsIntact() const;
};

} // namespace quern::oracle
