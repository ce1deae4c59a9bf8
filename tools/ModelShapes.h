// The expert layers of published models: what `--model` names, or what a transformers config.json says.
#pragma once
#include "tools/Options.h"
#include <string>
#include <vector>

namespace quern::tools {

/// One model's expert layer: gate_up is [2 * intermediate, hidden], down [hidden, intermediate].
struct ModelShape {
  std::string name; // "gpt-oss-20b", or the path of the config.json
  std::string file; // the shipped .qn file with its kernels
  int64_t experts = 0, topK = 0, hidden = 0, intermediate = 0;
  std::string dtype = "bf16"; // of the activations
  std::string note = "";      // what a reader should know; may be empty
  bool operator==(const ModelShape &) const = default;
};

/// The known names, "gpt-oss-20b, ...".
std::string modelNames();

/// A known name, the path of a config.json, or a folder that holds one. Errors name what was found and what
/// is supported.
Expected<ModelShape> findModel(const std::string &nameOrPath);
/// The text of a config.json; `path` is for errors.
Expected<ModelShape> readModelConfig(const std::string &text, const std::string &path);

/// The calls of one expert layer, `gate_up` and `down`, without a token count. Fields of `base` that the
/// model does not fix (block, quantization dtype, layout) are kept.
std::vector<CallOptions> layerCalls(const ModelShape &model, const CallOptions &base);

} // namespace quern::tools
