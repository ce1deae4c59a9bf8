// Split kernels on the real simulator: results are right, hazards are found, and mutants of a kernel are
// noticed.
#include "codegen/gpu/OptimizeNvptx.h"
#include "codegen/sim/DeviceKernel.h"
#include "codegen/sim/Mutate.h"
#include "compiler/support/DType.h"
#include "tests/unit/codegen_sim_support.h"
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <numeric>

namespace quern::test {
namespace {
using testing::ElementsAreArray, testing::HasSubstr;

sim::SimCode load(SimModuleText input, const std::string &kernel) {
  auto code = sim::loadSim(std::move(input.module), std::move(input.context), kernel, sim::symbols());
  EXPECT_TRUE(code) << code.error().str();
  return code ? std::move(*code) : sim::SimCode();
}

/// The sum of each block's 256 values; with the second barrier or without.
std::string sumKernel(bool barrier) {
  return fmt::format(R"(
extern "C" __global__ void sum(const int *in, int *out) {{
  __shared__ int partial[8];
  int value = in[blockIndex() * 256 + threadIndex()];
  for (int mask = 16; mask; mask /= 2) value += warpShuffleXor(value, mask);
  if (laneIndex() == 0) partial[warpIndex()] = value;
  {}
  if (threadIndex() < 8) {{
    int total = 0;
    for (int w = 0; w < 8; ++w) total += partial[w];
    if (threadIndex() == 0) out[blockIndex()] = total;
  }}
}})",
                     barrier ? "syncBlock();" : "");
}

sim::Report runSum(bool barrier, int blocks, std::vector<int> &out) {
  std::vector<int> in(512);
  std::iota(in.begin(), in.end(), 0);
  out.assign(2, -1);
  sim::SimCode code = load(compileCuda(sumKernel(barrier)), "sum");
  void *from = in.data(), *to = out.data(), *params[] = {&from, &to};
  sim::Launch launch;
  launch.entry = code.entry, launch.params = params, launch.grid = blocks, launch.block = 256;
  launch.buffers = {{"in", from, in.size() * 4, false}, {"out", to, out.size() * 4, true}};
  return sim::launch(launch, {});
}

TEST(SimRun, DeviceCodeComputes) {
  std::vector<int> out;
  sim::Report report = runSum(true, 2, out);
  EXPECT_TRUE(report.ok()) << report.str();
  EXPECT_THAT(out, ElementsAreArray({255 * 256 / 2, 255 * 256 / 2 + 256 * 256}));
}

TEST(SimRun, AMissingBarrierIsFound) {
  std::vector<int> out;
  sim::Report report = runSum(false, 2, out);
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(report.str(), HasSubstr("race"));
}

TEST(SimRun, AnAccessBeyondABufferIsFound) {
  std::vector<int> out;
  sim::Report report = runSum(true, 3, out);
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(report.str(), HasSubstr("out of bounds"));
}

TEST(SimRun, KernelsOfTheTreeAreFoundByName) {
  auto copy = sim::deviceKernel("copy_bytes", sim::symbols());
  ASSERT_TRUE(copy) << copy.error().str();
  alignas(16) char from[1000], to[1000] = {};
  for (int i = 0; i < 1000; ++i) from[i] = char(i * 7);
  void *a = from, *b = to;
  int64_t bytes = 1000;
  void *params[] = {&a, &b, &bytes};
  sim::Launch launch;
  launch.entry = *copy, launch.params = params, launch.grid = 2, launch.block = 256;
  launch.buffers = {{"from", from, 1000, false}, {"to", to, 1000, true}};
  sim::Report report = sim::launch(launch, {});
  EXPECT_TRUE(report.ok()) << report.str();
  EXPECT_THAT(to, ElementsAreArray(from));
  auto again = sim::deviceKernel("copy_bytes", sim::symbols());
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, *copy);
  auto missing = sim::deviceKernel("copy_byte", sim::symbols());
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().str(), HasSubstr("copy_byte: internal error: no kernel of this name"));
}

/// One warpgroup: out[n][m] = sum(k) a[m][k] b[n][k], m < 64, n < 8, k < 64. B goes to shared memory by plain
/// stores, in the 128-byte swizzle of its descriptor; A comes in registers (PTX ISA 9.7.15.5).
std::string productKernel() {
  std::string elements = "{ float, float, float, float }",
              fragment = "{ float, float, float, float, i32, i32, i32, i32 }";
  std::string text = fmt::format(R"(
@quern_smem = external addrspace(3) global [0 x i8], align 1024
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)
declare void @q.fence.proxy.async()
declare void @q.wgmma.commit()
declare {1} @q.wgmma.fence.n4.a4(float, float, float, float, i32, i32, i32, i32)
declare {0} @q.wgmma.bf16.n8(float, float, float, float, i32, i32, i32, i32, i64)
declare {0} @q.wgmma.wait.0.n4(float, float, float, float)
define ptx_kernel void @k(ptr addrspace(1) %a, ptr addrspace(1) %b, ptr addrspace(1) %out) {{
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %copies = icmp ult i32 %t, 64
  br i1 %copies, label %copy, label %rest
copy:
  %n = lshr i32 %t, 3
  %chunk = and i32 %t, 7
  %row = shl i32 %n, 7
  %swizzled = xor i32 %n, %chunk
  %c16 = shl i32 %chunk, 4
  %s16 = shl i32 %swizzled, 4
  %from = add i32 %row, %c16
  %to = add i32 %row, %s16
  %pb = getelementptr i8, ptr addrspace(1) %b, i32 %from
  %ps = getelementptr i8, ptr addrspace(3) @quern_smem, i32 %to
  %bytes = load <4 x i32>, ptr addrspace(1) %pb
  store <4 x i32> %bytes, ptr addrspace(3) %ps
  br label %rest
rest:
  call void @q.fence.proxy.async()
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %base = ptrtoint ptr addrspace(3) @quern_smem to i32
  %low = and i32 %base, 262143
  %start = lshr i32 %low, 4
  %start64 = zext i32 %start to i64
  %desc0 = or i64 %start64, {2}
  %warp = lshr i32 %t, 5
  %warp16 = shl i32 %warp, 4
  %lane = and i32 %t, 31
  %lane4 = lshr i32 %lane, 2
  %m = add i32 %warp16, %lane4
  %column = and i32 %t, 3
  %m128 = shl i32 %m, 7
  %column4 = shl i32 %column, 2
  %first = add i32 %m128, %column4
)",
                                 elements, fragment, 1ull << 16 | 64ull << 32 | 1ull << 62);
  std::string c[4] = {"0.0", "0.0", "0.0", "0.0"};
  auto joined = [&] { return fmt::format("float {}, float {}, float {}, float {}", c[0], c[1], c[2], c[3]); };
  auto extract = [&](const std::string &type, const std::string &name) {
    for (int i = 0; i < 4; ++i) {
      c[i] = fmt::format("%{}_{}", name, i);
      text += fmt::format("  {} = extractvalue {} %{}, {}\n", c[i], type, name, i);
    }
  };
  for (int s = 0; s < 4; ++s) {
    std::string a;
    for (int i = 0; i < 4; ++i) {
      text += fmt::format(
          "  %o{0}_{1} = add i32 %first, {2}\n  %p{0}_{1} = getelementptr i8, ptr addrspace(1) %a, i32 "
          "%o{0}_{1}\n  %a{0}_{1} = load i32, ptr addrspace(1) %p{0}_{1}\n",
          s, i, s * 32 + i % 2 * 8 * 128 + i / 2 * 16);
      a += fmt::format(", i32 %a{}_{}", s, i);
    }
    text += fmt::format("  %f{} = call {} @q.wgmma.fence.n4.a4({}{})\n", s, fragment, joined(), a);
    extract(fragment, fmt::format("f{}", s));
    a.clear();
    for (int i = 0; i < 4; ++i) {
      text += fmt::format("  %fa{0}_{1} = extractvalue {2} %f{0}, {3}\n", s, i, fragment, i + 4);
      a += fmt::format(", i32 %fa{}_{}", s, i);
    }
    text +=
        fmt::format("  %d{0} = add i64 %desc0, {1}\n  %w{0} = call {2} @q.wgmma.bf16.n8({3}{4}, i64 %d{0})\n",
                    s, s * 2, elements, joined(), a);
    extract(elements, fmt::format("w{}", s));
    text += "  call void @q.wgmma.commit()\n";
  }
  text += fmt::format("  %done = call {} @q.wgmma.wait.0.n4({})\n", elements, joined());
  extract(elements, "done");
  for (int i = 0; i < 4; ++i) // column 2 (t % 4) + i % 2, row m + 8 (i / 2)
    text += fmt::format(
        "  %c{0} = shl i32 %column, 1\n  %n{0} = add i32 %c{0}, {1}\n  %n64{0} = shl i32 %n{0}, 6\n"
        "  %m{0} = add i32 %m, {2}\n  %at{0} = add i32 %n64{0}, %m{0}\n"
        "  %q{0} = getelementptr float, ptr addrspace(1) %out, i32 %at{0}\n"
        "  store float {3}, ptr addrspace(1) %q{0}\n",
        i, i % 2, i / 2 * 8, c[i]);
  return text + "  ret void\n}\n";
}

struct Product {
  alignas(16) uint16_t a[64][64], b[8][64];
  float out[8][64], expected[8][64] = {};

  Product() {
    for (int k = 0; k < 64; ++k) {
      for (int m = 0; m < 64; ++m) a[m][k] = toBF16(float((m * m * 7 + m * k + k * k * 3) % 13 - 6));
      for (int n = 0; n < 8; ++n) b[n][k] = toBF16(float((n * n * 5 + n * k + k * k * 11) % 17 - 8));
    }
    for (int n = 0; n < 8; ++n)
      for (int m = 0; m < 64; ++m)
        for (int k = 0; k < 64; ++k) expected[n][m] += fromBF16(a[m][k]) * fromBF16(b[n][k]);
  }

  sim::Report run(const sim::SimCode &code, uint64_t seed) {
    std::fill(&out[0][0], &out[8][0], NAN);
    void *pa = a, *pb = b, *to = out, *params[] = {&pa, &pb, &to};
    sim::Launch launch;
    launch.entry = code.entry, launch.params = params, launch.block = 128, launch.smemBytes = 1024;
    launch.buffers = {{"a", a, sizeof a, false}, {"b", b, sizeof b, false}, {"out", out, sizeof out, true}};
    sim::Options options;
    options.seed = seed;
    return sim::launch(launch, options);
  }
  bool right() const { return std::equal(&out[0][0], &out[8][0], &expected[0][0]); }
};

SimModuleText optimizedProduct() {
  SimModuleText input = parseIr(productKernel());
  auto target = nvptx::createTarget();
  Status status = nvptx::optimize(*input.module, **target);
  EXPECT_TRUE(status) << status.error().str();
  return input;
}

TEST(SimRun, AMatrixProductIsExact) {
  Product product;
  sim::SimCode code = load(optimizedProduct(), "k");
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    sim::Report report = product.run(code, seed);
    EXPECT_TRUE(report.ok()) << report.str();
    EXPECT_TRUE(product.right()) << "seed " << seed;
  }
}

TEST(SimRun, MutantsOfTheProductAreNoticed) {
  SimModuleText original = optimizedProduct();
  std::vector<std::string> survivors;
  size_t count = sim::mutantCount(*original.module);
  for (size_t i = 0; i < count; ++i) {
    SimModuleText input = optimizedProduct();
    auto what = sim::applyMutant(*input.module, i);
    ASSERT_TRUE(what) << what.error().str();
    Product product;
    sim::SimCode code = load(std::move(input), "k");
    bool noticed = false;
    for (uint64_t seed = 1; seed <= 5 && !noticed; ++seed)
      noticed = !product.run(code, seed).ok() || !product.right();
    if (!noticed) survivors.push_back(*what);
  }
  EXPECT_GT(count, 60u);
  // What may survive computes the same.
  std::vector<std::string> equal = {
      // All groups are waited for together, so three of the four commits may be anywhere or missing.
      "drop q.wgmma.commit #0", "drop q.wgmma.commit #1", "drop q.wgmma.commit #2",
      "duplicate q.wgmma.commit #0", "duplicate q.wgmma.commit #1", "duplicate q.wgmma.commit #2",
      "duplicate q.wgmma.commit #3", "move q.wgmma.bf16.n8 #0 behind q.wgmma.commit #0",
      "move q.wgmma.bf16.n8 #1 behind q.wgmma.commit #1", "move q.wgmma.bf16.n8 #2 behind q.wgmma.commit #2",
      "move q.wgmma.commit #0 behind q.wgmma.fence.n4.a4 #1",
      "move q.wgmma.commit #1 behind q.wgmma.fence.n4.a4 #2",
      "move q.wgmma.commit #2 behind q.wgmma.fence.n4.a4 #3",
      // A proxy fence may stand on either side of the barrier: all threads that read execute it too.
      "move q.fence.proxy.async #0 behind barrier.cta.sync.aligned.all #0",
      // wgmma.fence orders registers, the barrier shared memory.
      "move barrier.cta.sync.aligned.all #0 behind q.wgmma.fence.n4.a4 #0",
      // The low bits of the base are zero.
      "16320 -> 16321 in %start = and i32 %low, 16320, for operand 8 of q.wgmma.bf16.n8 #0"};
  EXPECT_THAT(survivors, testing::IsSubsetOf(equal));
}

} // namespace
} // namespace quern::test
