// Probes (runtime/sim/README.md): what the simulator computes for single instructions, against a GPU. One
// tiny kernel per instruction, in PTX. Without a GPU only the PTX is checked, by ptxas.
#include "runtime/driver/Ptxas.h"
#include "tests/unit/gpu_support.h"
#include "tests/unit/sim_support.h"
#include <bit>
#include <cmath>
#include <deque>
#include <functional>

using namespace quern;
using namespace quern::gputest;

namespace {

using Words = std::vector<uint32_t>;

/// A kernel that sets out[i] from a[i] and b[i] by `body`: instructions over %a, %b (b32), %fa, %fb (the same
/// bits as f32), %d (b32) and %fd (f32, used when `real`).
const jit::GpuImage &probe(const std::string &body, bool real) {
  static std::deque<jit::GpuImage> images; // a backend knows an image by its address
  jit::GpuImage &image = images.emplace_back();
  image.entry = "probe", image.arch = "sm_90a", image.threads = 256;
  image.ptx = R"(.version 8.0
.target sm_90a
.address_size 64
.visible .entry probe(.param .u64 pa, .param .u64 pb, .param .u64 pd)
{
  .reg .b64 %x, %y, %z, %at;
  .reg .b32 %a, %b, %d, %i, %t, %n;
  .reg .f32 %fa, %fb, %fd;
  ld.param.u64 %x, [pa];
  ld.param.u64 %y, [pb];
  ld.param.u64 %z, [pd];
  mov.u32 %i, %ctaid.x;
  mov.u32 %n, %ntid.x;
  mov.u32 %t, %tid.x;
  mad.lo.u32 %i, %i, %n, %t;
  mul.wide.u32 %at, %i, 4;
  add.u64 %x, %x, %at;
  add.u64 %y, %y, %at;
  add.u64 %z, %z, %at;
  ld.global.b32 %a, [%x];
  ld.global.b32 %b, [%y];
  mov.b32 %fa, %a;
  mov.b32 %fb, %b;
  )" + body + "\n" +
              (real ? "  mov.b32 %d, %fd;\n" : "") + "  st.global.b32 [%z], %d;\n  ret;\n}\n";
  image.params = {{jit::GpuParam::Pointer, 0}, {jit::GpuParam::Pointer, 1}, {jit::GpuParam::Pointer, 2}};
  return image;
}

/// What the simulator computes, called as a kernel calls it.
Words simulated(const Words &a, const Words &b, uint32_t (*one)(uint32_t, uint32_t)) {
  struct Data {
    const Words *a, *b;
    Words *out;
    uint32_t (*one)(uint32_t, uint32_t);
  };
  Words out(a.size());
  Data data{&a, &b, &out, one};
  auto report = sim_tests::KernelRun<Data>(
      data,
      [](Data &d) {
        for (size_t i = qsim_tid_x(); i < d.a->size(); i += 32) (*d.out)[i] = d.one((*d.a)[i], (*d.b)[i]);
      },
      32)();
  EXPECT_TRUE(report.ok()) << report.str();
  return out;
}

/// The results of a GPU for `a` and `b`, whose size is a multiple of 256. Empty without one, when ptxas has
/// taken the PTX or the test has been skipped.
Words measured(const std::string &body, bool real, const Words &a, const Words &b) {
  const jit::GpuImage &image = probe(body, real);
  gpu::Backend *device = backend();
  if (!device) return {};
  if (target() != "cuda") {
    auto stop = [&] {
      if (driver::findPtxas().empty())
        GTEST_SKIP() << "no ptxas; results need a GPU (QUERN_TEST_TARGET=cuda)";
      auto made = driver::assemble(image.ptx, image.arch);
      ASSERT_TRUE(made) << made.error().str();
    };
    stop();
    return {};
  }
  auto kernel = device->load(image);
  EXPECT_TRUE(kernel) << kernel.error().str();
  if (!kernel) return {};
  DeviceArray<uint32_t> x(a), y(b);
  auto out = DeviceArray<uint32_t>::fresh(a.size());
  void *pointers[] = {x.data(), y.data(), out.data()}, *params[] = {&pointers[0], &pointers[1], &pointers[2]};
  gpu::LaunchConfig config{.grid = unsigned(a.size() / 256), .block = 256};
  EXPECT_TRUE(succeeded(device->launch(*kernel, config, params, {}, nullptr)));
  EXPECT_TRUE(succeeded(device->synchronize(nullptr)));
  return out.values();
}

/// NaNs that the simulator takes for registers in flight are left out.
bool isToken(uint32_t bits) { return (bits & 0x7ff00000) == 0x7fd00000; }

Words randomFloats(size_t count, std::mt19937_64 &random) {
  Words words;
  for (size_t i = 0; words.size() < count; ++i) {
    uint32_t bits = uint32_t(random());
    if (i % 4 == 0) bits &= 0xffff8000;                      // ties of bf16
    if (i % 4 == 1) bits = (bits & 0x87fff000) | 0x38000000; // ties of f16, around its subnormals
    if (i % 4 == 2) bits = (bits & 0x80ffffff) | 0x47000000; // around its overflow
    if (!isToken(bits)) words.push_back(bits);
  }
  return words;
}

void expectSameBits(const std::string &body, const Words &a, const Words &b,
                    uint32_t (*one)(uint32_t, uint32_t)) {
  Words expected = simulated(a, b, one), found = measured(body, false, a, b);
  if (found.empty()) return;
  size_t wrong = 0;
  for (size_t i = 0; i < a.size(); ++i)
    if (found[i] != expected[i] && ++wrong <= 5)
      ADD_FAILURE() << body << std::hex << " of " << a[i] << ", " << b[i] << ": " << found[i]
                    << ", simulated " << expected[i];
  EXPECT_EQ(wrong, 0u);
}

} // namespace

// Probe 11; the shuffles and votes of it are in every test of GpuRouting.
TEST(GpuProbe, Permutations) {
  auto random = seeded(31);
  Words a(1 << 16), b(a.size());
  for (uint32_t &w : a) w = uint32_t(random());
  // Selector bits beyond 16 are ignored; 8 in a nibble replicates a sign.
  for (size_t i = 0; i < b.size(); ++i) b[i] = uint32_t(i) | 0xa5a50000;
  expectSameBits("prmt.b32 %d, %a, 0xc890, %b;", a, b,
                 [](uint32_t x, uint32_t selector) { return qsim_prmt(x, 0xc890, selector); });
}

// Probe 12.
TEST(GpuProbe, Conversions) {
  auto random = seeded(32);
  Words a = randomFloats(1 << 18, random), b = randomFloats(a.size(), random);
  expectSameBits("cvt.rn.bf16x2.f32 %d, %fa, %fb;", a, b, [](uint32_t x, uint32_t y) {
    return qsim_cvt_bf16x2(std::bit_cast<float>(x), std::bit_cast<float>(y));
  });
  expectSameBits("cvt.rn.f16x2.f32 %d, %fa, %fb;", a, b, [](uint32_t x, uint32_t y) {
    return qsim_cvt_f16x2(std::bit_cast<float>(x), std::bit_cast<float>(y));
  });
}

// Probe 12: all left operands against eight right ones, in both halves.
TEST(GpuProbe, Products) {
  for (auto [body, one, right] :
       {std::tuple{"mul.rn.bf16x2 %d, %a, %b;", &qsim_mul_bf16x2,
                   std::vector<uint32_t>{0, 0x3f80, 0xbf80, 0x0001, 0x7f7f, 0x7f80, 0x3fab, 0x7fc1}},
        std::tuple{"mul.rn.f16x2 %d, %a, %b;", &qsim_mul_f16x2,
                   std::vector<uint32_t>{0, 0x3c00, 0xbc00, 0x0001, 0x7bff, 0x7c00, 0x3dab, 0x7e01}}}) {
    Words a, b;
    for (uint32_t left = 0; left < 0x10000; ++left)
      for (uint32_t y : right) {
        uint32_t words = left | (left ^ 0x8000) << 16;
        if (!isToken(words)) a.push_back(words), b.push_back(y | y << 16);
      }
    while (a.size() % 256) a.push_back(0), b.push_back(0);
    expectSameBits(body, a, b, one);
  }
}

// Probe 13: approximations, at most 2 ulp from the simulator's rounded results; subnormals flushed alike.
TEST(GpuProbe, Approximations) {
  auto random = seeded(33);
  for (auto [body, one] : {std::tuple{"ex2.approx.ftz.f32 %fd, %fa;",
                                      +[](uint32_t x, uint32_t) {
                                        return std::bit_cast<uint32_t>(qsim_ex2(std::bit_cast<float>(x)));
                                      }},
                           std::tuple{"rcp.approx.ftz.f32 %fd, %fa;", +[](uint32_t x, uint32_t) {
                                        return std::bit_cast<uint32_t>(qsim_rcp(std::bit_cast<float>(x)));
                                      }}}) {
    Words a;
    while (a.size() < 1 << 20) {
      uint32_t bits = uint32_t(random());
      // Half of them where results are finite and normal for ex2.
      if (a.size() % 2) bits = std::bit_cast<uint32_t>(float(int64_t(random() % 600000)) / 2000 - 150);
      if (!std::isnan(std::bit_cast<float>(bits))) a.push_back(bits);
    }
    Words expected = simulated(a, a, one), found = measured(body, true, a, a);
    if (found.empty()) continue;
    size_t wrong = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      // Neighbouring floats of one sign have neighbouring bits. A rounded result may lie on either side of
      // the smallest normal number, so zero is taken for it.
      auto place = [](uint32_t bits) {
        uint32_t magnitude = bits & 0x7fffffff;
        return int64_t(magnitude < 0x00800000 ? 0x007fffff : magnitude);
      };
      bool near = std::abs(place(found[i]) - place(expected[i])) <= 2 && (found[i] ^ expected[i]) >> 31 == 0;
      if (!near && ++wrong <= 5)
        ADD_FAILURE() << body << std::hex << " of " << a[i] << ": " << found[i] << ", simulated "
                      << expected[i];
    }
    EXPECT_EQ(wrong, 0u);
  }
}
