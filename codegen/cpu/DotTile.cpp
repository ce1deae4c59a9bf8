// See DotTile.h.
#include "codegen/cpu/DotTile.h"

using namespace mlir;

namespace quern::cpu {

bool tileable(const Problem &p, const Contraction &c) {
  if (p.schedule.isa != Isa::Amx || !p.schedule.tile || dotOf(p, c) != Dot::Bf16) return false;
  const Operand &x = p.operands[c.lhs], &w = p.operands[c.rhs];
  return w.kind == syntax::Param::Packed && w.layout == Layout::Cpu && w.block % 32 == 0 && x.unitStride &&
         c.reduced % 64 == 0 && c.columns % 32 == 0;
}

void transpose16(Emitter &e, SmallVector<Value> &rows) {
  for (int64_t distance = 1; distance < 16; distance *= 2) {
    SmallVector<int64_t> low,
        high; // lanes of the row without, with the distance bit; 16 + lane: of the partner
    for (int64_t lane = 0; lane < 16; ++lane) {
      low.push_back(lane & distance ? 16 + lane - distance : lane);
      high.push_back(lane & distance ? 16 + lane : lane + distance);
    }
    for (int64_t i = 0; i < 16; ++i) {
      if (i & distance) continue;
      Value a = rows[i], b = rows[i + distance];
      rows[i] = e.shuffle(a, b, low);
      rows[i + distance] = e.shuffle(a, b, high);
    }
  }
}

void prepareTiles(Emitter &e, const Problem &p, const TileForm &form, Value slots, Value absoluteRow,
                  Value count, Value target) {
  const Operand &x = p.operands[form.operand];
  Value base = e.slot(slots, x.slot, e.ptr()), stride = e.mul(e.slot(slots, x.slot + 1, e.i64()), 2);
  Value rowToken =
      form.row == RowAccess::Token ? e.slot(slots, p.operands[p.routing].slot, e.ptr()) : Value();
  SmallVector<Value> source;
  for (int64_t r = 0; r < 16; ++r) {
    Value row = e.add(absoluteRow, e.min(e.c(r), e.add(count, -1)));
    if (rowToken) row = e.load(e.i64(), e.at(rowToken, e.mul(row, 8)), 8);
    source.push_back(e.at(base, e.mul(row, stride)));
  }
  e.forEach(e.c(0), e.c(form.k), 32, [&](Value k) {
    SmallVector<Value> rows;
    for (Value s : source) rows.push_back(e.load(e.vec(16, e.i32()), e.at(s, e.mul(k, 2)), 2));
    transpose16(e, rows);
    Value to = e.at(target, e.mul(k, 32)); // 1 KB per 32 k
    for (int64_t pair = 0; pair < 16; ++pair) e.store(rows[pair], e.at(to, 64 * pair), 64);
  });
}

// Tiles are named by number in one-instruction asm statements. LLVM 22's tile allocation can lose a tile's
// shape under register pressure and then leaves it out of the configuration; its intrinsics with fixed tiles
// keep no liveness across blocks, so that a later pass renames a temporary onto an accumulator. Nothing else
// in the function uses tiles, so asm is safe. tmm0..3: C[half of n][group of t]; 4, 5: weights; 6, 7: tokens.
namespace {
enum Tile : int { C0 = 0, A0 = 4, B0 = 6 };
} // namespace

void DotTile::instruction(const std::string &text, ValueRange operands) {
  std::string constraints;
  for (size_t i = 0; i < operands.size(); ++i) constraints += "r,";
  auto dialect = LLVM::AsmDialectAttr::get(e.b.getContext(), LLVM::AsmDialect::AD_ATT);
  LLVM::InlineAsmOp::create(e.b, e.loc, TypeRange(), operands, text, constraints + "~{memory}",
                            /*has_side_effects=*/true,
                            /*is_align_stack=*/false, LLVM::TailCallKind::None, dialect, ArrayAttr());
}

static std::string tmm(int tile) { return "%tmm" + std::to_string(tile); }

void DotTile::load(int tile, Value address, Value stride) {
  instruction("tileloadd ($0,$1), " + tmm(tile), {address, stride});
}
void DotTile::multiply(int c, int a, int b) {
  instruction("tdpbf16ps " + tmm(b) + ", " + tmm(a) + ", " + tmm(c), {});
}
void DotTile::loadC(Value address) {
  for (int i = 0; i < 4; ++i) load(C0 + i, e.at(address, 1024 * i), e.c(64));
}
void DotTile::storeC(Value address) {
  for (int i = 0; i < 4; ++i)
    instruction("tilestored " + tmm(C0 + i) + ", ($0,$1)", {e.at(address, 1024 * i), e.c(64)});
}
void DotTile::zeroC() {
  for (int i = 0; i < 4; ++i) instruction("tilezero " + tmm(C0 + i), {});
}

void DotTile::configure() {
  // 64 bytes: palette 1; bytes per row (16-bit words from byte 16) and rows (bytes from 48) of tiles 0..7.
  StringRef symbol = "quern_tile_config";
  auto array = LLVM::LLVMArrayType::get(e.i8(), 64);
  if (!module.lookupSymbol(symbol)) {
    SmallVector<int8_t> bytes(64, 0);
    bytes[0] = 1;
    for (int i = 0; i < 8; ++i) bytes[16 + 2 * i] = 64, bytes[48 + i] = 16;
    OpBuilder top = OpBuilder::atBlockBegin(module.getBody());
    LLVM::GlobalOp::create(
        top, e.loc, array, /*isConstant=*/true, LLVM::Linkage::Internal, symbol,
        DenseElementsAttr::get(RankedTensorType::get({64}, e.i8()), ArrayRef<int8_t>(bytes)), 64);
  }
  instruction("ldtilecfg ($0)", {LLVM::AddressOfOp::create(e.b, e.loc, e.ptr(), symbol)});
}

void DotTile::step(Value weightRows, Value rowStride, Value b0, Value b1,
                   const std::function<void(int)> &slice) {
  for (int k2 = 0; k2 < 2; ++k2) {
    int first = b1 ? 0 : k2; // one group: the two halves of k have accumulators of their own, for the latency
    load(A0, e.at(weightRows, 64 * k2), rowStride);
    load(B0, e.at(b0, 1024 * k2), e.c(64));
    multiply(C0 + first, A0, B0);
    slice(4 * k2);
    load(A0 + 1, e.at(e.at(weightRows, e.mul(rowStride, 16)), 64 * k2), rowStride);
    multiply(C0 + first + 2, A0 + 1, B0);
    slice(4 * k2 + 1);
    if (b1) {
      load(B0 + 1, e.at(b1, 1024 * k2), e.c(64));
      multiply(C0 + 1, A0, B0 + 1);
    }
    slice(4 * k2 + 2);
    if (b1) multiply(C0 + 3, A0 + 1, B0 + 1);
    slice(4 * k2 + 3);
  }
}

void DotTile::interleaved(Value n, bool pair, Value cTiles, Value ring, Value tiles, int64_t groupBytes) {
  // Four decoded blocks of 32 rows x 64 k (128-byte rows) go round; two are ahead of the multiplication.
  constexpr int64_t ahead = 2, blockBytes = 4096, rowBytes = 128;
  auto place = [&](Value kb) { return e.at(ring, e.mul(e.rem(kb, 4), blockBytes)); };
  auto decodeRowPairs = [&](Value kb, int64_t from, int64_t to) {
    Value target = place(kb);
    for (int64_t r = from; r < to; r += 2)
      weights.decodePair(n, r, kb, [&](int which, int64_t position, Value v) {
        e.store(v, e.at(target, (r + which) * rowBytes + position * 2), 64);
      });
  };
  int64_t blocks = weights.mainBlocks(), steady = std::max<int64_t>(0, blocks - ahead);
  for (int64_t kb = 0; kb < std::min(ahead, blocks); ++kb) decodeRowPairs(e.c(kb), 0, 32);
  auto run = [&](Value from, Value to, bool decoding) {
    e.forEach(from, to, 1, [&](Value kb) {
      if (decoding) weights.prefetchNextPanel(n, 32, kb);
      Value b0 = e.at(tiles, e.mul(kb, 2048)), b1 = pair ? e.at(b0, groupBytes) : Value();
      step(place(kb), e.c(rowBytes), b0, b1, [&](int slice) {
        if (decoding) decodeRowPairs(e.add(kb, ahead), 4 * slice, 4 * slice + 4);
      });
    });
  };
  zeroC();
  run(e.c(0), e.c(steady), true);
  run(e.c(steady), e.c(blocks), false);
  storeC(cTiles);
}

void DotTile::chunked(Value n, Value groups, Value cTiles, Value buffer, Value tiles, int64_t groupBytes) {
  int64_t blocks = weights.mainBlocks(), pitch = schedule.chunk * 64;
  Value rowStride = e.c(pitch * 2), pairs = e.div(groups, 2);
  auto pass = [&](Value block0, Value block1, bool first) {
    weights.decodeRows(n, 32, block0, block1, pitch, buffer);
    auto group = [&](Value p, bool pair) {
      Value place = e.at(cTiles, e.mul(p, 4096)), b = e.at(tiles, e.mul(p, 2 * groupBytes));
      if (first)
        zeroC();
      else
        loadC(place);
      e.forEach(block0, block1, 1, [&](Value kb) {
        Value b0 = e.at(b, e.mul(kb, 2048)), b1 = pair ? e.at(b0, groupBytes) : Value();
        step(e.at(buffer, e.mul(e.sub(kb, block0), 128)), rowStride, b0, b1, [](int) {});
      });
      storeC(place);
    };
    e.forEach(e.c(0), pairs, 1, [&](Value p) { group(p, true); });
    e.ifThen(e.eq(e.rem(groups, 2), 1), [&] { group(pairs, false); });
  };
  pass(e.c(0), e.c(std::min(schedule.chunk, blocks)), true);
  if (blocks > schedule.chunk)
    e.forEach(e.c(schedule.chunk), e.c(blocks), schedule.chunk,
              [&](Value block) { pass(block, e.min(e.add(block, schedule.chunk), e.c(blocks)), false); });
}

void DotTile::unpack(Value cTiles, bool merge, Value t0, Value tokens, Value c, Value pitch, Value column) {
  // C tiles: [half of n][group of t][16 n][16 t]; `merge`: the second group holds the other half of k of the
  // same tokens.
  for (int group = 0; group < (merge ? 1 : 2); ++group) {
    Value first = e.add(t0, 16 * group), count = e.min(e.sub(tokens, first), e.c(16));
    for (int half = 0; half < 2; ++half) {
      SmallVector<Value> rows;
      for (int64_t i = 0; i < 16; ++i) {
        Value v = e.load(e.vec(16, e.f32()), e.at(cTiles, half * 2048 + group * 1024 + i * 64), 64);
        if (merge) v = e.addf(v, e.load(e.vec(16, e.f32()), e.at(cTiles, half * 2048 + 1024 + i * 64), 64));
        rows.push_back(v);
      }
      transpose16(e, rows);
      for (int64_t t = 0; t < 16; ++t)
        e.ifThen(e.lt(e.c(t), count), [&] {
          Value line = e.at(c, e.mul(e.add(e.mul(e.add(first, t), pitch), column), 4));
          e.store(rows[t], e.at(line, 64 * half), 4);
        });
    }
  }
}

void DotTile::emit(Value n0, Value columns, Value pitch, Value tokens, Value c, Value buffer, Value tiles,
                   int64_t groupBytes) {
  configure();
  Value groups = e.div(e.add(tokens, 15), 16), cTiles = e.at(buffer, decodedBytes());
  e.forEach(e.c(0), columns, 32, [&](Value column) {
    Value n = e.add(n0, column);
    auto manyTokens = [&] {
      chunked(n, groups, cTiles, buffer, tiles, groupBytes);
      Value pairs = e.div(groups, 2);
      e.forEach(e.c(0), pairs, 1, [&](Value p) {
        unpack(e.at(cTiles, e.mul(p, 4096)), false, e.mul(p, 32), tokens, c, pitch, column);
      });
      e.ifThen(e.eq(e.rem(groups, 2), 1), [&] {
        unpack(e.at(cTiles, e.mul(pairs, 4096)), true, e.mul(pairs, 32), tokens, c, pitch, column);
      });
    };
    auto fewTokens = [&](bool pair) {
      interleaved(n, pair, cTiles, buffer, tiles, groupBytes);
      unpack(cTiles, !pair, e.c(0), tokens, c, pitch, column);
    };
    e.ifThen(e.lt(n, e.c(weights.rowsTotal())), [&] {
      e.ifThen(
          e.eq(groups, 1), [&] { fewTokens(false); },
          [&] { e.ifThen(e.eq(groups, 2), [&] { fewTokens(true); }, manyTokens); });
    });
  });
  instruction("tilerelease", {});
}

} // namespace quern::cpu
