// See DotRows.h.
#include "codegen/cpu/DotRows.h"

using namespace mlir;

namespace quern::cpu {

Value DotRows::dot(Value w, Value x, Value acc) {
  if (weights.elementBytes() == 2)
    return e.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", e.vec(16, e.f32()), {acc, w, x});
  return e.fma(w, x, acc);
}

Value DotRows::foldLanes(SmallVector<Value> vectors) {
  int64_t partials = schedule.lanes; // partial sums per group; a vector holds lanes / partials groups
  int64_t lanes = schedule.lanes;
  auto iota = [](int64_t n) {
    SmallVector<int64_t> mask;
    for (int64_t i = 0; i < n; ++i) mask.push_back(i);
    return mask;
  };
  while (vectors.size() > 1) {
    SmallVector<Value> next;
    for (size_t i = 0; i < vectors.size(); i += 2) {
      if (partials == 1) {
        next.push_back(e.shuffle(vectors[i], vectors[i + 1], iota(2 * lanes)));
        continue;
      }
      SmallVector<int64_t> low, high;
      for (int64_t which = 0; which < 2; ++which)
        for (int64_t g = 0; g < lanes / partials; ++g)
          for (int64_t p = 0; p < partials / 2; ++p) {
            low.push_back(which * lanes + g * partials + p);
            high.push_back(which * lanes + g * partials + p + partials / 2);
          }
      next.push_back(
          e.addf(e.shuffle(vectors[i], vectors[i + 1], low), e.shuffle(vectors[i], vectors[i + 1], high)));
    }
    if (partials == 1)
      lanes *= 2;
    else
      partials /= 2;
    vectors = next;
  }
  Value v = vectors[0];
  while (partials > 1) {
    SmallVector<int64_t> low, high;
    for (int64_t g = 0; g < lanes / partials; ++g)
      for (int64_t p = 0; p < partials / 2; ++p) {
        low.push_back(g * partials + p);
        high.push_back(g * partials + p + partials / 2);
      }
    v = e.addf(e.shuffle(v, v, low), e.shuffle(v, v, high));
    lanes /= 2;
    partials /= 2;
  }
  return v;
}

void DotRows::storeSums(ArrayRef<Value> acc, int64_t rowCount, int64_t tokenCount, Value c, Value pitch,
                        Value t0, Value column) {
  for (int64_t t = 0; t < tokenCount; ++t) {
    SmallVector<Value> ofToken;
    for (int64_t r = 0; r < rowCount; ++r) ofToken.push_back(acc[t * rowCount + r]);
    Value place = e.at(c, e.mul(e.add(e.mul(e.add(t0, t), pitch), column), 4));
    e.store(foldLanes(ofToken), place, 4);
  }
}

int64_t DotRows::chunkBlocks() const {
  int64_t blocks = (weights.paddedK() + 63) / 64, blockBytes = 64 * weights.elementBytes() * blockRows();
  int64_t most = std::max<int64_t>(1, schedule.decoded * 1024 / blockBytes),
          count = (blocks + most - 1) / most;
  return (blocks + count - 1) / count;
}

int64_t DotRows::bufferBytes() const {
  int64_t partials = chunks() == 1 ? 0 : schedule.segment * blockRows() * schedule.lanes * 4;
  return decodedBytes() + partials;
}

SmallVector<Value> DotRows::multiply(int64_t tokenCount, Value t0, Value from, Value to, ValueRange init,
                                     Value buffer) {
  int64_t rowCount = blockRows(), unit = weights.unit(), rowBytes = pitch() * weights.elementBytes();
  SmallVector<Value> x;
  for (int64_t t = 0; t < tokenCount; ++t) x.push_back(rows.rowPointer(e.add(t0, t)));
  Type unitType = weights.elementBytes() == 2 ? e.vec(32, e.bf16()) : e.vec(schedule.lanes, e.f32());
  return e.forLoop(from, to, e.c(unit), init, [&](Value k, ValueRange in) {
    SmallVector<Value> next(in), units;
    for (int64_t t = 0; t < tokenCount; ++t) units.push_back(rows.unit(x[t], k, unit));
    Value w = e.at(buffer, e.mul(e.sub(k, from), weights.elementBytes()));
    for (int64_t r = 0; r < rowCount; ++r) {
      Value row = e.load(unitType, e.at(w, r * rowBytes));
      for (int64_t t = 0; t < tokenCount; ++t)
        next[t * rowCount + r] = dot(row, units[t], next[t * rowCount + r]);
    }
    return next;
  });
}

void DotRows::forTokens(Value tokens, const std::function<void(int64_t, Value)> &body) {
  Value whole = e.sub(tokens, e.rem(tokens, schedule.tokens)), rest = e.sub(tokens, whole);
  e.forEach(e.c(0), whole, schedule.tokens, [&](Value t0) { body(schedule.tokens, t0); });
  for (int64_t count = 1; count < schedule.tokens; ++count)
    e.ifThen(e.eq(rest, count), [&] { body(count, whole); });
}

void DotRows::buffered(Value n, Value tokens, Value c, Value cPitch, Value column, Value buffer) {
  VectorType accType = e.vec(schedule.lanes, e.f32());
  Value zero = e.constantF(accType, {0.0f});
  int64_t rowCount = blockRows(), blocks = (weights.paddedK() + 63) / 64;
  if (chunks() == 1) {
    weights.decodeRows(n, rowCount, e.c(0), e.c(blocks), pitch(), buffer);
    return forTokens(tokens, [&](int64_t count, Value t0) {
      auto acc =
          multiply(count, t0, e.c(0), e.c(rows.extent()), SmallVector<Value>(rowCount * count, zero), buffer);
      storeSums(acc, rowCount, count, c, cPitch, t0, column);
    });
  }
  // Accumulators wait in memory between chunks: [token][row] vectors.
  Value partials = e.at(buffer, decodedBytes());
  int64_t vectorBytes = schedule.lanes * 4;
  auto place = [&](Value t0, int64_t t, int64_t r) {
    return e.at(e.at(partials, e.mul(e.add(t0, t), rowCount * vectorBytes)), r * vectorBytes);
  };
  auto pass = [&](Value block0, Value block1, bool first, bool last) {
    weights.decodeRows(n, rowCount, block0, block1, pitch(), buffer);
    forTokens(tokens, [&](int64_t count, Value t0) {
      SmallVector<Value> init;
      for (int64_t t = 0; t < count; ++t)
        for (int64_t r = 0; r < rowCount; ++r)
          init.push_back(first ? zero : e.load(accType, place(t0, t, r)));
      Value to = last ? e.c(rows.extent()) : e.mul(block1, 64);
      auto acc = multiply(count, t0, e.mul(block0, 64), to, init, buffer);
      if (last) return storeSums(acc, rowCount, count, c, cPitch, t0, column);
      for (int64_t t = 0; t < count; ++t)
        for (int64_t r = 0; r < rowCount; ++r) e.store(acc[t * rowCount + r], place(t0, t, r));
    });
  };
  int64_t chunk = chunkBlocks(), lastChunk = (chunks() - 1) * chunk;
  pass(e.c(0), e.c(chunk), true, false);
  if (chunks() > 2)
    e.forEach(e.c(chunk), e.c(lastChunk), chunk,
              [&](Value block) { pass(block, e.add(block, chunk), false, false); });
  pass(e.c(lastChunk), e.c(blocks), false, true);
}

void DotRows::fused(Value n, int64_t rowCount, int64_t tokenCount, Value c, Value pitch, Value column) {
  VectorType accType = e.vec(schedule.lanes, e.f32());
  SmallVector<Value> zero(rowCount * tokenCount, e.constantF(accType, {0.0f}));
  SmallVector<Value> x;
  for (int64_t t = 0; t < tokenCount; ++t) x.push_back(rows.rowPointer(e.c(t)));
  auto acc = e.forLoop(e.c(0), e.c(weights.mainBlocks()), e.c(1), zero, [&](Value kb, ValueRange in) {
    SmallVector<Value> next(in);
    weights.prefetchNextPanel(n, rowCount, kb);
    Value k = e.mul(kb, 64);
    for (int64_t r = 0; r < rowCount; r += 2)
      weights.decodePair(n, r, kb, [&](int which, int64_t position, Value w) {
        for (int64_t t = 0; t < tokenCount; ++t) {
          Value &a = next[t * rowCount + r + which];
          a = dot(w, rows.unit(x[t], e.add(k, position), weights.unit()), a);
        }
      });
    return next;
  });
  storeSums(acc, rowCount, tokenCount, c, pitch, e.c(0), column);
}

void DotRows::emit(Value n0, Value columns, Value cPitch, Value tokens, Value c, Value buffer) {
  int64_t fusedLimit = weights.vectorized() && weights.depth() % 64 == 0 ? schedule.fused : 0;
  auto general = [&](Value n32, Value column32) {
    e.forEach(e.c(0), e.c(32), blockRows(), [&](Value step) {
      Value n = e.add(n32, step), column = e.add(column32, step);
      auto block = [&] { buffered(n, tokens, c, cPitch, column, buffer); };
      if (weights.rowsTotal() % 32 == 0)
        block();
      else
        e.ifThen(e.lt(n, e.c(weights.rowsTotal())), block);
    });
  };
  auto fusedPanel = [&](Value n32, Value column32, int64_t tokenCount) {
    int64_t registers = schedule.isa >= Isa::Avx512 ? 16 : 8, rowCount = 16;
    while (rowCount * tokenCount > registers) rowCount /= 2;
    e.forEach(e.c(0), e.c(32), rowCount,
              [&](Value s) { fused(e.add(n32, s), rowCount, tokenCount, c, cPitch, e.add(column32, s)); });
  };
  e.forEach(e.c(0), columns, 32, [&](Value column32) {
    Value n32 = e.add(n0, column32);
    auto panel = [&] {
      if (!fusedLimit) return general(n32, column32);
      Value few = e.le(tokens, e.c(fusedLimit));
      if (weights.rowsTotal() % 32)
        few = arith::AndIOp::create(e.b, e.loc, few, e.lt(n32, e.c(weights.mainRows())));
      e.ifThen(
          few,
          [&] {
            for (int64_t count = 1; count <= fusedLimit; ++count)
              e.ifThen(e.eq(tokens, count), [&] { fusedPanel(n32, column32, count); });
          },
          [&] { general(n32, column32); });
    };
    e.ifThen(e.lt(n32, e.c(weights.rowsTotal())), panel);
  });
}

} // namespace quern::cpu
