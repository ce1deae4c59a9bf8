// Command-line text to checked values.
#include "tools/Options.h"
#include <charconv>
#include <cstdlib>
#include <fmt/format.h>

namespace quern::tools {

void CallOptions::addFile(CLI::App &command) {
  command
      .add_option("FILE", file, "a .qn file, the name of a shipped one (quern list), or - for standard input")
      ->required();
  command.add_option("--kernel", kernel, "the kernel; needed when the file has several");
}

void CallOptions::addShape(CLI::App &command) {
  command.add_option("--dim", dims, "dimensions, T=64,E=32,top_k=4,...; missing ones are chosen and named")
      ->delimiter(',');
  command.add_option("--dtype", act, "dtype of the activations")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}))
      ->capture_default_str();
  command.add_option("--block", block, "codes per scale, a power of two in 32..4096 (default: the codec's)");
  command
      .add_option("--quant-dtype", quant, "dtype of the quantization state: weights are rounded to it first")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}))
      ->capture_default_str();
  command.add_option("--layout", layout, "layout of the packed bytes")
      ->check(CLI::IsMember({"cpu", "bnb", "gpu"}))
      ->capture_default_str();
  command.add_option("--features", features,
                     "CPU features to add or leave out, e.g. -amx,-avx512f (as QUERN_CPU_FEATURES)");
}

void CallOptions::addData(CLI::App &command) {
  command
      .add_option("--routing", routing,
                  "uniform: top_k distinct experts per token; zipf: few experts get most tokens; one: all "
                  "rows on one expert; "
                  "empty: no row at all")
      ->check(CLI::IsMember({"uniform", "zipf", "one", "empty"}))
      ->capture_default_str();
  command.add_option("--seed", seed, "seed of the generated data")->capture_default_str();
  command.add_flag("--exact", exact, "integer activations and power-of-two scales: sums are exact in fp32");
}

Expected<oracle::GenerateOptions> CallOptions::resolve() const {
  oracle::GenerateOptions out;
  for (const std::string &item : dims) {
    size_t equal = item.find('=');
    int64_t value = 0;
    const char *end = item.data() + item.size();
    auto parsed = equal == std::string::npos ? std::from_chars_result{nullptr, std::errc::invalid_argument}
                                             : std::from_chars(item.data() + equal + 1, end, value);
    if (parsed.ec != std::errc() || parsed.ptr != end || equal == 0)
      return Error::user(fmt::format("found '{}', expected NAME=NUMBER", item), "--dim");
    if (!out.dims.emplace(item.substr(0, equal), value).second)
      return Error::user(fmt::format("'{}' is given twice", item.substr(0, equal)), "--dim");
  }
  out.act = *parseDType(act); // CLI11 has checked the words
  out.quant = *parseDType(quant);
  out.layout = layout == "cpu" ? Layout::Cpu : layout == "gpu" ? Layout::Gpu : Layout::Bnb;
  out.routing = *oracle::parseRoutingKind(routing);
  out.block = block;
  out.seed = seed;
  out.exact = exact;
  if (!features.empty()) setenv("QUERN_CPU_FEATURES", features.c_str(), 1);
  return out;
}

} // namespace quern::tools
