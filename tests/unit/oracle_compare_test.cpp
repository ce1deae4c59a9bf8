// Each gate of the comparison must fail on the smallest defect that it is for, and say where it is.
#include "runtime/oracle/Compare.h"
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>

using namespace quern;
using namespace quern::oracle;

namespace {
constexpr double infinity = std::numeric_limits<double>::infinity(),
                 notANumber = std::numeric_limits<double>::quiet_NaN();

/// 40 x 50 values near 1, all of magnitude 60, and a buffer that holds them rounded to the output's dtype.
struct Fixture {
  Output expected;
  OutputBuffer buffer;

  explicit Fixture(DType type, double magnitude = 60)
      : expected{"y", type, {40, 50}, {}, {}, {}}, buffer(OutputSpec{"y", type, {40, 50}}) {
    for (int i = 0; i < 2000; ++i) expected.values.push_back(std::sin(i * 0.37) + 1.5);
    expected.magnitude.assign(2000, magnitude);
    for (int r = 0; r < 40; ++r) expected.rowExpert.push_back(r / 10);
    write();
  }
  void write() {
    for (int i = 0; i < 2000; ++i) set(i, float(expected.values[i]));
  }
  void set(int i, float value) { storeAs(buffer.view.dtype, buffer.view.data, i, value); }
  float get(int i) { return loadAs(buffer.view.dtype, buffer.view.data, i); }
  Comparison run() { return compare(expected, buffer.view); }
};
} // namespace

TEST(Compare, RoundedValuesPass) {
  for (DType type : {DType::F32, DType::BF16, DType::F16}) {
    Fixture f(type, 0);
    Comparison c = f.run();
    EXPECT_TRUE(c.pass) << c.verdict();
    EXPECT_EQ(c.verdict(), "ok");
    EXPECT_EQ(c.tiles, 3 * 4);
    EXPECT_LE(c.element.ratio, 1);
    // One step beyond the nearest number is an error that the element gate sees.
    double step = type == DType::F32 ? 0x1p-23 : type == DType::BF16 ? 0x1p-7 : 0x1p-10;
    f.set(777, f.get(777) + float(step));
    EXPECT_FALSE(f.run().pass);
    EXPECT_EQ(f.run().element.row, 15);
    EXPECT_EQ(f.run().element.column, 27);
  }
}

TEST(Compare, OneWrongTileIsFound) {
  // An error of 3e-4 relative in one tile: far below any per-element bound at this magnitude, invisible in a
  // global norm of 1e-3.
  Fixture f(DType::F32, 1e4);
  for (int r = 16; r < 32; ++r)
    for (int c = 32; c < 48; ++c) f.set(r * 50 + c, float(f.expected.values[r * 50 + c] * 1.0003));
  Comparison c = f.run();
  EXPECT_TRUE(c.pass) << "the cancellation allowance covers it: " << c.verdict();
  f.expected.magnitude.assign(2000, 500);
  c = f.run();
  EXPECT_FALSE(c.pass);
  EXPECT_EQ(c.failedTiles, 1);
  EXPECT_EQ(c.tile.row0, 16);
  EXPECT_EQ(c.tile.row1, 32);
  EXPECT_EQ(c.tile.column0, 32);
  EXPECT_EQ(c.tile.column1, 48);
  EXPECT_EQ(c.tile.expert, c.tile.row / 10);
  EXPECT_NEAR(c.tile.relative, 3e-4, 1e-6);
  EXPECT_TRUE(c.verdict().starts_with(
      "y: 1 of 12 tiles are wrong; worst relative error 0.0003 in rows 16..32, columns 32..48, expert "))
      << c.verdict();
}

TEST(Compare, ElementGate) {
  Fixture f(DType::F32, 60);
  double limit = 60 * 0x1p-20;
  f.set(123, float(f.expected.values[123] + 0.9 * limit));
  EXPECT_TRUE(f.run().pass) << f.run().verdict();
  f.set(123, float(f.expected.values[123] + 1.2 * limit));
  Comparison c = f.run();
  EXPECT_FALSE(c.pass);
  EXPECT_EQ(c.element.row, 2);
  EXPECT_EQ(c.element.column, 23);
  EXPECT_NEAR(c.element.ratio, 1.2, 0.01);
  EXPECT_TRUE(c.verdict().starts_with(
      "y: an element is 1.2 times its bound off, rows 2..3, columns 23..24, expert 0: found "))
      << c.verdict();
}

TEST(Compare, NaNMustMeetNaN) {
  Fixture f(DType::BF16);
  f.expected.values[60] = notANumber;
  EXPECT_FALSE(f.run().pass);
  EXPECT_EQ(f.run().mismatchedNaN, 1);
  f.set(60, float(notANumber));
  EXPECT_TRUE(f.run().pass) << f.run().verdict();
  f.set(61, float(notANumber));
  Comparison c = f.run();
  EXPECT_FALSE(c.pass);
  EXPECT_EQ(c.element.column, 11);
  EXPECT_EQ(c.verdict().substr(0, 43), "y: 1 elements differ in NaN or infinity; ro");
}

TEST(Compare, Infinity) {
  Fixture f(DType::F16);
  f.expected.values[3] = infinity;
  f.set(3, float(infinity));
  f.expected.values[4] = 70000; // beyond fp16: must become infinite
  f.set(4, float(infinity));
  EXPECT_TRUE(f.run().pass) << f.run().verdict();
  f.set(3, float(-infinity));
  EXPECT_FALSE(f.run().pass);
  f.set(3, float(infinity));
  f.set(4, 65504);
  EXPECT_FALSE(f.run().pass);
  f.set(4, float(infinity));
  f.set(5, float(infinity)); // a number was expected
  EXPECT_FALSE(f.run().pass);
  EXPECT_EQ(f.run().element.column, 5);
}

TEST(Compare, UnwrittenElementsAreSeenEvenWhereNaNIsExpected) {
  for (DType type : {DType::F32, DType::BF16, DType::F16}) {
    Fixture f(type);
    f.expected.values[100] = notANumber;
    f.set(100, float(notANumber));
    EXPECT_TRUE(f.run().pass) << f.run().verdict();
    f.buffer.fill();
    for (int i = 0; i < 2000; ++i)
      if (i != 100) f.set(i, float(f.expected.values[i]));
    Comparison c = f.run();
    EXPECT_FALSE(c.pass);
    EXPECT_EQ(c.unwritten, 1);
    EXPECT_EQ(c.element.row, 2);
    EXPECT_TRUE(c.verdict().starts_with("y: 1 elements were not written; rows 2..3, columns 0..1"))
        << c.verdict();
  }
}

TEST(Compare, GuardsAroundTheOutput) {
  OutputBuffer buffer({"y", DType::BF16, {3, 5}});
  auto *data = static_cast<uint16_t *>(buffer.view.data);
  EXPECT_TRUE(buffer.guardsIntact());
  data[0] = data[14] = 0;
  EXPECT_TRUE(buffer.guardsIntact());
  data[15] = 0;
  EXPECT_FALSE(buffer.guardsIntact());
  buffer.fill();
  EXPECT_TRUE(buffer.guardsIntact());
  data[-1] = 0;
  EXPECT_FALSE(buffer.guardsIntact());
}

TEST(Compare, EmptyOutputs) {
  for (std::vector<int64_t> shape : {std::vector<int64_t>{0, 8}, {8, 0}}) {
    Output expected{"y", DType::F32, shape, {}, {}, {}};
    OutputBuffer buffer({"y", DType::F32, shape});
    EXPECT_TRUE(compare(expected, buffer.view).pass);
  }
}
