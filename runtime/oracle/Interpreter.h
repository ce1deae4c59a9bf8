// The oracle: evaluates a checked kernel from its syntax tree in fp64, straight from the meaning of the
// language. It shares nothing with the compiler: no NormalForm, no inlining, no rounding between the decoded
// inputs and the outputs.
#pragma once
#include "runtime/launch/Kernel.h"
#include <string>
#include <vector>

namespace quern::oracle {

/// One output in fp64, row-major; rows beyond the live ones are zero.
struct Output {
  std::string name;
  DType dtype = DType::F32; // what the kernel must deliver; `values` are not rounded to it
  std::vector<int64_t> shape;
  std::vector<double> values;
  /// Per element: sum |x||w| of the contractions it is made of, carried to first order through the arithmetic
  /// that follows (a product scales it, a sum adds it, sigmoid multiplies it by its derivative, ...), plus
  /// 2^-4 of each intermediate result, which at the gate's factor of 2^-20 is that result's own fp32
  /// rounding.
  std::vector<double> magnitude;
  std::vector<int64_t>
      rowExpert; // per row of a routed [R, N] output, -1 beyond the live rows; empty otherwise
};

/// Decoded weights are those of decodeExpert: rounded to the quantization state's dtype, then to the dtype of
/// the activations that they are multiplied with (fp32 when these are computed values). Errors are those of
/// bindArguments.
Expected<std::vector<Output>> interpret(const syntax::Program &program, const syntax::Kernel &kernel,
                                        const std::vector<Arg> &args);

} // namespace quern::oracle
