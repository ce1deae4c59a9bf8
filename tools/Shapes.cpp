// See Shapes.h.
#include "tools/Shapes.h"
#include "compiler/syntax/Syntax.h"
#include "runtime/oracle/Dims.h"
#include "tools/Load.h"
#include "tools/ModelShapes.h"
#include <bit>
#include <charconv>
#include <fmt/format.h>
#include <set>

namespace quern::tools {

std::string Shape::dimText() const {
  std::string text;
  for (auto &[name, value] : problem.dims)
    if (name != (kernel->routing >= 0 ? kernel->params[kernel->routing].dims[0].sym : kernel->rows.sym))
      text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, value);
  return text;
}

std::string Shape::label() const {
  return fmt::format("{} {}, {} row{}{}", kernel->name, dimText(), rowsPerExpert,
                     rowsPerExpert == 1 ? "" : "s", kernel->routing >= 0 ? " per expert" : "");
}

void ShapeOptions::add(CLI::App &command, std::string defaultTokens) {
  auto *file = command.add_option(
      "FILE", call.file, "a .qn file, the name of a shipped one (quern list), or - for standard input");
  command.add_option("--kernel", call.kernel, "the kernel; needed when the file has several");
  command.add_option("--dim", call.dims, "dimensions, E=32,N=5760,K=2880,top_k=4: all but the tokens")
      ->delimiter(',');
  command
      .add_option("--model", model,
                  "instead of FILE: the expert layer of a model, by name (" + modelNames() +
                      ") or by its transformers config.json (gpt_oss, qwen3_moe, mixtral)")
      ->excludes(file);
  tokens = {std::move(defaultTokens)};
  auto *count =
      command.add_option("--tokens", tokens, "tokens of a call: counts and ranges, 1,64 or 1..16384")
          ->delimiter(',')
          ->capture_default_str();
  command.add_option("--rows", rows, "instead of --tokens: mean rows of an expert, 1,16,512 or 1..1024")
      ->delimiter(',')
      ->excludes(count);
  command.add_option("--dtype", call.act, "dtype of the activations (a config.json has its own)")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}))
      ->capture_default_str();
  command.add_option("--block", call.block,
                     "codes per scale, a power of two in 32..4096 (default: the codec's)");
  command.add_option("--quant-dtype", call.quant, "dtype of the quantization state")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}))
      ->capture_default_str();
  command.add_option("--features", call.features, "CPU features to add or leave out (as QUERN_CPU_FEATURES)");
}

Expected<TokenRange> parseRange(const std::string &text, const char *option) {
  auto number = [](std::string_view part) -> int64_t {
    int64_t value = 0;
    auto parsed = std::from_chars(part.data(), part.data() + part.size(), value);
    return parsed.ec == std::errc() && parsed.ptr == part.data() + part.size() ? value : 0;
  };
  constexpr int64_t most = int64_t(1) << 24;
  size_t dots = text.find("..");
  TokenRange range;
  range.low = number(std::string_view(text).substr(0, dots));
  range.high = dots == std::string::npos ? range.low : number(std::string_view(text).substr(dots + 2));
  if (range.low < 1 || range.high < range.low || range.high > most)
    return Error::user(fmt::format("found '{}', expected a count or LOW..HIGH, from 1 to {}", text, most),
                       option);
  return range;
}

Expected<std::vector<CallOptions>> ShapeOptions::calls() const {
  if (model.empty() && call.file.empty())
    return Error::user("found neither FILE nor --model, expected one of them");
  if (model.empty()) return std::vector{call};
  if (!call.dims.empty())
    return Error::user("a model has its own dimensions, expected --dim without --model", "--dim");
  auto found = findModel(model);
  if (!found) return found.takeError();
  modelNote = found->note;
  auto both = layerCalls(*found, call);
  if (call.kernel.empty()) return both;
  std::erase_if(both, [&](const CallOptions &c) { return c.kernel != call.kernel; });
  if (both.empty())
    return Error::user(fmt::format("found '{}', expected gate_up or down", call.kernel), "--kernel");
  return both;
}

namespace {
/// The part of a call that its token count does not change.
Expected<Shape> shapeOf(const CallOptions &call) {
  auto resolved = call.resolve();
  if (!resolved) return resolved.takeError();
  auto program = loadProgram(call.file);
  if (!program) return program.takeError();
  auto kernel = pickKernel(**program, call.kernel);
  if (!kernel) return kernel.takeError();
  Shape shape;
  shape.file = (*program)->fileName, shape.kernel = *kernel;
  shape.problem.program = *program, shape.problem.kernel = (*kernel)->name;
  shape.problem.act = resolved->act, shape.problem.quant = resolved->quant,
  shape.problem.block = resolved->block;
  auto chosen = oracle::chooseDims(**kernel, resolved->dims);
  if (!chosen) return chosen.takeError();
  bool routed = (*kernel)->routing >= 0;
  std::string tokenDim = routed ? (*kernel)->params[(*kernel)->routing].dims[0].sym : (*kernel)->rows.sym;
  if (resolved->dims.count(tokenDim))
    return Error::user(fmt::format("'{}' counts tokens, expected --tokens for it", tokenDim), "--dim");
  std::vector<std::string> missing;
  for (const std::string &name : chosen->chosen)
    if (name != tokenDim && name != "R") missing.push_back(name);
  if (!missing.empty())
    return Error::user(fmt::format("kernel '{}' also needs {}: expected all its dimensions but the tokens",
                                   shape.problem.kernel, fmt::join(missing, ", ")),
                       "--dim");
  shape.problem.dims = resolved->dims;
  if (routed) {
    shape.experts = std::max<int64_t>(1, resolved->dims[(*kernel)->params[(*kernel)->routing].dims[1].sym]);
    shape.topK = std::max<int64_t>(1, resolved->dims["top_k"]);
  }
  return shape;
}

Shape withTokens(Shape shape, int64_t tokens) {
  shape.tokens = tokens;
  const syntax::Kernel &k = *shape.kernel;
  shape.problem.dims[k.routing >= 0 ? k.params[k.routing].dims[0].sym : k.rows.sym] = tokens;
  // As makeRequest (runtime/launch/Request.cpp) does.
  shape.rowsPerExpert =
      int64_t(std::bit_ceil(uint64_t((tokens * shape.topK + shape.experts - 1) / shape.experts)));
  return shape;
}
} // namespace

Expected<std::vector<Shape>> ShapeOptions::expand(bool byBucket) const {
  auto all = calls();
  if (!all) return all.takeError();
  bool byRows = !rows.empty();
  std::vector<TokenRange> ranges;
  for (const std::string &text : byRows ? rows : tokens) {
    auto range = parseRange(text, byRows ? "--rows" : "--tokens");
    if (!range) return range.takeError();
    ranges.push_back(*range);
  }
  std::vector<Shape> out;
  for (const CallOptions &one : *all) {
    auto base = shapeOf(one);
    if (!base) return base.takeError();
    auto tokensFor = [&](int64_t mean) { return std::max<int64_t>(1, mean * base->experts / base->topK); };
    std::set<int64_t> seen; // buckets, or counts
    auto add = [&](int64_t count) {
      Shape shape = withTokens(*base, count);
      if (seen.insert(byBucket ? shape.rowsPerExpert : count).second) out.push_back(std::move(shape));
    };
    for (TokenRange r : ranges) {
      if (byRows) r = {tokensFor(r.low), tokensFor(r.high)};
      if (byBucket) {
        int64_t last = withTokens(*base, r.high).rowsPerExpert;
        for (int64_t bucket = withTokens(*base, r.low).rowsPerExpert; bucket <= last; bucket *= 2)
          add(std::clamp(tokensFor(bucket), r.low, r.high));
      } else {
        for (int64_t count = r.low; count < r.high; count *= 2) add(count);
        add(r.high);
      }
    }
  }
  return out;
}

Expected<std::vector<Shape>> ShapeOptions::buckets() const { return expand(true); }
Expected<std::vector<Shape>> ShapeOptions::counts() const { return expand(false); }

} // namespace quern::tools
