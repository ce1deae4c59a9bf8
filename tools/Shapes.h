// Which calls a command is about: kernels times token counts, from a file with --dim or from a model. Shared
// by `quern warmup`, `quern tune` and `quern bench`.
#pragma once
#include "runtime/tune/Tuner.h"
#include "tools/Options.h"
#include <string>
#include <vector>

namespace quern::tools {

/// A call without data.
struct Shape {
  std::string file; // as messages name it
  tune::Problem problem;
  const syntax::Kernel *kernel = nullptr;
  int64_t tokens = 0, experts = 1, topK = 1;
  int64_t rowsPerExpert = 0; // of the mean expert, rounded up to a power of two: the bucket of a launch

  std::string label() const;   // "gate_up E=32 K=2880 N=5760 top_k=4, 64 rows per expert"
  std::string dimText() const; // "E=32 K=2880 N=5760 top_k=4"
};

struct ShapeOptions {
  CallOptions call;
  std::string model;
  std::vector<std::string> tokens, rows;

  /// FILE, --kernel, --dim, --dtype, --block, --quant-dtype, --model, --tokens, --rows
  void add(CLI::App &command, std::string defaultTokens);

  /// One shape for each kernel and each bucket of rows per expert that a launch with these token counts may
  /// ask for. `A..B` means every count between: a bucket is represented by its largest.
  Expected<std::vector<Shape>> buckets() const;
  /// One shape for each kernel and token count; `A..B` means A, 2A, 4A, ..., B.
  Expected<std::vector<Shape>> counts() const;
  std::string note() const { return modelNote; }

private:
  mutable std::string modelNote; // filled by the two above
  Expected<std::vector<CallOptions>> calls() const;
  Expected<std::vector<Shape>> expand(bool byBucket) const;
};

/// "64" is 64..64. Errors name the option and what was found.
struct TokenRange {
  int64_t low = 0, high = 0;
};
Expected<TokenRange> parseRange(const std::string &text, const char *option);

} // namespace quern::tools
