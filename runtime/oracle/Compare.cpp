// One walk over the output collects the error of each row, tile and element; the worst of each kind is kept
// with its place.
#include "runtime/oracle/Compare.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>

namespace quern::oracle {
namespace {
constexpr double infinity = std::numeric_limits<double>::infinity();
/// Smaller numbers may be flushed to zero, in operands or results.
constexpr double smallestNormal = 0x1p-126;
/// Quiet NaNs with payloads that no arithmetic yields.
constexpr uint32_t mark32 = 0x7fc0dead;
constexpr uint16_t markBF16 = 0x7fda, markF16 = 0x7eda;

struct Format {
  int digits;      // significant bits, the hidden one included
  int minExponent; // of the smallest normal number, as frexp counts it
  double largest;
};
Format formatOf(DType t) {
  if (t == DType::F32) return {24, -125, double(std::numeric_limits<float>::max())};
  if (t == DType::BF16) return {8, -125, double(fromBF16(0x7f7f))};
  return {11, -13, 65504};
}

double halfUlp(DType t, double value) {
  if (value == 0) return 0;
  Format f = formatOf(t);
  int exponent;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, std::max(exponent, f.minExponent) - f.digits - 1);
}

bool isMark(DType t, const void *data, int64_t i) {
  if (t == DType::F32) return std::bit_cast<uint32_t>(static_cast<const float *>(data)[i]) == mark32;
  return static_cast<const uint16_t *>(data)[i] == (t == DType::BF16 ? markBF16 : markF16);
}

/// What is summed up over a row or tile.
struct Sums {
  double error = 0, expected = 0, rounding = 0, magnitude = 0;
  double worst = -1; // ratio of the worst element, whose place follows
  int64_t row = 0, column = 0;
  double found = 0, wanted = 0;
};

/// One element judged: its error, what one rounding costs, and error / limit.
struct Judgement {
  double error = 0, rounding = 0, ratio = 0;
  bool mismatch = false; // NaN or infinity where the other has none
};

Judgement judge(DType type, double expected, double magnitude, double found, const Gates &gates) {
  Judgement j;
  double scaled = gates.elementScale * magnitude, largest = formatOf(type).largest;
  if (std::isnan(expected) || std::isnan(found)) {
    j.mismatch = std::isnan(expected) != std::isnan(found);
  } else if (std::isinf(expected) || std::isinf(found)) {
    // Numbers that round beyond the largest one become infinite; close to it both are right.
    double reach = std::fabs(expected) + scaled + halfUlp(type, largest);
    j.mismatch = std::isinf(expected) ? expected != found
                                      : std::signbit(expected) != std::signbit(found) || reach < largest;
  } else {
    j.rounding = halfUlp(type, std::fabs(expected) + (std::isfinite(scaled) ? scaled : 0)) + smallestNormal;
    j.error = std::fabs(found - expected);
    double limit = scaled + j.rounding;
    // The excess of a result that must overflow, but is the largest number or near it.
    if (std::fabs(expected) > largest && std::fabs(found) <= largest)
      j.mismatch = std::fabs(expected) - scaled > largest + 2 * halfUlp(type, largest);
    j.ratio = std::isnan(limit) ? 0 : j.error / limit;
  }
  if (j.mismatch) j.ratio = infinity;
  return j;
}

Place placeOf(const Sums &s, const Output &o, double ratio) {
  Place p;
  p.row = s.row, p.column = s.column;
  p.found = s.found, p.expected = s.wanted;
  p.expert = o.rowExpert.empty() ? -1 : o.rowExpert[s.row];
  p.relative = s.error == 0 ? 0 : s.expected > 0 ? std::sqrt(s.error / s.expected) : infinity;
  p.ratio = ratio;
  return p;
}

/// ||error|| against relativeL2 ||expected|| + ||rounding|| + cancellation ||magnitude||.
double normRatio(const Sums &s, const Gates &gates) {
  if (s.worst == infinity) return infinity;
  double magnitude = std::isfinite(s.magnitude) ? std::sqrt(s.magnitude) : 0;
  double limit = gates.relativeL2 * std::sqrt(s.expected) + std::sqrt(s.rounding) +
                 gates.cancellation * magnitude + smallestNormal;
  return std::sqrt(s.error) / limit;
}
} // namespace

std::string Place::str() const {
  std::string text = fmt::format("rows {}..{}, columns {}..{}", row0, row1, column0, column1);
  if (expert >= 0) text += fmt::format(", expert {}", expert);
  return text + fmt::format(": found {:.9g}, expected {:.9g} at [{}, {}]", found, expected, row, column);
}

std::string Comparison::verdict() const {
  if (guardsBroken) return fmt::format("{}: memory outside the output was overwritten", output);
  if (unwritten) return fmt::format("{}: {} elements were not written; {}", output, unwritten, element.str());
  if (mismatchedNaN)
    return fmt::format("{}: {} elements differ in NaN or infinity; {}", output, mismatchedNaN, element.str());
  if (tile.ratio > 1)
    return fmt::format("{}: {} of {} tiles are wrong; worst relative error {:.3g} in {}", output, failedTiles,
                       tiles, tile.relative, tile.str());
  if (row.ratio > 1)
    return fmt::format("{}: row with relative error {:.3g}, {}", output, row.relative, row.str());
  if (element.ratio > 1)
    return fmt::format("{}: an element is {:.3g} times its bound off, {}", output, element.ratio,
                       element.str());
  return "ok";
}

Comparison compare(const Output &expected, const TensorView &found, const Gates &gates) {
  Comparison result;
  result.output = expected.name;
  int64_t rows = expected.shape.empty() ? 1 : expected.shape[0];
  int64_t columns = expected.shape.size() > 1 ? expected.shape[1] : 1;
  int64_t tileColumns = (columns + gates.tile - 1) / gates.tile;
  std::vector<Sums> tiles(static_cast<size_t>(tileColumns));
  double worstRow = -1, worstTile = -1, worstElement = -1;

  auto finishTiles = [&](int64_t row0, int64_t row1) {
    for (int64_t c = 0; c < tileColumns; ++c) {
      double ratio = normRatio(tiles[c], gates);
      result.failedTiles += ratio > 1;
      ++result.tiles;
      if (ratio > worstTile) {
        worstTile = ratio;
        result.tile = placeOf(tiles[c], expected, ratio);
        result.tile.row0 = row0, result.tile.row1 = row1;
        result.tile.column0 = c * gates.tile, result.tile.column1 = std::min(columns, (c + 1) * gates.tile);
      }
      tiles[c] = {};
    }
  };
  for (int64_t r = 0; r < rows; ++r) {
    Sums line;
    for (int64_t c = 0; c < columns; ++c) {
      int64_t i = r * columns + c;
      double want = expected.values[i], magnitude = expected.magnitude[i],
             got = loadAs(found.dtype, found.data, i);
      Judgement j = judge(expected.dtype, want, magnitude, got, gates);
      if (isMark(found.dtype, found.data, i)) ++result.unwritten, j.ratio = infinity;
      result.mismatchedNaN += j.mismatch;
      for (Sums *s : {&line, &tiles[c / gates.tile]}) {
        if (std::isfinite(want) && std::isfinite(got)) {
          s->error += j.error * j.error;
          s->expected += want * want;
          s->rounding += j.rounding * j.rounding;
          s->magnitude += magnitude * magnitude;
        }
        if (j.ratio > s->worst)
          s->worst = j.ratio, s->row = r, s->column = c, s->found = got, s->wanted = want;
      }
    }
    if (columns && line.worst > worstElement) {
      worstElement = line.worst;
      result.element = placeOf(line, expected, line.worst);
      result.element.row0 = r, result.element.row1 = r + 1;
      result.element.column0 = result.element.column, result.element.column1 = result.element.column + 1;
      result.element.relative = std::fabs(line.found - line.wanted) / std::fabs(line.wanted);
    }
    if (double ratio = normRatio(line, gates); columns && ratio > worstRow) {
      worstRow = ratio;
      result.row = placeOf(line, expected, ratio);
      result.row.row0 = r, result.row.row1 = r + 1, result.row.column1 = columns;
    }
    if ((r + 1) % gates.tile == 0 || r + 1 == rows) finishTiles(r / gates.tile * gates.tile, r + 1);
  }
  result.pass =
      !result.unwritten && !result.mismatchedNaN && worstTile <= 1 && worstRow <= 1 && worstElement <= 1;
  return result;
}

namespace {
constexpr int64_t guardBytes = 4096;
constexpr std::byte guardByte{0xa5};
} // namespace

OutputBuffer::OutputBuffer(const OutputSpec &spec) {
  int64_t count = 1;
  for (int64_t s : spec.shape) count *= s;
  bytes = count * byteSize(spec.dtype);
  storage = std::make_unique<std::byte[]>(size_t(bytes + 2 * guardBytes));
  view.data = storage.get() + guardBytes;
  view.dtype = spec.dtype;
  view.shape = spec.shape;
  view.strides.assign(spec.shape.size(), 1);
  for (size_t d = spec.shape.size(); d-- > 1;) view.strides[d - 1] = view.strides[d] * spec.shape[d];
  fill();
}

void OutputBuffer::fill() {
  std::memset(storage.get(), int(guardByte), guardBytes);
  std::memset(storage.get() + guardBytes + bytes, int(guardByte), guardBytes);
  int64_t count = bytes / byteSize(view.dtype);
  if (view.dtype == DType::F32)
    std::fill_n(static_cast<uint32_t *>(view.data), count, mark32);
  else
    std::fill_n(static_cast<uint16_t *>(view.data), count, view.dtype == DType::BF16 ? markBF16 : markF16);
}

bool OutputBuffer::guardsIntact() const {
  auto intact = [](const std::byte *zone) {
    return std::all_of(zone, zone + guardBytes, [](std::byte b) { return b == guardByte; });
  };
  return intact(storage.get()) && intact(storage.get() + guardBytes + bytes);
}

} // namespace quern::oracle
