// Models' shapes, token ranges and buckets, and how long commands say where they are.
#include "tools/ModelShapes.h"
#include "tools/Progress.h"
#include "tools/Shapes.h"
#include <bit>
#include <gmock/gmock.h>

namespace quern::tools {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

std::string readError(const std::string &text) {
  auto model = readModelConfig(text, "config.json");
  return model ? "" : model.error().str();
}

TEST(ModelShapes, NamesAndConfigsAgree) {
  auto named = findModel("gpt-oss-20b");
  ASSERT_TRUE(named);
  auto read = readModelConfig(
      R"({"model_type": "gpt_oss", "num_local_experts": 32, "experts_per_token": 4, "num_experts_per_tok": 4,
      "hidden_size": 2880, "intermediate_size": 2880, "swiglu_limit": 7.0, "quantization_config": {"quant_method": "mxfp4"}})",
      "gpt-oss-20b");
  ASSERT_TRUE(read) << read.error().str();
  EXPECT_THAT(read->note, HasSubstr("mxfp4"));
  read->note = "";
  EXPECT_EQ(*read, *named);

  auto qwen = readModelConfig(
      R"({"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8, "hidden_size": 2048,
      "intermediate_size": 6144, "moe_intermediate_size": 768, "hidden_act": "silu", "torch_dtype": "bfloat16"})",
      "qwen3-30b-a3b");
  ASSERT_TRUE(qwen) << qwen.error().str();
  EXPECT_EQ(*qwen, *findModel("qwen3-30b-a3b"));
  auto mixtral = readModelConfig(
      R"({"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2, "hidden_size": 4096,
      "intermediate_size": 14336, "dtype": "float16"})",
      "x");
  ASSERT_TRUE(mixtral) << mixtral.error().str();
  EXPECT_EQ(mixtral->dtype, "f16");
  auto calls = layerCalls(*mixtral, {});
  EXPECT_THAT(calls[0].dims, ElementsAre("E=8", "top_k=2", "N=28672", "K=4096"));
  EXPECT_THAT(calls[1].dims, ElementsAre("E=8", "top_k=2", "N=4096", "K=14336"));
  EXPECT_EQ(calls[1].act, "f16");
}

TEST(ModelShapes, ErrorsSayWhatWasFound) {
  EXPECT_THAT(readError("[1]"), HasSubstr("is not a JSON object"));
  EXPECT_THAT(readError("{"), HasSubstr("is not a JSON object"));
  EXPECT_THAT(readError("{}"), HasSubstr("has no model_type"));
  std::string llama = readError(R"({"model_type": "llama"})");
  EXPECT_THAT(llama, HasSubstr("model_type is \"llama\", for which no kernels are shipped"));
  EXPECT_THAT(llama, HasSubstr("gpt_oss, qwen3_moe, mixtral"));
  EXPECT_THAT(readError(R"({"model_type": "mixtral"})"),
              HasSubstr("has no num_local_experts or num_experts"));
  EXPECT_THAT(readError(R"({"model_type": "mixtral", "num_local_experts": "8"})"),
              HasSubstr("num_local_experts is \"8\", expected a positive integer"));
  EXPECT_THAT(readError(R"({"model_type": "mixtral", "num_local_experts": -8})"),
              HasSubstr("is -8, expected"));
  EXPECT_THAT(readError(R"({"model_type": "gpt_oss", "swiglu_limit": 5.0})"),
              HasSubstr("swiglu_limit is 5.0"));
  EXPECT_THAT(readError(R"({"model_type": "mixtral", "hidden_act": "gelu"})"),
              HasSubstr("hidden_act is \"gelu\""));
  EXPECT_THAT(readError(R"({"model_type": "mixtral", "dtype": "int8"})"), HasSubstr("dtype is \"int8\""));
  EXPECT_THAT(
      readError(
          R"({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 4, "hidden_size": 1,
      "intermediate_size": 1})"),
      HasSubstr("4 experts per token, but 2 experts"));
  // Values of other types are no reason to stop, let alone to crash.
  EXPECT_THAT(readError(R"({"model_type": 3, "quantization_config": {"quant_method": 5}})"),
              HasSubstr("has no model_type"));
  EXPECT_THAT(findModel("gpt-oss-20").error().str(), HasSubstr("did you mean 'gpt-oss-20b'?"));
}

TEST(Shapes, Ranges) {
  for (const char *bad : {"", "0", "-1", "a", "4..", "..4", "8..4", "1..2..3", "1.5", "99999999999999999999"})
    EXPECT_THAT(parseRange(bad, "--tokens").error().str(),
                HasSubstr("--tokens: found '" + std::string(bad) + "', expected"))
        << bad;
  auto range = parseRange("3..70", "--tokens");
  ASSERT_TRUE(range);
  EXPECT_EQ(range->low, 3);
  EXPECT_EQ(range->high, 70);
}

/// Every bucket that a launch with a token count of the range may ask for is there, and no other.
TEST(Shapes, BucketsAreThoseOfAllTokenCounts) {
  ShapeOptions options;
  for (auto [experts, topK] : {std::pair{32, 4}, {128, 8}, {8, 2}, {7, 3}, {5, 5}}) {
    options.call.file = "gpt_oss", options.call.kernel = "gate_up";
    options.call.dims = {"N=64", "K=64", "E=" + std::to_string(experts), "top_k=" + std::to_string(topK)};
    for (auto [low, high] : {std::pair{1, 700}, {9, 9}, {100, 300}, {1, 1}}) {
      options.tokens = {std::to_string(low) + ".." + std::to_string(high)};
      std::set<int64_t> expected, found;
      for (int64_t t = low; t <= high; ++t)
        expected.insert(int64_t(std::bit_ceil(uint64_t((t * topK + experts - 1) / experts))));
      auto shapes = options.buckets();
      ASSERT_TRUE(shapes) << shapes.error().str();
      for (const Shape &shape : *shapes) {
        EXPECT_TRUE(found.insert(shape.rowsPerExpert).second) << "twice";
        EXPECT_GE(shape.tokens, low);
        EXPECT_LE(shape.tokens, high);
        EXPECT_EQ(shape.problem.dims.at("T"), shape.tokens);
      }
      EXPECT_EQ(found, expected) << experts << " experts, " << topK << " each, tokens " << low << ".."
                                 << high;
    }
  }
}

TEST(Shapes, CountsAndRows) {
  ShapeOptions options;
  options.model = "gpt-oss-20b", options.tokens = {"1..6", "64"};
  auto shapes = options.counts();
  ASSERT_TRUE(shapes) << shapes.error().str();
  std::vector<int64_t> tokens;
  for (const Shape &s : *shapes) tokens.push_back(s.tokens);
  EXPECT_THAT(tokens, ElementsAre(1, 2, 4, 6, 64, 1, 2, 4, 6, 64)); // gate_up, then down
  EXPECT_EQ((*shapes)[4].label(), "gate_up E=32 K=2880 N=5760 top_k=4, 8 rows per expert");
  options.rows = {"16"}, options.call.kernel = "down";
  shapes = options.counts();
  ASSERT_TRUE(shapes) << shapes.error().str();
  ASSERT_EQ(shapes->size(), 1u);
  EXPECT_EQ((*shapes)[0].tokens, 128);
  EXPECT_EQ((*shapes)[0].rowsPerExpert, 16);
}

TEST(Shapes, MissingDimensionsAreNamed) {
  ShapeOptions options;
  options.tokens = {"1"};
  EXPECT_THAT(options.counts().error().str(), HasSubstr("found neither FILE nor --model"));
  options.call.file = "gpt_oss", options.call.kernel = "gate_up", options.call.dims = {"K=64", "E=4"};
  EXPECT_THAT(options.counts().error().str(), HasSubstr("--dim: kernel 'gate_up' also needs N, top_k"));
  options.call.dims = {"K=64", "E=4", "N=64", "top_k=1", "T=5"};
  EXPECT_THAT(options.counts().error().str(), HasSubstr("'T' counts tokens, expected --tokens for it"));
  options.call.dims = {};
  options.model = "gpt-oss-20b", options.call.kernel = "gate";
  EXPECT_THAT(options.counts().error().str(), HasSubstr("--kernel: found 'gate', expected gate_up or down"));
}

TEST(Progress, LinesAndEstimate) {
  testing::internal::CaptureStderr();
  {
    Progress progress(4, false, false);
    EXPECT_LT(progress.secondsLeft(), 0); // nothing is known yet
    progress.finish("a", "in the cache", true);
    EXPECT_LT(progress.secondsLeft(), 0); // a hit says nothing about a compilation
    progress.finish("b", "compiled");
    EXPECT_GE(progress.secondsLeft(), 0);
    progress.finish("c", "compiled");
    progress.finish("d", "compiled");
    EXPECT_EQ(progress.secondsLeft(), 0);
  }
  std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_THAT(lines, HasSubstr("1/4 a: in the cache\n"));
  EXPECT_THAT(lines, HasSubstr("2/4 b: compiled, "));
  EXPECT_THAT(lines, HasSubstr("4/4 d: compiled\n"));
  EXPECT_THAT(lines, testing::Not(HasSubstr("\r")));
}

TEST(Progress, OneLineOnATerminal) {
  testing::internal::CaptureStderr();
  {
    Progress progress(2, false, true);
    progress.at("first", 0.5);
    progress.say("a line that stays");
    progress.finish("first", "compiled");
    progress.finish("second", "compiled");
  }
  std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("0/2"));
  EXPECT_THAT(text, HasSubstr("\r\033[Ka line that stays\n"));
  EXPECT_THAT(text, HasSubstr("2/2"));
  EXPECT_TRUE(text.ends_with("\r\033[K")) << "the bar is removed";
  testing::internal::CaptureStderr();
  Progress(1, true, true).at("quiet");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Progress, Durations) {
  EXPECT_EQ(durationText(0.04), "0.0 s");
  EXPECT_EQ(durationText(9.96), "10 s");
  EXPECT_EQ(durationText(61), "1 min 1 s");
  EXPECT_EQ(durationText(7500), "2 h 5 min");
}
} // namespace
} // namespace quern::tools
