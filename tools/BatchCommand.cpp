// `quern run-batch` (not shown in the help): programs with their data as JSON lines, answers as JSON lines,
// in one process. The random program tests drive it. Binary data travel as hex text.
//
// Request: {"text": ..., "kernel": NAME, "target": "interp"|"cpu"|"sim"|"cuda", "args": [...]} with args
//   {"tensor": HEX, "dtype": "bf16", "shape": [..]}           contiguous
//   {"packed": HEX, "codec": NAME, "scales": HEX, "zeros": HEX, "shape": [E, N, K] or [N, K], "block": B,
//   "dtype": .., "layout": ..}
//       bytes of all experts one after another in bitsandbytes' order; they are re-tiled to the layout here
//   {"experts": E, "top_k": k, "ids": [[..]], "weights": [[..]]}   a routing
//   {"scalar": x}
// Without "kernel" the text is only checked. Answer: {"ok": true, "outputs": [{"name", "dtype", "shape",
// "values": HEX of doubles, "magnitude": HEX of doubles (interp only)}]} or {"ok": false, "kind":
// "user"|"system"|"internal", "rule": .., "error": text}.
#include "compiler/syntax/Syntax.h"
#include "runtime/oracle/Compare.h"
#include "tools/Commands.h"
#include "tools/Load.h"
#include <cstring>
#include <fmt/format.h>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

namespace quern::tools {
namespace {
using Json = nlohmann::json;
using Bytes = std::vector<uint8_t>;

/// Wrong requests are programming errors of the test that writes them: std::exception, caught once per line.
Bytes fromHex(const std::string &text) {
  auto digit = [](char c) -> int {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (text.size() % 2) throw std::invalid_argument("hex text of odd length");
  Bytes out(text.size() / 2);
  for (size_t i = 0; i < out.size(); ++i) {
    int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) throw std::invalid_argument("not a hex digit");
    out[i] = uint8_t(high * 16 + low);
  }
  return out;
}

std::string toHex(const std::vector<double> &values) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out(values.size() * sizeof(double) * 2, '0');
  const auto *bytes = reinterpret_cast<const uint8_t *>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(double); ++i)
    out[2 * i] = digits[bytes[i] >> 4], out[2 * i + 1] = digits[bytes[i] & 15];
  return out;
}

DType dtypeOf(const Json &arg) {
  auto t = parseDType(arg.at("dtype").get<std::string>());
  if (!t) throw std::invalid_argument("unknown dtype");
  return *t;
}

/// Arguments of one request with their storage.
struct Request {
  std::vector<std::unique_ptr<Bytes>> storage;
  std::vector<std::unique_ptr<Routing>> routings;
  std::vector<Arg> args;

  uint8_t *keep(const Json &hex, int64_t size) {
    storage.push_back(std::make_unique<Bytes>(fromHex(hex.get<std::string>())));
    if (int64_t(storage.back()->size()) != size)
      throw std::invalid_argument(fmt::format("{} bytes, expected {}", storage.back()->size(), size));
    return storage.back()->data();
  }

  Arg tensor(const Json &arg) {
    TensorView t;
    t.dtype = dtypeOf(arg);
    t.shape = arg.at("shape").get<std::vector<int64_t>>();
    t.strides.assign(t.shape.size(), 1);
    int64_t count = 1;
    for (size_t d = t.shape.size(); d-- > 0; count *= t.shape[d]) t.strides[d] = count;
    t.data = keep(arg.at("tensor"), count * byteSize(t.dtype));
    return t;
  }

  Arg packed(const Json &arg, const syntax::Program &program) {
    PackedView p;
    p.codec = program.findCodec(arg.at("codec").get<std::string>());
    if (!p.codec) throw std::invalid_argument("unknown codec");
    auto shape = arg.at("shape").get<std::vector<int64_t>>();
    p.hasExpertDim = shape.size() == 3;
    p.experts = p.hasExpertDim ? shape[0] : 1;
    p.shape = {shape.at(shape.size() - 2), shape.back(), arg.at("block").get<int64_t>()};
    p.dtype = dtypeOf(arg);
    std::string layout = arg.at("layout").get<std::string>();
    p.layout = layout == "cpu" ? Layout::Cpu : layout == "gpu" ? Layout::Gpu : Layout::Bnb;
    int64_t scaleSize = p.codec->scale == syntax::ScaleType::F32    ? 4
                        : p.codec->scale == syntax::ScaleType::BF16 ? 2
                                                                    : 1;
    int64_t codeBytes = p.shape.codeBytes(), scaleBytes = p.shape.scaleCount() * scaleSize;
    uint8_t *codes = keep(arg.at("packed"), p.experts * codeBytes);
    uint8_t *scales = keep(arg.at("scales"), p.experts * scaleBytes);
    uint8_t *zeros = p.codec->hasZero ? keep(arg.at("zeros"), p.experts * p.shape.scaleCount()) : nullptr;
    for (int64_t e = 0; e < p.experts; ++e) {
      p.codes.push_back(codes + e * codeBytes);
      p.scales.push_back(scales + e * scaleBytes);
      if (zeros) p.zeros.push_back(zeros + e * p.shape.scaleCount());
    }
    if (Status ok = checkPacked(p, "w"); !ok) throw std::invalid_argument(ok.error().str());
    for (int64_t e = 0; e < p.experts; ++e) {
      retileCodes(p.codes[e], p.shape, p.codec->highFirst, Layout::Bnb, p.layout);
      retileScales(p.scales[e], scaleSize, p.shape, Layout::Bnb, p.layout);
      if (zeros) retileScales(p.zeros[e], 1, p.shape, Layout::Bnb, p.layout);
    }
    return p;
  }

  Arg routing(const Json &arg) {
    auto ids = arg.at("ids").get<std::vector<std::vector<int64_t>>>();
    auto weights = arg.at("weights").get<std::vector<std::vector<float>>>();
    int64_t topK = arg.at("top_k").get<int64_t>(), experts = arg.at("experts").get<int64_t>();
    std::vector<int64_t> flatIds;
    std::vector<float> flatWeights;
    for (const auto &line : ids) flatIds.insert(flatIds.end(), line.begin(), line.end());
    for (const auto &line : weights) flatWeights.insert(flatWeights.end(), line.begin(), line.end());
    int64_t tokens = int64_t(ids.size());
    if (int64_t(flatIds.size()) != tokens * topK || flatWeights.size() != flatIds.size())
      throw std::invalid_argument("ids and weights must be [T, top_k]");
    routings.push_back(std::make_unique<Routing>(routeFromIds(flatIds.data(), 8, topK, 1, flatWeights.data(),
                                                              DType::F32, topK, 1, tokens, topK, experts)));
    const Routing &r = *routings.back();
    return RoutingView{tokens, experts, topK, r.offsets.data(), r.rowToken.data(), r.rowWeight.data()};
  }

  void add(const Json &arg, const syntax::Program &program) {
    if (arg.contains("tensor"))
      args.push_back(tensor(arg));
    else if (arg.contains("packed"))
      args.push_back(packed(arg, program));
    else if (arg.contains("ids"))
      args.push_back(routing(arg));
    else
      args.push_back(arg.at("scalar").get<double>());
  }
};

Json outputJson(const std::string &name, DType dtype, const std::vector<int64_t> &shape,
                const std::vector<double> &values) {
  return {{"name", name}, {"dtype", quern::name(dtype)}, {"shape", shape}, {"values", toHex(values)}};
}

Expected<Json> answer(const Json &line) {
  auto text = line.at("text").get<std::string>();
  auto parsed = syntax::parseProgram(text, "batch.qn");
  if (!parsed) return parsed.takeError();
  const syntax::Program &program = **parsed;
  Json out = {{"ok", true}, {"outputs", Json::array()}};
  if (!line.contains("kernel")) return out;
  auto kernel = pickKernel(program, line.at("kernel").get<std::string>());
  if (!kernel) return kernel.takeError();
  Request request;
  for (const Json &arg : line.at("args")) request.add(arg, program);
  if (line.at("target").get<std::string>() == "interp") {
    auto outputs = oracle::interpret(program, **kernel, request.args);
    if (!outputs) return outputs.takeError();
    for (const oracle::Output &o : *outputs) {
      out["outputs"].push_back(outputJson(o.name, o.dtype, o.shape, o.values));
      out["outputs"].back()["magnitude"] = toHex(o.magnitude);
    }
    return out;
  }
  auto module = Module::load(text, "batch.qn");
  if (!module) return module.takeError();
  auto compiled = pickKernel((*module)->program(), (*kernel)->name);
  if (!compiled) return compiled.takeError();
  auto binding = bindArguments(program, **kernel, request.args);
  if (!binding) return binding.takeError();
  std::vector<oracle::OutputBuffer> buffers;
  std::vector<TensorView> views;
  for (const OutputSpec &spec : binding->outputs) views.push_back(buffers.emplace_back(spec).view);
  auto target = line.at("target").get<std::string>();
  if (Status ok = (*module)->runOn(target, **compiled, request.args, views); !ok) return ok.takeError();
  for (size_t i = 0; i < views.size(); ++i) {
    if (!buffers[i].guardsIntact())
      return Error::internal("memory outside the output was overwritten", binding->outputs[i].name);
    int64_t count = 1;
    for (int64_t s : views[i].shape) count *= s;
    std::vector<double> values(static_cast<size_t>(count));
    for (int64_t j = 0; j < count; ++j) values[j] = loadAs(views[i].dtype, views[i].data, j);
    out["outputs"].push_back(outputJson(binding->outputs[i].name, views[i].dtype, views[i].shape, values));
  }
  return out;
}

Json errorJson(const Error &e) {
  constexpr const char *kinds[] = {"user", "system", "internal"};
  return {{"ok", false}, {"kind", kinds[int(e.kind)]}, {"rule", e.rule}, {"error", e.str()}};
}
} // namespace

void addRunBatch(CLI::App &app, int &exitCode) {
  CLI::App *command =
      app.add_subcommand("run-batch", "answers JSON requests on standard input, one per line");
  command->group(""); // hidden
  command->callback([&exitCode] {
    std::string line;
    while (std::getline(std::cin, line)) {
      Json reply;
      try {
        auto result = answer(Json::parse(line));
        reply = result ? std::move(*result) : errorJson(result.error());
      } catch (const std::exception &e) {
        reply = errorJson(Error::internal(e.what(), "request"));
      }
      std::cout << reply.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n' << std::flush;
    }
    exitCode = success;
  });
}

} // namespace quern::tools
