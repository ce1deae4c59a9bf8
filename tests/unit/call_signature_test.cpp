// The signature that a repeated device call is found by: everything that a plan depends on changes it, and
// what changes from step to step does not.
#include "compiler/syntax/Syntax.h"
#include "runtime/launch/CallSignature.h"
#include <functional>
#include <gtest/gtest.h>

namespace quern {
namespace {

struct CallSignatureTest : testing::Test {
  std::shared_ptr<const syntax::Program> program = [] {
    auto parsed = syntax::parseProgram(*syntax::shippedFile("gpt_oss.qn"), "gpt_oss.qn");
    EXPECT_TRUE(parsed) << parsed.error().str();
    return *parsed;
  }();
  const syntax::Kernel &kernel = program->kernels.at(0);
  syntax::Codec codec = program->codecs.at(0);
  alignas(16) char bytes[256] = {};
  int owner = 0, otherOwner = 0;

  std::vector<Arg> args() {
    TensorView x{bytes, DType::BF16, {4, 64}, {64, 1}};
    PackedView w;
    w.codec = &codec, w.experts = 2, w.shape = {128, 64, 64}, w.layout = Layout::Gpu;
    for (int e = 0; e < 2; ++e) {
      w.codes.push_back(reinterpret_cast<uint8_t *>(bytes + 16 * e));
      w.scales.push_back(bytes + 64 + 16 * e);
    }
    RoutingView route;
    route.tokens = 4, route.experts = 2, route.topK = 2;
    route.device.offsets = reinterpret_cast<int32_t *>(bytes);
    return {x, route, w, 1.5};
  }
  CallSignature of(const std::vector<Arg> &args, const std::string &schedule = "",
                   const void *device = nullptr, const syntax::Kernel *other = nullptr) {
    CallSignature out{7, 7}; // what a call before left there
    describeCall(out, device ? device : &owner, other ? *other : kernel, args, schedule);
    return out;
  }
};

TEST_F(CallSignatureTest, WhatAPlanDependsOnChangesIt) {
  using Change = std::function<void(TensorView &, RoutingView &, PackedView &)>;
  std::vector<std::pair<const char *, Change>> changes = {
      {"dtype", [](auto &x, auto &, auto &) { x.dtype = DType::F16; }},
      {"size", [](auto &x, auto &, auto &) { x.shape[0] = 5; }},
      {"stride", [](auto &x, auto &, auto &) { x.strides[0] = 128; }},
      {"rank", [](auto &x, auto &, auto &) { x.shape.push_back(1), x.strides.push_back(1); }},
      {"alignment", [](auto &x, auto &, auto &) { x.data = static_cast<char *>(x.data) + 2; }},
      {"no data", [](auto &x, auto &, auto &) { x.data = nullptr; }},
      {"tokens", [](auto &, auto &r, auto &) { r.tokens = 5; }},
      {"experts of the routing", [](auto &, auto &r, auto &) { r.experts = 3; }},
      {"top_k", [](auto &, auto &r, auto &) { r.topK = 1; }},
      {"on the host", [](auto &, auto &r, auto &) { r.device = {}; }},
      {"experts", [](auto &, auto &, auto &w) { w.experts = 1; }},
      {"expert dimension", [](auto &, auto &, auto &w) { w.hasExpertDim = false; }},
      {"N", [](auto &, auto &, auto &w) { w.shape.n = 256; }},
      {"K", [](auto &, auto &, auto &w) { w.shape.k = 128; }},
      {"block", [](auto &, auto &, auto &w) { w.shape.block = 32; }},
      {"state dtype", [](auto &, auto &, auto &w) { w.dtype = DType::F16; }},
      {"layout", [](auto &, auto &, auto &w) { w.layout = Layout::Bnb; }},
      {"codes", [](auto &, auto &, auto &w) { w.codes[1] += 16; }},
      {"scales", [](auto &, auto &, auto &w) { w.scales[0] = w.scales[1]; }},
      {"zeros", [](auto &, auto &, auto &w) { w.zeros = w.codes; }},
      {"no codec", [](auto &, auto &, auto &w) { w.codec = nullptr; }},
  };
  std::vector<CallSignature> seen = {of(args())};
  for (auto &[name, change] : changes) {
    std::vector<Arg> changed = args();
    change(std::get<TensorView>(changed[0]), std::get<RoutingView>(changed[1]),
           std::get<PackedView>(changed[2]));
    CallSignature signature = of(changed);
    for (auto &earlier : seen) EXPECT_NE(signature, earlier) << name;
    seen.push_back(signature);
  }
  EXPECT_NE(of(args(), "bn=64"), seen[0]);
  EXPECT_NE(of(args(), "bn=64"), of(args(), "bn=32"));
  EXPECT_NE(of(args(), "", &otherOwner), seen[0]);
  EXPECT_NE(of(args(), "", nullptr, &program->kernels.at(1)), seen[0]);
  // A codec counts by what it means: the address may be the same.
  codec.table[3] = 0.25f;
  EXPECT_NE(of(args()), seen[0]);
}

TEST_F(CallSignatureTest, WhatChangesFromStepToStepDoesNot) {
  CallSignature first = of(args());
  std::vector<Arg> next = args();
  std::get<TensorView>(next[0]).data = bytes + 32;
  std::get<RoutingView>(next[1]).device.offsets += 8;
  next[3] = -2.0;
  EXPECT_EQ(of(next), first);
  syntax::Codec copy = codec;
  std::get<PackedView>(next[2]).codec = &copy;
  EXPECT_EQ(of(next), first);
  EXPECT_EQ(CallSignatureHash()(of(next)), CallSignatureHash()(first));
}

} // namespace
} // namespace quern
