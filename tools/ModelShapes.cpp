// See ModelShapes.h. Field names: transformers' configuration_{gpt_oss,qwen3_moe,mixtral}.py.
#include "tools/ModelShapes.h"
#include "compiler/syntax/Source.h"
#include "tools/Load.h"
#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace quern::tools {
using nlohmann::json;

namespace {
const ModelShape knownModels[] = {
    {"gpt-oss-20b", "gpt_oss", 32, 4, 2880, 2880},
    {"gpt-oss-120b", "gpt_oss", 128, 4, 2880, 2880},
    {"qwen3-30b-a3b", "qwen3", 128, 8, 2048, 768},
    {"mixtral-8x7b", "mixtral", 8, 2, 4096, 14336},
};

/// What a model_type's fields are called. The first name that the file has counts.
struct Family {
  const char *type, *file, *intermediate;
  std::vector<const char *> experts = {"num_local_experts", "num_experts"};
};
const Family families[] = {
    {"gpt_oss", "gpt_oss", "intermediate_size"},
    {"qwen3_moe", "qwen3", "moe_intermediate_size"},
    {"mixtral", "mixtral", "intermediate_size"},
};

std::string familyNames() {
  std::vector<std::string> names;
  for (const Family &f : families) names.push_back(f.type);
  return fmt::format("{}", fmt::join(names, ", "));
}

Error wrong(const std::string &path, std::string message) {
  Error e = Error::user(std::move(message), path);
  e.detail = fmt::format("supported: config.json of model_type {}; names: {}", familyNames(), modelNames());
  return e;
}

Expected<int64_t> size(const json &config, const std::vector<const char *> &names, const std::string &path) {
  for (const char *name : names) {
    auto found = config.find(name);
    if (found == config.end() || found->is_null()) continue;
    if (found->is_number_integer() && *found > 0 && *found < (int64_t(1) << 32)) return found->get<int64_t>();
    return wrong(path, fmt::format("{} is {}, expected a positive integer", name, found->dump()));
  }
  return wrong(path, fmt::format("has no {}", fmt::join(names, " or ")));
}

/// Fields that change what is computed: the kernels' constants must be the model's.
Status checkFormula(const json &config, const std::string &file, const std::string &path) {
  auto differs = [&](const char *name, const json &expected) -> Status {
    auto found = config.find(name);
    if (found == config.end() || found->is_null() || *found == expected) return {};
    return wrong(path,
                 fmt::format("{} is {}, but the kernels of {}.qn compute with {}; write kernels of your "
                             "own and warm those",
                             name, found->dump(), file, expected.dump()));
  };
  if (file == "gpt_oss") {
    if (Status ok = differs("swiglu_alpha", 1.702); !ok) return ok;
    return differs("swiglu_limit", 7.0);
  }
  return differs("hidden_act", "silu");
}

/// The dtype that the model's tensors are loaded in; also the old field name.
Expected<std::string> dtypeOf(const json &config, const std::string &path) {
  for (const char *name : {"dtype", "torch_dtype"}) {
    auto found = config.find(name);
    if (found == config.end() || found->is_null()) continue;
    for (auto [theirs, ours] : {std::pair{"bfloat16", "bf16"}, {"float16", "f16"}, {"float32", "f32"}})
      if (*found == theirs) return std::string(ours);
    return wrong(path, fmt::format("{} is {}, expected bfloat16, float16 or float32", name, found->dump()));
  }
  return std::string("bf16");
}

std::string quantizationNote(const json &config) {
  auto found = config.find("quantization_config");
  if (found == config.end() || !found->is_object()) return "";
  auto text = [&](const char *name) {
    auto value = found->find(name);
    return value != found->end() && value->is_string() ? value->get<std::string>() : "";
  };
  std::string type = text("quant_method");
  if (type == "bitsandbytes") type = text("bnb_4bit_quant_type");
  if (type == "nf4" || type.empty()) return "";
  return fmt::format("the file says {} weights; warmed for nf4, which the shipped kernels read", type);
}
} // namespace

std::string modelNames() {
  std::vector<std::string> names;
  for (const ModelShape &m : knownModels) names.push_back(m.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

Expected<ModelShape> readModelConfig(const std::string &text, const std::string &path) {
  json config = json::parse(text, nullptr, false);
  if (config.is_discarded() || !config.is_object()) return wrong(path, "is not a JSON object");
  // A model of several parts keeps its language model's fields apart.
  if (!config.contains("num_experts_per_tok") && config.contains("text_config") &&
      config["text_config"].is_object())
    config = json(config["text_config"]);
  auto type = config.find("model_type");
  if (type == config.end() || !type->is_string()) return wrong(path, "has no model_type");
  for (const Family &family : families) {
    if (*type != family.type) continue;
    ModelShape model;
    model.name = path, model.file = family.file;
    if (Status ok = checkFormula(config, model.file, path); !ok) return ok.takeError();
    auto dtype = dtypeOf(config, path);
    if (!dtype) return dtype.takeError();
    model.dtype = *dtype, model.note = quantizationNote(config);
    for (auto &[target, names] : std::initializer_list<std::pair<int64_t *, std::vector<const char *>>>{
             {&model.experts, family.experts},
             {&model.topK, {"num_experts_per_tok", "experts_per_token"}},
             {&model.hidden, {"hidden_size"}},
             {&model.intermediate, {family.intermediate}}}) {
      auto value = size(config, names, path);
      if (!value) return value.takeError();
      *target = *value;
    }
    if (model.topK > model.experts)
      return wrong(path, fmt::format("{} experts per token, but {} experts", model.topK, model.experts));
    return model;
  }
  return wrong(path, fmt::format("model_type is {}, for which no kernels are shipped", type->dump()));
}

Expected<ModelShape> findModel(const std::string &nameOrPath) {
  for (const ModelShape &m : knownModels)
    if (m.name == nameOrPath) return m;
  std::error_code code;
  std::string path = nameOrPath;
  if (std::filesystem::is_directory(path, code))
    path = (std::filesystem::path(path) / "config.json").string();
  if (!std::filesystem::exists(path, code)) {
    std::vector<std::string> names;
    for (const ModelShape &m : knownModels) names.push_back(m.name);
    return wrong(nameOrPath, fmt::format("is neither a known model nor a config.json{}",
                                         syntax::didYouMean(nameOrPath, names)));
  }
  auto text = loadText(path);
  if (!text) return text.takeError();
  return readModelConfig(text->text, path);
}

std::vector<CallOptions> layerCalls(const ModelShape &model, const CallOptions &base) {
  CallOptions gateUp = base;
  gateUp.file = model.file, gateUp.kernel = "gate_up", gateUp.act = model.dtype;
  gateUp.dims = {fmt::format("E={}", model.experts), fmt::format("top_k={}", model.topK),
                 fmt::format("N={}", 2 * model.intermediate), fmt::format("K={}", model.hidden)};
  CallOptions down = gateUp;
  down.kernel = "down";
  down.dims[2] = fmt::format("N={}", model.hidden), down.dims[3] = fmt::format("K={}", model.intermediate);
  return {gateUp, down};
}

} // namespace quern::tools
