// Generated arguments for any kernel: from dimensions, dtypes and a seed to a complete, valid argument list.
#pragma once
#include "runtime/launch/Kernel.h"
#include "runtime/oracle/Dims.h"
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace quern::oracle {

struct GenerateOptions {
  std::map<std::string, int64_t> dims; // dimension symbols and "top_k"; what is missing is chosen
  DType act = DType::BF16;             // the dtype variable, and the dtype of `float` parameters
  DType quant = DType::BF16;           // dtype of the quantization state of packed operands
  int64_t block = 0;                   // codes per scale; 0: the codec's own
  Layout layout = Layout::Bnb;         // layout of packed operands
  RoutingKind routing = RoutingKind::Uniform;
  uint64_t seed = 0;
  /// Every product and sum is exact in fp32: integer activations, codes whose table value is a multiple of
  /// 1/16, power-of-two scales and routing weights. Results of linear kernels must then agree bitwise.
  bool exact = false;
};

/// An argument list that owns its storage. Packed operands hold every one of the 256 byte values in each
/// expert that has 256 bytes (not in exact mode), with scales such that contractions of normal activations
/// come out near 1.
struct Arguments {
  std::vector<Arg> args;
  std::map<std::string, int64_t> dims; // every symbol, "top_k" with routing
  std::vector<std::string> chosen;     // the symbols that the options did not give
  std::vector<std::unique_ptr<std::byte[]>> storage;
  std::unique_ptr<Routing> routing; // what the routing argument views
};

/// Errors: an unknown symbol, a dimension that does not divide, a packed shape that checkPacked refuses.
Expected<Arguments> generate(const syntax::Program &program, const syntax::Kernel &kernel,
                             const GenerateOptions &options);

} // namespace quern::oracle
