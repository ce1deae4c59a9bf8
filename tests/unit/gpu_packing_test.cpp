// Re-tiling and decoding on the device against runtime/packing, byte for byte.
#include "compiler/syntax/Syntax.h"
#include "runtime/packing/Packed.h"
#include "tests/unit/gpu_support.h"
#include <bit>
#include <cmath>
#include <map>

using namespace quern;
using namespace quern::gputest;

namespace {

std::vector<uint8_t> randomBytes(int64_t count, std::mt19937_64 &random) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (uint8_t &b : bytes) b = uint8_t(random() >> 32);
  return bytes;
}

void checkCodes(const WeightShape &s, bool highFirst, size_t offset, std::mt19937_64 &random) {
  SCOPED_TRACE(testing::Message() << "N " << s.n << " K " << s.k << " highFirst " << highFirst << " offset "
                                  << offset);
  auto bnb = randomBytes(s.codeBytes(), random), tiled = bnb;
  retileCodes(tiled.data(), s, highFirst, Layout::Bnb, Layout::Gpu);
  DeviceArray<uint8_t> from(bnb, offset);
  auto there = DeviceArray<uint8_t>::fresh(bnb.size()),
       back = DeviceArray<uint8_t>::fresh(bnb.size(), offset);
  ASSERT_TRUE(succeeded(gpu::retileCodes(*backend(), nullptr, from.data(), there.data(), s, highFirst,
                                         Layout::Bnb, Layout::Gpu)));
  EXPECT_EQ(there.values(), tiled);
  ASSERT_TRUE(succeeded(gpu::retileCodes(*backend(), nullptr, there.data(), back.data(), s, highFirst,
                                         Layout::Gpu, Layout::Bnb)));
  EXPECT_EQ(back.values(), bnb);
}

/// A codec's table, from the shipped files; a zero point is added to int4's to have one with zeros.
syntax::Codec codecNamed(const std::string &name) {
  static std::map<std::string, std::shared_ptr<const syntax::Program>> programs;
  std::string file = name == "zeros" ? "int4" : name;
  if (!programs.count(file)) {
    auto program = syntax::parseProgram(*syntax::shippedFile(file + ".qn"), file + ".qn");
    if (!program) ADD_FAILURE() << program.error().str();
    programs[file] = *program;
  }
  syntax::Codec codec = programs[file]->codecs.front();
  if (name == "zeros") {
    codec.hasZero = true;
    for (int i = 0; i < 16; ++i) codec.table[size_t(i)] = float(i);
  }
  return codec;
}

int64_t scaleBytesOf(const syntax::Codec &c) {
  return c.scale == syntax::ScaleType::F32 ? 4 : c.scale == syntax::ScaleType::BF16 ? 2 : 1;
}

/// E experts with random codes and scales, in bitsandbytes' order.
struct Operand {
  syntax::Codec codec;
  PackedView view;
  std::vector<std::vector<uint8_t>> codes, scales, zeros;

  Operand(const std::string &name, WeightShape shape, int64_t experts, DType state, std::mt19937_64 &random)
      : codec(codecNamed(name)) {
    view.codec = &codec, view.experts = experts, view.shape = shape, view.dtype = state;
    for (int64_t e = 0; e < experts; ++e) {
      codes.push_back(randomBytes(shape.codeBytes(), random));
      scales.push_back(randomBytes(shape.scaleCount() * scaleBytesOf(codec), random));
      zeros.push_back(randomBytes(codec.hasZero ? shape.scaleCount() : 0, random));
      for (uint8_t &z : zeros.back()) z &= 15;
      for (int64_t i = 0; i < shape.scaleCount(); ++i) { // mostly ordinary scales; any bits now and then
        float scale = std::ldexp(float(random() % 1000 + 1), int(random() % 30) - 25);
        bool anyBits = random() % 16 == 0;
        if (codec.scale == syntax::ScaleType::E8M0) {
          if (!anyBits) scales.back()[size_t(i)] = uint8_t(110 + random() % 30);
          continue;
        }
        DType type = codec.scale == syntax::ScaleType::F32 ? DType::F32 : DType::BF16;
        if (anyBits) scale = loadAs(type, scales.back().data(), i);
        if (std::isnan(scale)) scale = std::nanf(""); // some payloads are the simulator's own marks
        storeAs(type, scales.back().data(), i, scale);
      }
    }
    point(codes, scales, zeros);
  }
  void point(std::vector<std::vector<uint8_t>> &c, std::vector<std::vector<uint8_t>> &s,
             std::vector<std::vector<uint8_t>> &z) {
    view.codes.clear(), view.scales.clear(), view.zeros.clear();
    for (size_t e = 0; e < c.size(); ++e) {
      view.codes.push_back(c[e].data()), view.scales.push_back(s[e].data());
      if (codec.hasZero) view.zeros.push_back(z[e].data());
    }
  }
  void retile(Layout to) {
    for (int64_t e = 0; e < view.experts; ++e) {
      retileCodes(view.codes[size_t(e)], view.shape, codec.highFirst, view.layout, to);
      retileScales(view.scales[size_t(e)], scaleBytesOf(codec), view.shape, view.layout, to);
      if (codec.hasZero) retileScales(view.zeros[size_t(e)], 1, view.shape, view.layout, to);
    }
    view.layout = to;
  }
};

/// The operand's arrays on the device.
struct DeviceOperand {
  std::vector<DeviceArray<uint8_t>> codes, scales, zeros;
  PackedView view;
  explicit DeviceOperand(const Operand &o) : view(o.view) {
    for (size_t e = 0; e < o.codes.size(); ++e) {
      codes.emplace_back(o.codes[e]), scales.emplace_back(o.scales[e]), zeros.emplace_back(o.zeros[e]);
      view.codes[e] = codes[e].data(), view.scales[e] = scales[e].data();
      if (o.codec.hasZero) view.zeros[e] = zeros[e].data();
    }
  }
};

void checkDecode(const Operand &o, DType out) {
  SCOPED_TRACE(testing::Message() << o.codec.name << " N " << o.view.shape.n << " K " << o.view.shape.k
                                  << " block " << o.view.shape.block << " layout " << name(o.view.layout)
                                  << " state " << name(o.view.dtype) << " out " << name(out));
  DeviceOperand device(o);
  int64_t count = o.view.shape.n * o.view.shape.k, wrong = 0;
  for (int64_t e = 0; e < o.view.experts; ++e) {
    Elements expected(out, size_t(count)), found = expected;
    decodeExpert(o.view, e, out, expected.bytes.data());
    auto decoded = DeviceArray<uint8_t>::fresh(expected.bytes.size());
    ASSERT_TRUE(succeeded(gpu::dequantize(*backend(), nullptr, device.view, e, out, decoded.data())));
    found.bytes = decoded.values();
    for (int64_t i = 0; i < count; ++i) {
      float a = found.at(size_t(i)), b = expected.at(size_t(i));
      wrong += std::bit_cast<uint32_t>(a) != std::bit_cast<uint32_t>(b) && !(std::isnan(a) && std::isnan(b));
    }
  }
  EXPECT_EQ(wrong, 0) << "of " << count * o.view.experts;
}

/// Decoded weights in the order of A fragments (PTX ISA, wgmma, matrix fragments for m64nNk16, A), against
/// decodeExpert. Experts without rows are left as they were.
void checkAhead(const Operand &o, DType out, int64_t tileRows, bool halved,
                const std::vector<int32_t> &offsets) {
  const WeightShape &s = o.view.shape;
  SCOPED_TRACE(testing::Message() << o.codec.name << " N " << s.n << " K " << s.k << " block " << s.block
                                  << " state " << name(o.view.dtype) << " out " << name(out) << " tiles of "
                                  << tileRows << (halved ? " halved" : ""));
  DeviceOperand device(o);
  DeviceArray<int32_t> deviceOffsets(offsets);
  int64_t experts = int64_t(offsets.size()) - 1;
  jit::DecodeStep step{0, o.view.experts > 1, halved, s.n, s.k, tileRows, out};
  auto decoded = DeviceArray<uint16_t>::fresh(size_t(o.view.experts * step.bytesPerExpert() / 2));
  auto tables = gpu::packedTables(*backend(), nullptr, device.view, "test");
  ASSERT_TRUE(tables) << tables.error().str();
  ASSERT_TRUE(succeeded(gpu::decodeAhead(*backend(), nullptr, device.view, *tables, step,
                                         {deviceOffsets.data(), nullptr, offsets.back(), experts},
                                         decoded.data(), false)));
  auto found = decoded.values();
  int64_t at = 0, wrong = 0, tiles = (s.n + tileRows - 1) / tileRows, steps = (s.k + 63) / 64;
  for (int64_t e = 0; e < o.view.experts; ++e) {
    bool used = o.view.experts > 1 ? offsets[size_t(e) + 1] > offsets[size_t(e)] : offsets.back() > 0;
    Elements expected(out, size_t(s.n * s.k));
    decodeExpert(o.view, e, out, expected.bytes.data());
    for (int64_t tile = 0; tile < tiles; ++tile)
      for (int64_t block = 0; block < steps; ++block)
        for (int64_t group = 0; group < tileRows / 64; ++group)
          for (int64_t slice = 0; slice < 4; ++slice)
            for (int64_t thread = 0; thread < 128; ++thread)
              for (int64_t i = 0; i < 8; ++i, ++at) { // A register i / 2, half i % 2
                int64_t warp = thread / 32, g = thread % 32 / 4, second = i / 2 % 2; // MMA row g or g + 8
                int64_t k = 64 * block + 16 * slice + 8 * (i / 4) + 2 * (thread % 4) + i % 2;
                int64_t j = tile * tileRows / 2 + 32 * group + 8 * warp + g;
                int64_t n =
                    halved ? j + second * s.n / 2 : tile * tileRows + 64 * group + 16 * warp + 2 * g + second;
                bool inside = (halved ? j < s.n / 2 : n < s.n) && k < s.k;
                float value = inside ? expected.at(size_t(n * s.k + k)) : 0;
                uint16_t bits = found[size_t(at)];
                float read = out == DType::BF16 ? fromBF16(bits) : fromF16(bits);
                if (!used)
                  wrong += bits != 0xffff;
                else if (inside && !std::isnan(value))
                  wrong += std::bit_cast<uint32_t>(read) != std::bit_cast<uint32_t>(value);
                else
                  wrong += inside ? !std::isnan(read) : read != 0;
              }
  }
  EXPECT_EQ(wrong, 0) << "of " << at;
}

} // namespace

TEST(GpuPacking, DecodesAheadEveryCodec) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(26);
  for (const char *codec : {"nf4", "fp4", "mxfp4", "int4", "zeros"})
    for (DType state : {DType::F32, DType::BF16, DType::F16})
      for (DType out : {DType::BF16, DType::F16}) {
        Operand o(codec, {136, 160, 32}, 3, state, random);
        o.retile(Layout::Gpu);
        checkAhead(o, out, 128, false, {0, 0, 5, 7});
        checkAhead(o, out, 128, true, {0, 1, 1, 1});
      }
}

TEST(GpuPacking, DecodesAheadEveryShape) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(27);
  for (const WeightShape &s : {WeightShape{64, 64, 64},
                               {384, 192, 64},
                               {320, 64, 128},
                               {8, 32, 64},
                               {200, 96, 64},
                               {256, 320, 4096}}) {
    Operand o("nf4", s, 2, DType::BF16, random), shared("nf4", s, 1, DType::BF16, random);
    o.retile(Layout::Gpu), shared.retile(Layout::Gpu);
    for (int64_t tileRows : {64, 128, 192}) checkAhead(o, DType::BF16, tileRows, false, {0, 3, 3});
    checkAhead(o, DType::BF16, 128, true, {0, 1, 2});
    checkAhead(shared, DType::BF16, 128, false, {0, 0, 9, 9, 9}); // weights that all experts share
    checkAhead(shared, DType::BF16, 128, false, {0, 0, 0});       // and no rows at all
  }
}

TEST(GpuPacking, CodesThereAndBack) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(21);
  for (int64_t n : {1, 63, 64, 65, 130})
    for (int64_t k : {2, 62, 64, 66, 96, 130, 192})
      checkCodes({n, k, 64}, (n + k / 2) % 2, n % 2 ? 0 : 4, random);
  checkCodes({128, 704, 64}, true, 0, random);
  checkCodes({96, 2880, 64}, true, 0, random);
}

TEST(GpuPacking, ScalesThereAndBack) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(22);
  for (const WeightShape &s :
       {WeightShape{64, 64, 64}, {65, 192, 64}, {3, 128, 64}, {64, 128, 32}, {5, 66, 64}, {10, 256, 128}})
    for (int64_t width : {1, 2, 4}) {
      SCOPED_TRACE(testing::Message()
                   << "N " << s.n << " K " << s.k << " block " << s.block << " width " << width);
      auto bnb = randomBytes(s.scaleCount() * width, random), tiled = bnb;
      retileScales(tiled.data(), width, s, Layout::Bnb, Layout::Gpu);
      DeviceArray<uint8_t> from(bnb);
      auto there = DeviceArray<uint8_t>::fresh(bnb.size()), back = DeviceArray<uint8_t>::fresh(bnb.size());
      ASSERT_TRUE(succeeded(gpu::retileScales(*backend(), nullptr, from.data(), there.data(), width, s,
                                              Layout::Bnb, Layout::Gpu)));
      EXPECT_EQ(there.values(), tiled);
      ASSERT_TRUE(succeeded(gpu::retileScales(*backend(), nullptr, there.data(), back.data(), width, s,
                                              Layout::Gpu, Layout::Bnb)));
      EXPECT_EQ(back.values(), bnb);
    }
}

TEST(GpuPacking, InPlaceKeepsTheStorage) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(23);
  for (const char *codec : {"nf4", "zeros"})
    for (const WeightShape &s : {WeightShape{130, 192, 64}, {70, 98, 32}}) {
      Operand o(codec, s, 3, DType::BF16, random), tiled = o;
      tiled.point(tiled.codes, tiled.scales, tiled.zeros);
      tiled.view.codec = &tiled.codec;
      tiled.retile(Layout::Gpu);
      DeviceOperand device(o);
      auto expect = [&](const Operand &expected) {
        for (size_t e = 0; e < 3; ++e) {
          EXPECT_EQ(device.codes[e].values(), expected.codes[e]);
          EXPECT_EQ(device.scales[e].values(), expected.scales[e]);
          EXPECT_EQ(device.zeros[e].values(), expected.zeros[e]);
        }
      };
      ASSERT_TRUE(succeeded(gpu::retileInPlace(*backend(), nullptr, device.view, Layout::Gpu)));
      expect(tiled);
      device.view.layout = Layout::Gpu;
      ASSERT_TRUE(succeeded(gpu::retileInPlace(*backend(), nullptr, device.view, Layout::Bnb)));
      expect(o);
    }
}

TEST(GpuPacking, DecodesEveryCodec) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(24);
  for (const char *codec : {"nf4", "fp4", "mxfp4", "int4", "zeros"})
    for (DType state : {DType::F32, DType::BF16, DType::F16}) {
      Operand o(codec, {70, 130, 32}, 2, state, random);
      for (Layout layout : {Layout::Bnb, Layout::Gpu}) {
        o.retile(layout);
        for (DType out : {DType::F32, DType::BF16, DType::F16}) checkDecode(o, out);
      }
    }
}

TEST(GpuPacking, DecodesEveryShape) {
  QUERN_NEEDS_DEVICE();
  auto random = seeded(25);
  for (const WeightShape &s : {WeightShape{64, 64, 64},
                               {128, 192, 64},
                               {65, 64, 64},
                               {64, 66, 128},
                               {33, 62, 64},
                               {1, 2, 32},
                               {3, 6, 4096},
                               {64, 320, 128}}) {
    Operand o("nf4", s, 1, DType::BF16, random);
    for (Layout layout : {Layout::Bnb, Layout::Gpu}) {
      o.retile(layout);
      checkDecode(o, DType::BF16);
    }
  }
}
